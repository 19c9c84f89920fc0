"""What breaks a queue of tasks on RabbitMQ, tried on Opspawn, where a message is a hint and the row is the task.

The names are those of docs/decisions/0017. E1, E2, E3, E6, E8 and E9 need real processes: tests/test_workers.py. That
nothing of Dramatiq is on which retries, limits or stores anything (E4, E7): packages/ops-core/tests/test_rabbitmq.py.
"""

import asyncio
import secrets
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any, Self

import pika
import pytest

from agentkit import Agent, ToolCall, tool
from agentkit.ports import ToolContext
from agentkit.testing import ScriptedModel
from ops_core.assembly import open_ops
from ops_core.config.catalog import Catalog
from ops_core.config.sandbox import Sandboxing
from ops_core.settings import Settings
from ops_core.task import NewTask

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def queue() -> str:
    return f"test-{secrets.token_hex(4)}"


def in_process(agents: list[Agent[Any, Any]]) -> Catalog:
    """Agents whose tools count in this process what they did."""
    return Catalog(agents, sandboxing=Sandboxing(default="inprocess"))


class Cluster:
    """One who submits, and workers, as processes on one store would be: each with a dispatcher of its own."""

    def __init__(self, store_url: str, agents: Catalog) -> None:
        self._store_url = store_url
        self._agents = agents
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error) -> None:
        await self._stack.aclose()

    async def engine(self, dispatcher_url: str):
        """A process that only submits."""
        return (await self._opened(dispatcher_url, Catalog())).engine

    async def worker(self, dispatcher_url: str, poll_seconds: float) -> None:
        ops = await self._opened(dispatcher_url, self._agents, poll_seconds)
        await self._stack.enter_async_context(ops.working())

    async def _opened(self, dispatcher_url: str, agents: Catalog, poll_seconds: float = 60.0):
        settings = Settings(
            store_url=self._store_url, dispatcher_url=dispatcher_url, concurrency=2, grace_seconds=0.5,
            poll_seconds=poll_seconds, sweep_seconds=60.0,
        )  # fmt: skip
        return await self._stack.enter_async_context(open_ops(settings, agents))


async def completed(engine, ids: list[str]) -> None:
    for task_id in ids:
        task = await engine.until_ended("default", task_id, 60)
        assert task.status == "completed", task


async def submitted(engine, count: int) -> list[str]:
    return [(await engine.submit(NewTask(agent="caller", input="go"))).task.id for _ in range(count)]


@pytest.fixture
def calls() -> Counter[str]:
    """How often each call was carried out."""
    return Counter()


@pytest.fixture
async def cluster(tmp_path, calls):
    @tool(effect="idempotent")
    async def work(context: ToolContext[None]) -> str:
        """Work."""
        calls[context.idempotency_key] += 1
        await asyncio.sleep(0.05)
        return "worked"

    agent = Agent(
        ScriptedModel.by_turn([ToolCall(id="a", name="work", arguments={}), "done"]),
        name="caller",
        tools=[work],
    )
    async with Cluster(f"sqlite:///{tmp_path}/ops.db", in_process([agent])) as opened:
        yield opened


async def test_where_nobody_looks_by_himself_hints_are_what_moves_the_work(cluster, calls, rabbit, queue):
    """The workers look once a minute. More tasks than one has slots for: it passes the word on."""
    url = rabbit.url(queue=queue)
    for _ in range(3):
        await cluster.worker(url, poll_seconds=60)
    engine = await cluster.engine(url)
    async with asyncio.timeout(30):
        await completed(engine, await submitted(engine, 12))
    assert set(calls.values()) == {1}


async def test_one_hint_is_enough_for_all_workers(tmp_path, rabbit, queue):
    """Whoever takes all that it has slots for passes the word on."""
    began, go = asyncio.Semaphore(0), asyncio.Event()

    @tool(effect="idempotent")
    async def hold() -> str:
        """Wait."""
        began.release()
        await go.wait()
        return "held"

    agents = in_process(
        [
            Agent(
                ScriptedModel.by_turn([ToolCall(id="a", name="hold", arguments={}), "done"]),
                name="caller",
                tools=[hold],
            )
        ]
    )
    url = rabbit.url(queue=queue)
    async with Cluster(f"sqlite:///{tmp_path}/ops.db", agents) as cluster:
        for _ in range(3):
            await cluster.worker(url, poll_seconds=60)
        engine = await cluster.engine(url)
        inserted = [await engine.store.insert(NewTask(agent="caller", input="go")) for _ in range(6)]
        await engine.dispatcher.wake()
        async with asyncio.timeout(30):
            for _ in range(6):
                await began.acquire()
        go.set()
        await completed(engine, [one.task.id for one in inserted])


async def test_every_hint_lost_or_refused(cluster, calls, rabbit, queue):
    """S3, E7: the queue refuses every message; the workers look by themselves."""
    connection = pika.BlockingConnection(pika.URLParameters(rabbit.url()))
    refusing = {"x-max-length": 0, "x-overflow": "reject-publish"}
    connection.channel().queue_declare(queue, durable=True, arguments=refusing)
    connection.close()
    url = rabbit.url(queue=queue)
    engine = await cluster.engine(url)
    await cluster.worker(url, poll_seconds=0.2)
    async with asyncio.timeout(60):
        await completed(engine, await submitted(engine, 6))
    assert len(calls) == 6
    assert set(calls.values()) == {1}


async def test_every_hint_many_times_over(cluster, calls, rabbit, queue):
    """S5: what is woken for nothing finds nothing to claim."""
    url = rabbit.url(queue=queue)
    for _ in range(2):
        await cluster.worker(url, poll_seconds=60)
    engine = await cluster.engine(url)
    ids = await submitted(engine, 4)
    for _ in range(50):
        await engine.dispatcher.wake()
        await asyncio.sleep(0.005)
    await completed(engine, ids)
    assert len(calls) == 4
    assert set(calls.values()) == {1}


async def test_a_result_that_cannot_be_stored_is_told(tmp_path, rabbit, queue):
    """E5: nothing is swallowed. The model is told, the run goes on, and so does the worker."""

    @tool(effect="pure")
    async def broken() -> object:
        """Answer what is no JSON."""
        return object()

    agents = in_process(
        [
            Agent(
                ScriptedModel.by_turn([ToolCall(id="a", name="broken", arguments={}), "done"]),
                name="caller",
                tools=[broken],
            )
        ]
    )
    url = rabbit.url(queue=queue)
    async with Cluster(f"sqlite:///{tmp_path}/ops.db", agents) as cluster:
        engine = await cluster.engine(url)
        await cluster.worker(url, poll_seconds=60)
        for _ in range(2):
            (task_id,) = await submitted(engine, 1)
            task = await engine.until_ended("default", task_id, 60)
            assert task.status in ("completed", "failed")
            steps = [recorded.step for recorded in await engine.steps("default", task_id)]
            (returned,) = [step for step in steps if type(step).__name__ == "ToolReturned"]
            assert "broken was carried out; its result cannot be shown" in str(returned.output)
