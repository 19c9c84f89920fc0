"""What is done to a fleet in the middle of its work. Each is over, and the fleet whole again, when it returns."""

import asyncio
import random
import resource
import signal
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import dramatiq
import pika
from pika.exceptions import AMQPError
from sqlalchemy.exc import DBAPIError

from ops_core.dispatchers.rabbitmq import QUEUE
from ops_core.dispatchers.rabbitmq_broker import ACTOR
from ops_core.testing.servers.rabbitmq import RabbitServer
from ops_core.testing.servers.tcp_proxy import TcpProxy

from . import clocks
from .caller import ToolExecutor
from .fleet import LEASE_SECONDS, Fleet, Member
from .oracle import Submitted

HOUR = 3600
GOES_ON_SECONDS = 60.0
"""After a fault of the database is over, the fleet works again within this time, also on a busy machine; it takes a
few seconds on a quiet one."""
FEW_DESCRIPTORS = 16
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'opspawn' AND datname = '{}'"
CUT_ONE = (
    "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE application_name = 'opspawn' "
    "AND datname = '{}' AND usename IS NOT NULL ORDER BY random() LIMIT 1) AS one"
)


@dataclass(slots=True)
class Scene:
    """Where a provocation takes place, and whether it is over."""

    fleet: Fleet
    caller: ToolExecutor
    round: Submitted
    chance: random.Random
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def some_worker(self) -> Member:
        return self.chance.choice(self.fleet.workers)

    async def goes_on(self) -> None:
        """Until the fleet has done some more work, by itself.

        Raises:
            TimeoutError: it does not.
        """
        async with asyncio.timeout(GOES_ON_SECONDS):
            await self.fleet.world.until_more(12)

    async def amid_the_work(self) -> None:
        """Until a few more effects have begun, so that no moment of a task is spared."""
        await self.fleet.world.until_more(self.chance.randint(1, 12))


Act: TypeAlias = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provocation:
    """One way to provoke a fleet.

    Attributes:
        name: of it.
        act: does it.
        hogs: so many of the tasks block the event loop of their worker.
        needs: what not every machine has.
    """

    name: str
    act: Act
    hogs: int = 0
    needs: Literal["clocks", "broker"] | None = None


async def nothing(scene: Scene) -> None:
    """The control: a round in which nothing happens."""


async def kill_workers(scene: Scene) -> None:
    """SIGKILL one worker after the other."""
    for worker in scene.chance.sample(scene.fleet.workers, 2):
        await scene.amid_the_work()
        await worker.restart(signal.SIGKILL)


async def kill_the_api(scene: Scene) -> None:
    """SIGKILL the process that answers submits: what was accepted is kept, what was not answered is asked again."""
    await scene.amid_the_work()
    await scene.fleet.api.restart(signal.SIGKILL)


async def deploy(scene: Scene) -> None:
    """SIGTERM and start again, half of the fleet and then the other: it costs no attempt and repeats nothing."""
    members = scene.fleet.members
    for some in (members[::2], members[1::2]):
        await scene.amid_the_work()
        codes = await asyncio.gather(*(member.restart(signal.SIGTERM) for member in some))
        assert set(codes) <= {0, -signal.SIGKILL}, f"ended with {codes}"


async def crash_the_database(scene: Scene) -> None:
    """An immediate shutdown of PostgreSQL, and a start from its log."""
    await scene.amid_the_work()
    async with scene.fleet.database_turn:
        await asyncio.to_thread(scene.fleet.server.end, signal.SIGQUIT)
        await asyncio.sleep(scene.chance.uniform(0, 1.5 * LEASE_SECONDS))
        await asyncio.to_thread(scene.fleet.server.start)


async def stall_the_database(scene: Scene) -> None:
    """SIGSTOP of PostgreSQL for longer than a lease: it accepts connections and answers nothing, then goes on."""
    await scene.amid_the_work()
    async with scene.fleet.database_turn:
        scene.fleet.server.pause()
        await asyncio.sleep(LEASE_SECONDS * scene.chance.uniform(1.5, 2.5))
        scene.fleet.server.go_on()
        await scene.goes_on()


