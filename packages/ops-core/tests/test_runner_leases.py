"""What a runner does while it holds a lease, and when it has lost it."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any, cast

import pytest

from agentkit.agent import Agent
from agentkit.testing.models import ScriptedModel
from agentkit.tools import tool
from agentkit.transcript.steps import Finished, Step, ToolStarted
from ops_core.dispatchers import LocalDispatcher
from ops_core.engine import Engine
from ops_core.ports import Appended
from ops_core.stores import SqlStore
from ops_core.task import Lease, RetryPolicy, TaskStatus
from ops_core.testing import FakeClock, open_test_store
from ops_core.testing.store_contract.examples import steps_of

from .runner_support import (  # type: ignore[import-not-found]
    SOON,
    Hanging,
    adding,
    call,
    ended,
    submit,
    sweeping,
    until,
    working,
)


async def test_a_run_whose_lease_is_lost_stops_and_writes_nothing(url: str, clock: FakeClock):
    hanging = Hanging()
    model = ScriptedModel([call("hang")])
    async with open_test_store(url, clock) as store, open_test_store(url, clock) as other:
        here, there = Engine(store, LocalDispatcher()), Engine(other, LocalDispatcher())
        task = await submit(here)
        agent = Agent(model, name="agent", tools=[hanging.tool()])
        # its one slot is taken, so it does not claim the task again before the other one does
        async with working(here, agent, lease_seconds=1.0, concurrency=1) as runner:
            await hanging.begun.wait()
            async with asyncio.timeout(SOON):
                released: Sequence[str] = ()
                while not released:  # a heartbeat may have come between the two
                    clock.advance(2)
                    released = (await there.sweep()).released
            assert released == (task.id,)
            (taken,) = await there.claim("other", 1, 30.0, ["agent"])
            steps = await steps_of(other, task)
            async with asyncio.timeout(SOON):
                await hanging.cancelled.wait()
                while runner.carrying:
                    await asyncio.sleep(0.005)
        assert await steps_of(other, task) == steps
        assert (await there.get(task.tenant, task.id)).lease_owner == taken.lease.owner


class Reluctant:
    """A store that answers the last write of a run only when a heartbeat was answered after it was committed."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self._renewed = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def renew(self, *given: Any) -> Any:
        answer = await self._store.renew(*given)
        self._renewed.set()
        return answer

    async def _after_a_heartbeat(self) -> None:
        for _ in range(2):  # the first one may have been on its way already
            self._renewed.clear()
            await self._renewed.wait()

    async def append_all(self, lease: Lease, steps: Sequence[Step]) -> Appended:
        recorded = await self._store.append_all(lease, steps)
        if any(isinstance(step, Finished) for step in steps):
            await self._after_a_heartbeat()
        return recorded

    async def wait(self, *given: Any) -> None:
        await self._store.wait(*given)
        await self._after_a_heartbeat()

    async def release(self, *given: Any) -> None:
        await self._store.release(*given)
        await self._after_a_heartbeat()


@pytest.mark.parametrize(
    "turn, outcome", [("Done.", "completed"), (call("ask_first"), "waiting"), (ConnectionError(), "retried")]
)
async def test_a_lease_that_was_given_back_is_not_lost(engine: Engine, caplog, turn: Any, outcome: str):
    """A heartbeat that is answered after the last write of a run, but before its answer, finds no lease any more."""

    @tool(approval=True)
    async def ask_first() -> str:
        """Ask."""
        return "asked"

    reluctant = Engine(cast("SqlStore", Reluctant(cast("SqlStore", engine.store))), LocalDispatcher())
    task = await submit(reluctant)
    agent = Agent(ScriptedModel.by_turn([turn]), name="agent", tools=[ask_first])
    caplog.set_level("INFO", "ops_core.runner")
    slow = RetryPolicy(first_seconds=600, max_seconds=600)
    async with working(reluctant, agent, lease_seconds=0.15, retry=slow), asyncio.timeout(SOON):
        while not (ended := [record for record in caplog.records if record.getMessage() == "run ended"]):
            await asyncio.sleep(0.01)
    assert [record.__dict__["outcome"] for record in ended] == [outcome]
    assert "lost" not in caplog.text
    assert (await engine.get(task.tenant, task.id)).lease_owner is None


async def test_a_blocked_event_loop_counts_as_dead(url: str, clock: FakeClock):
    """What it does after it comes to is refused."""
    taken: list[Any] = []

    async def take_over() -> None:
        async with open_test_store(url, clock) as other:
            there = Engine(other, LocalDispatcher())
            await there.sweep()
            taken.extend(await there.claim("other", 1, 30.0, ["agent"]))

    @tool
    async def block() -> str:
        """Blocks the event loop."""
        clock.advance(31)
        elsewhere = threading.Thread(target=lambda: asyncio.run(take_over()))
        elsewhere.start()
        elsewhere.join()
        return "too late"

    async with open_test_store(url, clock) as store:
        here = Engine(store, LocalDispatcher())
        task = await submit(here)
        async with working(
            here, Agent(ScriptedModel([call("block")]), name="agent", tools=[block])
        ) as runner:
            async with asyncio.timeout(SOON):
                while not taken or runner.carrying:
                    await asyncio.sleep(0.005)
        now = await here.get(task.tenant, task.id)
        assert (now.status, now.lease_owner, now.epoch) == (TaskStatus.RUNNING, "other", 2)
        assert isinstance((await steps_of(store, task))[-1], ToolStarted)


async def test_the_heartbeat_keeps_a_long_run(engine: Engine):
    hanging = Hanging()
    task = await submit(engine)
    agent = Agent(ScriptedModel([hanging.reply]), name="agent")
    async with sweeping(engine), working(engine, agent, lease_seconds=0.2):
        await hanging.begun.wait()
        first = (await engine.get(task.tenant, task.id)).lease_until
        assert first is not None
        await until(engine, task, lambda now: (now.lease_until or 0) > first + 0.3)
        hanging.go_on.set()
        found = await ended(engine, task)
    assert (found.status, found.epoch, hanging.calls) == (TaskStatus.COMPLETED, 1, 1)


async def test_a_task_of_a_dead_worker_goes_on_elsewhere(engine: Engine):
    task = await submit(engine)
    (dead,) = await engine.claim("dead", 1, 0.05, ["agent"])
    async with sweeping(engine), working(engine, adding()):
        assert (await ended(engine, task)).status is TaskStatus.COMPLETED
    assert dead.lease.epoch == 1
