"""A run of a thousand steps: it takes the space of its steps, and is read once when another worker goes on with it."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import text

from agentkit.agent import Agent
from agentkit.budget.limits import Limits
from agentkit.messages import ToolCall
from agentkit.ports import ToolContext
from agentkit.testing.models import ScriptedModel
from agentkit.tools import tool
from agentkit.transcript.steps import Recorded
from ops_core.config.catalog import Catalog
from ops_core.dispatchers import LocalDispatcher
from ops_core.engine import Engine
from ops_core.runner import Runner, RunnerOptions
from ops_core.stores import SqlStore
from ops_core.task import NewTask, Task, TaskStatus
from ops_core.testing import open_test_store

INPUT = "Count on. " * 200
SOON = 60.0


class Watched:
    """A store that notes how often a worker reads steps."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.read: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def steps(
        self, tenant: str, task_id: str, after: int = -1, limit: int | None = None
    ) -> Sequence[Recorded]:
        found = await self._store.steps(tenant, task_id, after, limit)
        self.read.append(len(found))
        return found


def counting(turns: int, effects: Counter[str], *, stop_at: int, stop: asyncio.Event) -> Agent:
    @tool(effect="idempotent")
    async def count(number: int, context: ToolContext[None]) -> str:
        """Count."""
        effects[context.idempotency_key] += 1
        if number == stop_at:
            stop.set()
        return "x" * 100

    calls = [
        ToolCall(id=f"call_{number}", name="count", arguments={"number": number}) for number in range(turns)
    ]
    model = ScriptedModel.by_turn([*calls, "Done."])
    return Agent(model, name="agent", tools=[count], limits=Limits(steps=None))


@asynccontextmanager
async def working(store: Watched, owner: str, agent: Agent) -> AsyncGenerator[Runner]:
    engine = Engine(store, LocalDispatcher())  # type: ignore[arg-type]
    runner = Runner(engine, Catalog([agent]), RunnerOptions(owner=owner, poll_seconds=0.02))
    running = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        runner.stop(at_once=True)
        await running


async def carried(store: SqlStore, turns: int) -> tuple[Task, Counter[str], Watched]:
    """A run that one worker begins, and lets go in its middle, and another one ends."""
    effects, half_way = Counter[str](), asyncio.Event()
    agent = counting(turns, effects, stop_at=turns // 2, stop=half_way)
    task = (await store.insert(NewTask(agent="agent", input=INPUT))).task
    async with asyncio.timeout(SOON), working(Watched(store), "first", agent):
        await half_way.wait()
    second = Watched(store)
    async with working(second, "second", agent):
        await Engine(store, LocalDispatcher()).until_ended(task.tenant, task.id, SOON)
    return await store.get(task.tenant, task.id), effects, second


async def size_of(store: SqlStore, task: Task) -> tuple[int, int]:
    """Bytes of all steps of a task, and of the largest one but the first."""
    wanted = (
        "SELECT sum(length(body)), max(CASE WHEN seq > 0 THEN length(body) END) FROM step WHERE task_id = :id"
    )
    row = await store._read(lambda connection: connection.execute(text(wanted), {"id": task.id}).one())
    return int(row[0]), int(row[1])


async def test_a_run_of_a_thousand_steps_costs_what_its_steps_cost(url: str):
    async with open_test_store(url) as store:
        sizes: dict[int, int] = {}
        for turns in (125, 500):
            task, effects, second = await carried(store, turns)
            assert task.status is TaskStatus.COMPLETED
            assert task.steps == 2 * turns + 3
            assert len(effects) == turns
            assert sum(effects.values()) <= turns + 1  # at most the call that was under way was repeated
            assert len(second.read) == 1, "whoever goes on reads the steps once"
            sizes[turns], largest = await size_of(store, task)
            assert largest < 700, "no step holds what came before it, or the input"
        assert sizes[500] - len(INPUT) < 4.1 * (sizes[125] - len(INPUT))