async def only_read(scene: Scene) -> None:
    """PostgreSQL refuses every write for longer than a lease, as one whose disk is full."""
    await scene.amid_the_work()
    server = scene.fleet.server
    async with scene.fleet.database_turn:
        await asyncio.to_thread(server.read_only)
        await asyncio.sleep(LEASE_SECONDS * scene.chance.uniform(1.5, 2.5))
        await asyncio.to_thread(server.read_only, read_only=False)
        await scene.goes_on()


async def fail_over(scene: Scene) -> None:
    """A standby takes over behind one address, while the old primary lives on and may only be read.

    Connections that exist stay with the old one, so that nothing but its refusals says that it is the wrong one.
    """
    await scene.amid_the_work()
    fleet, server = scene.fleet, scene.fleet.server
    async with fleet.database_turn:
        standby = await asyncio.to_thread(server.standby)
        while not await asyncio.to_thread(server.has_a_standby_that_keeps_up):
            await asyncio.sleep(0.05)  # between two looks
        await asyncio.to_thread(server.demote)
        await asyncio.sleep(scene.chance.uniform(0.5, 1.5) * LEASE_SECONDS)  # they connect to the wrong one
        await asyncio.to_thread(standby.promote)
        for wire in (fleet.api_wire, *fleet.proxies):
            wire.lead_to(standby.socket)
        await scene.goes_on()
        await asyncio.to_thread(server.replace_by, standby)


async def terminate_connections(scene: Scene) -> None:
    """Backends are ended at random moments, one by one and all at once."""
    for number in range(10):
        await asyncio.sleep(scene.chance.uniform(0, 0.1))
        statement = CUT if number == 5 else CUT_ONE
        with suppress(DBAPIError):  # where the whole server is down
            await asyncio.to_thread(scene.fleet.server.execute, statement.format(scene.fleet.database))


async def lose_answers_to_commits(scene: Scene) -> None:
    """The commit is carried out and its answer lost: nobody may take that for a failure, or for a success."""
    proxies = scene.fleet.proxies
    for proxy in proxies:
        proxy.lose_the_answer_to(b"COMMIT")
        before = proxy.lost_answers
        while proxy.lost_answers < before + 4:  # of steps, claims, heartbeats, sweeps
            await asyncio.sleep(0.01)  # until the worker has committed
        proxy.lose_the_answer_to(None)


async def cut_a_wire(scene: Scene) -> None:
    """The connections of one worker are reset, and refused for a while."""
    await scene.amid_the_work()
    proxy = scene.chance.choice(scene.fleet.proxies)
    proxy.refuse()
    await asyncio.sleep(scene.chance.uniform(0, 2 * LEASE_SECONDS))
    proxy.refuse(refuse=False)


async def swallow_a_wire(scene: Scene) -> None:
    """A black hole for longer than a lease: the worker hangs in a statement, and is late when it goes through."""
    await scene.amid_the_work()
    proxy = scene.chance.choice(scene.fleet.proxies)
    proxy.stop()
    await asyncio.sleep(LEASE_SECONDS * scene.chance.uniform(1.5, 2.5))
    proxy.go_on()


async def slow_a_wire(scene: Scene) -> None:
    """Every message between one worker and the database takes its time."""
    await scene.amid_the_work()
    proxy = scene.chance.choice(scene.fleet.proxies)
    proxy.delay_seconds = 0.02
    await asyncio.sleep(2 * LEASE_SECONDS)
    proxy.delay_seconds = 0.0


async def freeze_a_worker(scene: Scene) -> None:
    """SIGSTOP for longer than its lease, then SIGCONT: a zombie, whose writes are refused."""
    await scene.amid_the_work()
    worker = scene.some_worker()
    worker.send(signal.SIGSTOP)
    await asyncio.sleep(LEASE_SECONDS * scene.chance.uniform(1.6, 2.5))
    worker.send(signal.SIGCONT)


async def use_up_descriptors(scene: Scene) -> None:
    """One worker can open nothing for longer than its lease: no connection, no file, no pipe."""
    await scene.amid_the_work()
    worker = scene.some_worker()
    process = worker.process
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (FEW_DESCRIPTORS, before[1]))
    for wire in scene.fleet.proxies:
        wire.cut()  # it needs descriptors now
    await asyncio.sleep(LEASE_SECONDS * scene.chance.uniform(1.6, 2.5))
    with suppress(ProcessLookupError):  # another provocation has killed it
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
    assert worker.process is not process or process.returncode is None, "it has ended"


