"""A worker dies at every single write that it makes, before and after it is committed; another one goes on."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentkit.agent import Agent
from agentkit.messages import Effect, ToolCall
from agentkit.ports import ToolContext
from agentkit.testing.models import ScriptedModel
from agentkit.tools import tool
from agentkit.transcript.steps import ApprovalAsked, ApprovalGiven, ModelReplied, RunStarted, ToolReturned
from ops_core.config.catalog import Catalog
from ops_core.dispatchers import LocalDispatcher
from ops_core.engine import Engine
from ops_core.errors import StoreUnavailable
from ops_core.runner import Runner, RunnerOptions
from ops_core.stores import SqlStore
from ops_core.task import NewTask, Task, TaskStatus
from ops_core.testing import FakeClock, open_test_store
from ops_core.testing.store_contract.examples import current, steps_of

LEASE_SECONDS = 30.0
SOON = 30.0
WRITES = {"claim", "append_all", "wait", "release", "renew"}
CALLS = {"read": Effect.PURE, "keep": Effect.IDEMPOTENT, "send": Effect.UNSAFE}
LAST_WRITE = 9
"""A claim, which records the first step, and nine more: see :func:`test_the_run_is_as_long_as_it_is_said_to_be`."""


class MortalStore:
    """A store as a worker sees it that dies at its write number ``at``: from then on it reaches nothing any more."""

    def __init__(self, store: SqlStore, at: int, *, after: bool) -> None:
        self._store = store
        self._at = at
        self._after = after
        self.writes: list[str] = []
        self.died = asyncio.Event()
        self._under_way: list[asyncio.Future[Any]] = []

    async def settled(self) -> None:
        """What the database was told before the worker died is done, or not."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        return verb if name not in WRITES else self._mortal(name, verb)

    def _mortal(self, name: str, verb: Any) -> Any:
        async def write(*arguments: Any, **options: Any) -> Any:
            if self.died.is_set():
                raise StoreUnavailable
            if name == "claim" and self.writes:
                return ()  # its one task is taken: what it finds when it looks again is nothing
            number = len(self.writes)
            self.writes.append(name)
            if number == self._at and not self._after:
                self.died.set()
                raise StoreUnavailable
            under_way = asyncio.ensure_future(verb(*arguments, **options))
            self._under_way.append(under_way)
            result = await asyncio.shield(under_way)
            if number == self._at:
                self.died.set()
                raise StoreUnavailable
            return result

        return write


def agent(effects: Counter[str]) -> Agent[Any, Any]:
    """Two turns: a pure, an idempotent and an unsafe call at once, then an unsafe one."""

    def made(name: str) -> Any:
        @tool(effect=CALLS[name], name=name)
        async def act(context: ToolContext[None]) -> str:
            """Acts."""
            effects[context.idempotency_key] += 1
            return name

        return act

    calls = [ToolCall(id=name, name=name) for name in CALLS]
    model = ScriptedModel.by_turn([calls, ToolCall(id="again", name="send"), "All done."])
    return Agent(model, name="agent", tools=[made(name) for name in CALLS])


@asynccontextmanager
async def working(store: Any, owner: str, effects: Counter[str]) -> AsyncGenerator[None]:
    options = RunnerOptions(owner=owner, poll_seconds=0.01, grace_seconds=0.0, lease_seconds=LEASE_SECONDS)
    runner = Runner(Engine(store, LocalDispatcher()), Catalog([agent(effects)]), options)
    running = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        runner.stop(at_once=True)
        await running


async def carried_on(store: SqlStore, task: Task, effects: Counter[str]) -> Task:
    """By another worker, to the end; a call that was cut short is not repeated."""
    engine = Engine(store, LocalDispatcher())
    async with working(store, "second", effects), asyncio.timeout(SOON):
        while not (now := await current(store, task)).status.terminal:
            if now.status is TaskStatus.WAITING:
                steps = [one.step for one in await engine.steps(task.tenant, task.id)]
                answered = {step.approval_id for step in steps if isinstance(step, ApprovalGiven)}
                for asked in [step for step in steps if isinstance(step, ApprovalAsked)]:
                    if asked.approval_id not in answered:
                        answer = ApprovalGiven(approval_id=asked.approval_id, approved=False)
                        await engine.answer(task.tenant, task.id, answer)
            await asyncio.sleep(0.002)
    return now


async def test_the_run_is_as_long_as_it_is_said_to_be():
    async with open_test_store() as store:
        mortal, effects = MortalStore(store, 10**6, after=False), Counter[str]()
        task = (await store.insert(NewTask(agent="agent", input="Go on."))).task
        async with working(mortal, "first", effects):
            await Engine(store, LocalDispatcher()).until_ended(task.tenant, task.id, SOON)
        assert mortal.writes[0] == "claim"
        assert mortal.writes[1:] == ["append_all"] * LAST_WRITE


@pytest.mark.parametrize("after", [False, True], ids=["lost", "committed"])
@pytest.mark.parametrize("at", range(LAST_WRITE + 1))
async def test_a_worker_that_dies_at_any_write_changes_nothing(
    url: str, clock: FakeClock, at: int, after: bool
):
    async with open_test_store(url, clock) as store:
        effects, mortal = Counter[str](), MortalStore(store, at, after=after)
        task = (await store.insert(NewTask(agent="agent", input="Go on."))).task
        async with working(mortal, "first", effects), asyncio.timeout(SOON):
            await mortal.died.wait()
        await mortal.settled()
        before, survived = await current(store, task), await steps_of(store, task)
        assert before.status.terminal == (at == LAST_WRITE and after)
        clock.advance(LEASE_SECONDS + 1)
        await store.sweep()

        now = await carried_on(store, task, effects)

        assert (now.status, now.output) == (TaskStatus.COMPLETED, "All done.")
        steps = await steps_of(store, task)
        assert steps[: len(survived)] == survived
        assert sum(isinstance(step, RunStarted) for step in steps) == 1
        assert sum(isinstance(step, ModelReplied) for step in steps) == 3
        returned = Counter(step.call_id for step in steps if isinstance(step, ToolReturned))
        assert returned == dict.fromkeys([*CALLS, "again"], 1)
        recorded_before = {step.call_id for step in survived if isinstance(step, ToolReturned)}
        for call_id in returned:
            times = effects[f"{task.id}:{call_id}"]
            once = call_id in recorded_before or call_id in ("send", "again")
            assert times <= (1 if once else 2), f"{call_id} took place {times} times"
        assert now.attempt <= 2
