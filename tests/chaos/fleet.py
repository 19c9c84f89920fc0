"""The processes: an API, workers, PostgreSQL, RabbitMQ; each worker behind a wire of its own."""

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ops_core.cli.exit_codes import Exit
from ops_core.stores import SqlStore, migrations, open_store
from ops_core.testing.servers.postgresql import PostgresServer
from ops_core.testing.servers.rabbitmq import RabbitServer
from ops_core.testing.servers.tcp_proxy import TcpProxy

from .clocks import settings_of
from .history import keep_history
from .world import World

HERE = Path(__file__).parent
OPSPAWN = Path(sys.executable).with_name("opspawn")
LEASE_SECONDS = 1.5
END_SECONDS = 120.0
"""A process takes no longer to start or to end, also on a machine that has much else to do."""
ADDRESS = re.compile(rb"http://[0-9.]+:\d+")
ANYTHING = re.compile(rb"\S+")
SETTINGS = {
    "OPSPAWN_LEASE_SECONDS": str(LEASE_SECONDS),
    "OPSPAWN_SWEEP_SECONDS": "0.25",
    "OPSPAWN_POLL_SECONDS": "0.25",
    "OPSPAWN_GRACE_SECONDS": "10",
    "OPSPAWN_CONCURRENCY": "5",
    "OPSPAWN_APP": "agents:catalog",
}


class Member:
    """One process of the fleet, started again as often as it is ended.

    Args:
        name: of its log.
        command: what is run.
        folder: where it runs.
        settings: added to its environment.
    """

    ready = ANYTHING

    def __init__(self, name: str, command: list[str], folder: Path, settings: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.said = ""
        self._command = command
        self._folder = folder
        ours = ("OPSPAWN_", "OPENAI_")
        mine = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self._environment = {**mine, **SETTINGS, **settings}
        self._drain: asyncio.Task[None] | None = None
        self._restarting = asyncio.Lock()
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        """Start it, and wait until it says that it is there.

        One that finds no database when it starts says so and ends; it is started again, as by whoever looks after it.
        """
        async with asyncio.timeout(END_SECONDS):
            while not await self._started():
                if await self.process.wait() != Exit.UNAVAILABLE:
                    raise AssertionError(f"{self.name} did not start: {self.log.read_text()[-2000:]}")

    async def _started(self) -> bool:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self._command, cwd=self._folder, env=self._environment,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if found := self.ready.search(line):
                self.said = found[0].decode()
                self._drain = asyncio.create_task(self._read_the_rest())
                return True
        return False

    async def _read_the_rest(self) -> None:
        assert self.process.stdout is not None
        while await self.process.stdout.read(65536):
            pass

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it."""
        if self.process.returncode is None:
            self.process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end, which comes in bounded time."""
        self.send(number)
        async with asyncio.timeout(END_SECONDS):
            code = await self.process.wait()
            if self._drain is not None:
                await self._drain
        return code

    async def restart(self, number: signal.Signals) -> int:
        """End it by a signal and start it again, once at a time; its exit code."""
        async with self._restarting:
            code = await self.end(number)
            await self.start()
        return code

    async def stop_at_once(self) -> None:
        """At the end of everything: whatever state it is in."""
        if hasattr(self, "process") and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """What the processes need; without a broker they look for work by themselves."""

    database: PostgresServer
    broker: RabbitServer | None = None


class Api(Member):
    """Says where it listens."""

    ready = ADDRESS


class Fleet:
    """What a campaign provokes.

    Attributes:
        folder: of logs and effects.
        server: the database's.
        database: its name.
        broker: RabbitMQ, where there is one.
        hints: the wire of all processes to it.
        store: the driver's own view of it.
        world: the effects.
        api: answers over HTTP, and carries no task.
        workers: carry tasks.
        proxies: the wire of each worker to the database.
        api_wire: that of the API.
        database_turn: held by what is done to the whole server, so that two such things do not mix.
    """

    def __init__(self, folder: Path, servers: Servers, database: str, store: SqlStore) -> None:
        self.folder = folder
        self.server = servers.database
        self.broker = servers.broker
        self.hints: TcpProxy | None = None
        self.database = database
        self.store = store
        self.world = World(folder / "effects.log")
        self.proxies: list[TcpProxy] = []
        self.api_wire: TcpProxy
        self.database_turn = asyncio.Lock()
        self.workers: list[Member] = []
        self.api: Member

    @property
    def members(self) -> list[Member]:
        return [self.api, *self.workers]

    def clock_of(self, name: str) -> Path:
        """The file that says what time it is in the process of this name."""
        return self.folder / f"{name}.clock"

    def build(self, api_wire: TcpProxy, proxies: list[TcpProxy]) -> None:
        """Name the processes; each reaches the database through its own proxy."""
        self.proxies, self.api_wire = proxies, api_wire
        serve = [str(OPSPAWN), "serve", "--no-worker", "--port", "0"]
        wakes = {}
        if self.hints is not None:
            wakes = {"OPSPAWN_DISPATCHER_URL": f"amqp://guest:guest@127.0.0.1:{self.hints.port}/"}
        self.api = Api("api", serve, self.folder, {"OPSPAWN_STORE_URL": self._through(api_wire), **wakes})
        for number, proxy in enumerate(proxies):
            name = f"worker-{number}"
            settings = {
                "OPSPAWN_STORE_URL": self._through(proxy),
                **wakes,
                **settings_of(self.clock_of(name)),
            }
            self.workers.append(Member(name, [str(OPSPAWN), "worker"], self.folder, settings))

    def _through(self, wire: TcpProxy) -> str:
        return f"postgresql://opspawn@127.0.0.1:{wire.port}/{self.database}?sslmode=disable"


@asynccontextmanager
async def fleet_of(folder: Path, servers: Servers, workers: int) -> AsyncGenerator[Fleet]:
    """A fleet at work; whatever is left of it is killed at the end."""
    server = servers.database
    shutil.copy(HERE / "agents.py", folder)
    with server.database() as database:
        async with AsyncExitStack() as stack:
            store = open_store(server.url(database))
            await asyncio.to_thread(migrations.upgrade, store)
            await asyncio.to_thread(keep_history, server, database)
            await stack.enter_async_context(store)
            fleet = Fleet(folder, servers, database, store)
            if servers.broker is not None:
                wire = TcpProxy(("127.0.0.1", servers.broker.port))
                fleet.hints = await stack.enter_async_context(wire)
            api_wire, *proxies = [
                await stack.enter_async_context(TcpProxy(server.socket)) for _ in range(1 + workers)
            ]
            fleet.build(api_wire, proxies)
            for member in fleet.members:
                stack.push_async_callback(member.stop_at_once)
            await asyncio.gather(*(member.start() for member in fleet.members))
            yield fleet