async def move_clocks(scene: Scene) -> None:
    """The wall clock of one host jumps back by an hour, then ahead by two, and stays there."""
    worker = scene.some_worker()
    for offset in (-HOUR, HOUR):
        clocks.set_clock(scene.fleet.clock_of(worker.name), offset)
        await asyncio.sleep(clocks.SEEN_SECONDS)


def the_broker(scene: Scene) -> tuple[RabbitServer, TcpProxy]:
    """And its wire; these provocations are only planned where there is one."""
    assert scene.fleet.broker is not None
    assert scene.fleet.hints is not None
    return scene.fleet.broker, scene.fleet.hints


async def kill_the_broker(scene: Scene) -> None:
    """SIGKILL of RabbitMQ, and a start with an empty disk: every message is gone, and the queue."""
    broker, _wire = the_broker(scene)
    await scene.amid_the_work()
    await asyncio.to_thread(broker.end, signal.SIGKILL)
    await asyncio.to_thread(broker.empty)
    await asyncio.to_thread(broker.start)


async def twist_the_hints(scene: Scene) -> None:
    """Wake-ups are late, then lost, then doubled and garbled, and their connections cut."""
    broker, wire = the_broker(scene)
    wire.delay_seconds = 0.3
    await asyncio.sleep(LEASE_SECONDS / 2)
    wire.delay_seconds = 0.0
    wire.stop()
    await asyncio.sleep(LEASE_SECONDS / 2)
    with suppress(AMQPError):  # where the broker is down at this moment
        await asyncio.to_thread(lose_and_double, broker)
    wire.go_on()
    wire.cut()


def lose_and_double(broker: RabbitServer) -> None:
    """The queue is emptied, then filled with wake-ups for nothing, and with what is no wake-up at all."""
    said: dramatiq.Message[None] = dramatiq.Message(
        queue_name=QUEUE, actor_name=ACTOR, args=("nobody",), kwargs={}, options={}
    )
    with closing(pika.BlockingConnection(pika.URLParameters(broker.url()))) as connection:
        channel = connection.channel()
        channel.queue_purge(QUEUE)
        for body in (said.encode(), b"{", b"", b"\xff", said.encode()) * 40:
            channel.basic_publish("", QUEUE, body)


async def cancel_some(scene: Scene) -> None:
    """Cancel at random moments, whoever holds the task, and twice."""
    for _ in range(12):
        await asyncio.sleep(scene.chance.uniform(0, 0.15))
        if scene.round.ids:
            task_id = scene.chance.choice(sorted(scene.round.ids.values()))
            scene.round.cancelled.add(task_id)
            await asyncio.gather(scene.caller.cancel(task_id), scene.caller.cancel(task_id))


ALL = (
    Provocation(name="nothing", act=nothing),
    Provocation(name="kill workers", act=kill_workers),
    Provocation(name="kill the API", act=kill_the_api),
    Provocation(name="deploy", act=deploy),
    Provocation(name="crash the database", act=crash_the_database),
    Provocation(name="stall the database", act=stall_the_database),
    Provocation(name="only read", act=only_read),
    Provocation(name="fail over", act=fail_over),
    Provocation(name="terminate connections", act=terminate_connections),
    Provocation(name="lose answers to commits", act=lose_answers_to_commits),
    Provocation(name="cut a wire", act=cut_a_wire),
    Provocation(name="swallow a wire", act=swallow_a_wire),
    Provocation(name="slow a wire", act=slow_a_wire),
    Provocation(name="freeze a worker", act=freeze_a_worker),
    Provocation(name="use up descriptors", act=use_up_descriptors),
    Provocation(name="block event loops", act=nothing, hogs=4),
    Provocation(name="cancel some", act=cancel_some),
    Provocation(name="move clocks", act=move_clocks, needs="clocks"),
    Provocation(name="kill the broker", act=kill_the_broker, needs="broker"),
    Provocation(name="twist the hints", act=twist_the_hints, needs="broker"),
)
