"""What is done to a fleet in the middle of its work. Each is over, and the fleet whole again, when it returns."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import dramatiq
import pika
from pika.exceptions import AMQPError
from sqlalchemy.exc import DBAPIError

from ops_core.dispatchers.hints import ACTOR
from ops_core.dispatchers.rabbitmq import QUEUE
from ops_core.testing.proxies import TcpProxy
from ops_core.testing.rabbitmq import RabbitServer

from . import clocks
from .caller import Caller
from .fleet import LEASE_SECONDS, Fleet, Member
from .oracle import Submitted

HOUR = 3600
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'opspawn' AND datname = '{}'"
CUT_ONE = (
    "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE application_name = 'opspawn' "
    "AND datname = '{}' AND usename IS NOT NULL ORDER BY random() LIMIT 1) AS one"
)


@dataclass(slots=True)
class Scene:
    """Where a provocation takes place, and whether it is over."""

    fleet: Fleet
    caller: Caller
    round: Submitted
    chance: random.Random
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def some_worker(self) -> Member:
        return self.chance.choice(self.fleet.workers)

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
    await asyncio.to_thread(scene.fleet.server.end, signal.SIGQUIT)
    await asyncio.sleep(scene.chance.uniform(0, 1.5 * LEASE_SECONDS))
    await asyncio.to_thread(scene.fleet.server.start)


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
    Provocation(name="terminate connections", act=terminate_connections),
    Provocation(name="lose answers to commits", act=lose_answers_to_commits),
    Provocation(name="cut a wire", act=cut_a_wire),
    Provocation(name="swallow a wire", act=swallow_a_wire),
    Provocation(name="slow a wire", act=slow_a_wire),
    Provocation(name="freeze a worker", act=freeze_a_worker),
    Provocation(name="block event loops", act=nothing, hogs=4),
    Provocation(name="cancel some", act=cancel_some),
    Provocation(name="move clocks", act=move_clocks, needs="clocks"),
    Provocation(name="kill the broker", act=kill_the_broker, needs="broker"),
    Provocation(name="twist the hints", act=twist_the_hints, needs="broker"),
)
