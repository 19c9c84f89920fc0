"""The runner carries tasks: real engine, real store, a scripted model."""

import asyncio
import itertools
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest
from sqlalchemy import text

from agentkit import loop as agentkit_loop
from agentkit.agent import Agent
from agentkit.compaction import Context
from agentkit.errors import ModelAuthError, ModelBadRequest, ModelOverloaded, ModelRateLimited
from agentkit.messages import ModelReply, Part, StopReason, Text, ToolCall, Usage
from agentkit.ports import ToolContext
from agentkit.testing.models import ScriptedModel
from agentkit.tools import tool
from agentkit.transcript import (
    ApprovalAsked,
    ApprovalGiven,
    Finished,
    Recorded,
    RunRetried,
    Step,
    ToolReturned,
    ToolStarted,
)
from ops_core.catalog import Catalog
from ops_core.dispatchers import LocalDispatcher
from ops_core.engine import Engine
from ops_core.errors import TaskNotFound
from ops_core.ports import UNREADABLE_SECONDS
from ops_core.runner import Runner, RunnerOptions
from ops_core.stores import SqlStore
from ops_core.sweeper import sweep_forever
from ops_core.task import DEFAULT_TENANT, Lease, NewTask, RetryPolicy, Task, TaskStatus
from ops_core.testing import FakeClock, open_test_ops, open_test_store
from ops_core.testing.examples import steps_of

SOON = 30.0
QUICK = RetryPolicy(first_seconds=0.01, most_seconds=0.02)
numbers = itertools.count(1)


@pytest.fixture
async def engine(database: str, request: pytest.FixtureRequest) -> AsyncGenerator[Engine]:
    url = "sqlite://" if database == "sqlite" else request.getfixturevalue("url")
    async with open_test_store(url) as store:
        yield Engine(store, LocalDispatcher())


@asynccontextmanager
async def working(engine: Engine, *agents: Agent[Any, Any], **options: Any) -> AsyncGenerator[Runner]:
    """A runner at work; leaving stops it in good order."""
    quick = {
        "owner": f"worker-{next(numbers)}",
        "poll_seconds": 0.02,
        "grace_seconds": 0.2,
        "lease_seconds": 30.0,
    }
    runner = Runner(engine, Catalog(agents), RunnerOptions(**{**quick, "retry": QUICK, **options}))
    running = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        runner.stop()
        await running


@asynccontextmanager
async def sweeping(engine: Engine) -> AsyncGenerator[None]:
    sweeper = asyncio.create_task(sweep_forever(engine, 0.02))
    try:
        yield
    finally:
        sweeper.cancel()
        await asyncio.wait({sweeper})


async def submit(engine: Engine, agent: str = "agent", **fields: Any) -> Task:
    return (await engine.submit(NewTask(agent=agent, input="Go on.", **fields))).task


async def until(engine: Engine, task: Task, found: Callable[[Task], bool]) -> Task:
    """The task, once it is so."""
    async with asyncio.timeout(SOON):
        while not found(now := await engine.get(task.tenant, task.id)):
            await asyncio.sleep(0.005)
    return now


async def ended(engine: Engine, task: Task) -> Task:
    now = await engine.until_ended(task.tenant, task.id, SOON)
    assert now.status.terminal, now
    return now


def is_(status: TaskStatus) -> Callable[[Task], bool]:
    return lambda task: task.status is status


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(id=f"call_{next(numbers)}", name=name, arguments=arguments)


class Hanging:
    """A model or a tool that begins and never returns."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.go_on = asyncio.Event()
        self.calls = 0

    async def reply(self, _request: object = None) -> str:
        self.calls += 1
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "went on"

    def tool(self, **options: Any) -> Any:
        @tool(**options)
        async def hang() -> str:
            """Hangs."""
            return await self.reply()

        return hang


@tool(effect="pure")
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


def adding(name: str = "agent") -> Agent[Any, Any]:
    model = ScriptedModel.by_turn([call("add", a=1, b=2), "Three."])
    return Agent(model, name=name, tools=[add])


# --- many runs ---------------------------------------------------------------------------------------------------


async def test_a_task_is_carried_to_its_end(engine: Engine):
    task = await submit(engine)
    async with working(engine, adding()):
        task = await ended(engine, task)
    assert (task.status, task.output, task.error) == (TaskStatus.COMPLETED, "Three.", None)
    assert (task.attempt, task.model_calls, task.tool_calls) == (1, 2, 1)
    steps = await steps_of(engine.store, task)
    assert [type(step).__name__ for step in steps] == [
        "RunStarted", "ModelReplied", "ToolReturned", "ModelReplied", "Finished",
    ]  # fmt: skip


async def test_a_summary_is_a_step_and_its_tokens_are_the_tasks(engine: Engine):
    used = [Usage(input_tokens=read, output_tokens=10, cost_usd=0.25) for read in (100, 1_700, 3_000, 500)]
    large = ToolCall(id="c1", name="fill", arguments={})
    parts: tuple[tuple[Part, ...], ...] = (
        (large,),
        (replace(large, id="c2"),),
        (Text(text="All was filled."),),
        (Text(text="Full."),),
    )

    @tool(effect="pure")
    def fill() -> str:
        """Much to read."""
        return "a word " * 1_000

    model = ScriptedModel(
        [
            ModelReply(parts=said, usage=usage, stop_reason=StopReason.END if end else StopReason.TOOL_CALLS)
            for end, said, usage in zip((False, False, True, True), parts, used, strict=True)
        ]
    )
    agent = Agent(model, name="agent", tools=[fill], context=Context(window=3_000))
    task = await submit(engine)
    async with working(engine, agent):
        task = await ended(engine, task)
    assert (task.status, task.output) == (TaskStatus.COMPLETED, "Full.")
    kinds = [type(step).__name__ for step in await steps_of(engine.store, task)]
    assert kinds.count("Summarised") == 1
    assert (task.model_calls, task.tokens) == (4, Usage(input_tokens=5_300, output_tokens=40, cost_usd=1.0))


async def test_many_runs_share_one_loop_and_the_limit_is_kept(engine: Engine):
    inside, most = 0, 0

    @tool(effect="pure")
    async def count() -> int:
        """Counts."""
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.002)
        inside -= 1
        return inside

    agent = Agent(ScriptedModel.by_turn([call("count"), call("count"), "Done."]), name="agent", tools=[count])
    tasks = [await submit(engine) for _ in range(60)]
    async with working(engine, agent, concurrency=7) as runner:
        for task in tasks:
            assert (await ended(engine, task)).status is TaskStatus.COMPLETED
        assert runner.carrying <= 7
    assert most == 7


async def test_a_submitted_task_wakes_the_runner(engine: Engine):
    async with working(engine, adding(), poll_seconds=60.0):
        for _ in range(3):
            assert (await ended(engine, await submit(engine))).status is TaskStatus.COMPLETED


async def test_watchers_are_told_what_happens(engine: Engine):
    seen: list[tuple[str, str]] = []
    task = await submit(engine)
    async with working(
        engine, adding(), on_event=lambda task_id, event: seen.append((task_id, type(event).__name__))
    ):
        await ended(engine, task)
    assert (task.id, "Recorded") in seen
    assert (task.id, "TextDelta") in seen


async def test_an_agent_that_is_not_here_is_left_to_others(engine: Engine):
    other = await submit(engine, agent="somebody")
    async with working(engine, adding()):
        await ended(engine, await submit(engine))
        assert (await engine.get(other.tenant, other.id)).status is TaskStatus.PENDING
    async with working(engine, adding("somebody")):
        assert (await ended(engine, other)).status is TaskStatus.COMPLETED


async def test_only_what_it_may_take(engine: Engine):
    mine, other = await submit(engine), await submit(engine)
    async with working(engine, adding(), only=frozenset({mine.id})):
        await ended(engine, mine)
        assert (await engine.get(other.tenant, other.id)).status is TaskStatus.PENDING


async def test_a_model_that_cannot_be_opened_fails_its_own_task_only(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    keyless = Agent("openai:gpt-x", name="keyless")
    offline = Agent("offline:planner", name="offline")
    tasks = [await submit(engine, agent=name) for name in ("keyless", "offline", "agent")]
    async with working(engine, keyless, offline, adding()):
        found = [await ended(engine, task) for task in tasks]
    errors = [task.error.code if task.error else None for task in found]
    assert errors == ["model_auth", None, None]
    assert "OPENAI_API_KEY" in str(found[0].error)


def written_by_a_newer_release(what: str, task: Task) -> Callable[[Any], None]:
    """Change the row of a task, or of its first step, to what this release does not know."""
    statement = {
        "task": "UPDATE task SET budget = '{\"wishes\": 3}' WHERE id = :id",
        "step": "UPDATE step SET body = replace(body, 'run_started', 'run_dreamt') WHERE task_id = :id",
    }[what]

    def work(connection: Any) -> None:
        assert connection.execute(text(statement), {"id": task.id}).rowcount == 1

    return work


@pytest.mark.parametrize("what", ["task", "step"])
async def test_what_a_newer_release_wrote_is_left_to_its_workers_and_harms_no_other(
    url: str, clock: FakeClock, what: str
):
    """However often an older worker meets it: the newer one then carries it on, in its first attempt."""
    async with open_test_store(url, clock) as store:
        engine = Engine(store, LocalDispatcher())
        broken, good = await submit(engine, priority=9, max_attempts=1), await submit(engine)
        (begun,) = await engine.claim("newer", 1, 30.0, ["agent"])
        await engine.release(begun.lease)
        await store._write(written_by_a_newer_release(what, broken))
        async with working(engine, adding()), sweeping(engine):
            for look in (2, 3, 4):
                async with asyncio.timeout(SOON):
                    while (await column(store, "epoch", broken), await column(store, "status", broken)) != (
                        look,
                        "pending",
                    ):
                        await asyncio.sleep(0.005)
                clock.advance(UNREADABLE_SECONDS)
            assert (await ended(engine, good)).status is TaskStatus.COMPLETED
        assert await column(store, "attempt", broken) == 0
        assert "task_unreadable" in await column(store, "error", broken)


async def column(store: SqlStore, name: str, task: Task) -> Any:
    def work(connection: Any) -> Any:
        return connection.execute(
            text(f"SELECT {name} FROM task WHERE id = :id"), {"id": task.id}
        ).scalar_one()

    return await store._write(work)


async def test_a_runner_that_can_no_longer_work_says_so(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    async def claim(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(engine, "claim", claim)
    runner = Runner(engine, Catalog([adding()]), RunnerOptions(owner="me"))
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(runner.run(), SOON)


# --- cancelling --------------------------------------------------------------------------------------------------


async def test_cancel_reaches_a_model_call_at_once(engine: Engine):
    hanging = Hanging()
    task = await submit(engine)
    async with working(engine, Agent(ScriptedModel([hanging.reply]), name="agent")):
        await hanging.begun.wait()
        await engine.cancel(task.tenant, task.id)
        assert (await ended(engine, task)).status is TaskStatus.CANCELLED
        assert hanging.cancelled.is_set()


async def test_cancel_reaches_a_tool_at_once_and_keeps_what_was_recorded(engine: Engine):
    hanging = Hanging()
    model = ScriptedModel([[call("add", a=1, b=2), call("hang")]])
    task = await submit(engine)
    async with working(engine, Agent(model, name="agent", tools=[add, hanging.tool()])):
        await hanging.begun.wait()
        await until(engine, task, lambda now: now.tool_calls == 1)
        await engine.cancel(task.tenant, task.id)
        assert (await ended(engine, task)).status is TaskStatus.CANCELLED
        assert hanging.cancelled.is_set()
    steps = await steps_of(engine.store, task)
    assert [type(step) for step in steps[2:]].count(ToolReturned) == 1
    assert steps[-1] == Finished(status="cancelled")


async def test_cancel_tells_a_tool_that_runs_in_a_thread(engine: Engine):
    begun, stopped = threading.Event(), threading.Event()

    @tool
    def work(context: ToolContext[None]) -> None:
        """Works."""
        begun.set()
        context.stopped.wait(SOON)
        stopped.set()

    task = await submit(engine)
    async with working(engine, Agent(ScriptedModel([call("work")]), name="agent", tools=[work])):
        await asyncio.to_thread(begun.wait, SOON)
        await engine.cancel(task.tenant, task.id)
        assert (await ended(engine, task)).status is TaskStatus.CANCELLED
    assert await asyncio.to_thread(stopped.wait, SOON)


async def test_cancel_reaches_a_run_of_another_process_with_the_heartbeat(url: str):
    hanging = Hanging()
    async with open_test_store(url) as store, open_test_store(url) as other:
        here, there = Engine(store, LocalDispatcher()), Engine(other, LocalDispatcher())
        task = await submit(there)
        async with working(here, Agent(ScriptedModel([hanging.reply]), name="agent"), lease_seconds=0.3):
            await hanging.begun.wait()
            assert (await there.cancel(task.tenant, task.id)).cancel_requested
            assert (await ended(there, task)).status is TaskStatus.CANCELLED


async def test_a_cancellation_between_the_claim_and_the_run_is_heard_at_once(engine: Engine):
    task = await submit(engine)
    (claimed,) = await engine.claim("worker", 1, 60.0, ["agent"])
    await engine.cancel(task.tenant, task.id)
    heard = asyncio.Event()
    with engine.carrying(claimed.task.id, heard.set):
        assert heard.is_set()


async def test_a_provider_that_says_when_to_come_back_is_obeyed(engine: Engine):
    agent = Agent(ScriptedModel([ModelRateLimited("slow down", retry_after=900.0)]), name="agent")
    task = await submit(engine)
    async with working(engine, agent):
        later = await until(engine, task, lambda now: now.error is not None)
    assert later.status is TaskStatus.PENDING
    assert later.run_after is not None
    assert later.run_after - later.updated_at > 890


async def test_cancel_while_it_waits_for_its_next_attempt(engine: Engine):
    model = ScriptedModel([ModelOverloaded("busy")])
    task = await submit(engine)
    async with working(engine, Agent(model, name="agent"), retry=RetryPolicy(first_seconds=1000.0)):
        await until(engine, task, lambda now: now.error is not None)
        assert (await engine.cancel(task.tenant, task.id)).status is TaskStatus.CANCELLED


async def test_a_tool_that_ignores_its_cancellation_does_not_keep_a_cancelled_task(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(agentkit_loop, "STUBBORN_SECONDS", 0.05)
    stubborn = Stubborn()
    task = await submit(engine)
    async with working(engine, stubborn.agent()):
        await stubborn.begun.wait()
        await engine.cancel(task.tenant, task.id)
        assert (await ended(engine, task)).status is TaskStatus.CANCELLED
        stubborn.go_on.set()


class Stubborn(Hanging):
    """A tool that ignores that it is cancelled."""

    async def reply(self, _request: object = None) -> str:
        self.calls += 1
        self.begun.set()
        for _ in range(5):  # not for ever: the event loop of a test that fails has to end
            try:
                await self.go_on.wait()
                break
            except asyncio.CancelledError:
                self.cancelled.set()
        return "at last"

    def agent(self) -> Agent[Any, Any]:
        return Agent(ScriptedModel.by_turn([call("hang"), "Done."]), name="agent", tools=[self.tool()])


# --- leases ------------------------------------------------------------------------------------------------------


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

    async def append_all(self, lease: Lease, steps: Sequence[Step]) -> Sequence[Recorded]:
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
    slow = RetryPolicy(first_seconds=600, most_seconds=600)
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


# --- attempts ----------------------------------------------------------------------------------------------------


async def test_a_passing_failure_is_tried_again_later(url: str, clock: FakeClock):
    model = ScriptedModel([ModelRateLimited("slow down"), "Done."])
    policy = RetryPolicy(first_seconds=100.0)
    async with open_test_store(url, clock) as store:
        engine = Engine(store, LocalDispatcher())
        task = await submit(engine)
        async with working(engine, Agent(model, name="agent"), retry=policy):
            waiting = await until(engine, task, lambda now: now.error is not None)
            assert waiting.status is TaskStatus.PENDING
            assert waiting.error is not None
            assert waiting.error.code == "model_rate_limited"
            assert waiting.run_after is not None
            assert 50 <= waiting.run_after - clock() <= 100
            clock.advance(100)
            found = await ended(engine, task)
    assert (found.status, found.error, found.attempt) == (TaskStatus.COMPLETED, None, 2)


async def test_a_failure_that_does_not_pass_ends_the_task_with_its_code(engine: Engine):
    model = ScriptedModel([ModelOverloaded("busy")] * 3)
    task = await submit(engine, max_attempts=3)
    async with working(engine, Agent(model, name="agent")):
        found = await ended(engine, task)
    assert found.status is TaskStatus.FAILED
    assert found.error is not None
    assert found.error.code == "model_overloaded"
    assert (found.attempt, len(model.requests)) == (3, 3)


async def test_failures_between_which_the_run_makes_progress_do_not_add_up(engine: Engine):
    busy = ModelOverloaded("busy")
    model = ScriptedModel(
        [call("add", a=1, b=2), busy, call("add", a=3, b=4), busy, call("add", a=5, b=6), busy, "Done."]
    )
    task = await submit(engine, max_attempts=2)
    async with working(engine, Agent(model, name="agent", tools=[add])):
        found = await ended(engine, task)
    assert (found.status, found.tool_calls) == (TaskStatus.COMPLETED, 3)


async def test_progress_in_the_last_attempt_counts_too(engine: Engine):
    model = ScriptedModel([call("add", a=1, b=2), ModelOverloaded("busy"), "Done."])
    task = await submit(engine, max_attempts=1)
    async with working(engine, Agent(model, name="agent", tools=[add])):
        assert (await ended(engine, task)).status is TaskStatus.COMPLETED


@pytest.mark.parametrize("error", [ModelBadRequest("no"), ModelAuthError("wrong key")])
async def test_a_failure_that_will_come_again_ends_the_task_at_once(engine: Engine, error: Exception):
    model = ScriptedModel([error])
    task = await submit(engine)
    async with working(engine, Agent(model, name="agent")):
        found = await ended(engine, task)
    assert found.status is TaskStatus.FAILED
    assert found.error is not None
    assert found.error.message == str(error)
    assert len(model.requests) == 1


async def test_an_unexpected_exception_is_tried_again_and_tells_no_secret(engine: Engine, caplog):
    class Secret:
        async def decide(self, question: object) -> None:
            raise ZeroDivisionError("sk-secret")

    model = ScriptedModel.by_turn([call("add", a=1, b=2)])
    task = await submit(engine, max_attempts=2)
    async with working(engine, Agent(model, name="agent", tools=[add], policy=Secret())):  # type: ignore[arg-type]
        found = await ended(engine, task)
    assert found.error is not None
    assert (found.error.code, "ZeroDivisionError" in found.error.message) == ("internal", True)
    assert "sk-secret" not in found.error.message + caplog.text


async def test_a_retried_task_goes_on_and_repeats_nothing(engine: Engine):
    calls = 0

    @tool
    def count() -> int:
        """Counts."""
        nonlocal calls
        calls += 1
        return calls

    model = ScriptedModel([call("count"), ModelBadRequest("no"), "Done."])
    first = await submit(engine)
    async with working(engine, Agent(model, name="agent", tools=[count])):
        assert (await ended(engine, first)).status is TaskStatus.FAILED
        second = await engine.retry(first.tenant, first.id)
        found = await ended(engine, second)
    assert (found.status, found.output, calls) == (TaskStatus.COMPLETED, "Done.", 1)
    assert RunRetried(of=first.id) in await steps_of(engine.store, second)


# --- deadlines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["model", "tool"])
async def test_a_task_out_of_time_fails(engine: Engine, where: str):
    hanging = Hanging()
    model = ScriptedModel([hanging.reply if where == "model" else call("hang")])
    task = await submit(engine, timeout_seconds=0.5)
    async with working(engine, Agent(model, name="agent", tools=[hanging.tool()])):
        found = await ended(engine, task)
    assert found.status is TaskStatus.FAILED
    assert found.error is not None
    assert found.error.code == "timeout"
    assert hanging.cancelled.is_set()


async def test_the_time_of_a_task_goes_on_while_it_waits_for_its_next_attempt(engine: Engine):
    model = ScriptedModel([ModelOverloaded("busy")])
    task = await submit(engine, timeout_seconds=0.15)
    agent = Agent(model, name="agent")
    async with sweeping(engine), working(engine, agent, retry=RetryPolicy(first_seconds=1000.0)):
        found = await ended(engine, task)
    assert found.error is not None
    assert found.error.code == "timeout"


# --- stopping ----------------------------------------------------------------------------------------------------


async def test_a_stopped_runner_lets_go_at_the_next_step(engine: Engine):
    hanging = Hanging()
    model = ScriptedModel.by_turn([call("hang"), "Done."])
    agent = Agent(model, name="agent", tools=[hanging.tool()])
    task = await submit(engine)
    async with working(engine, agent, grace_seconds=SOON) as runner:
        await hanging.begun.wait()
        runner.stop()
        runner.stop()
        late = await submit(engine)
        hanging.go_on.set()
        now = await until(engine, task, is_(TaskStatus.PENDING))
    assert now.attempt == 0
    assert isinstance((await steps_of(engine.store, task))[-1], ToolReturned)
    assert (await engine.get(late.tenant, late.id)).epoch == 0
    async with working(engine, agent):
        found = await ended(engine, task)
        await ended(engine, late)
    assert (found.status, found.attempt, found.epoch) == (TaskStatus.COMPLETED, 1, 2)
    assert hanging.calls == 2, "once for each task"


@pytest.mark.parametrize("how", ["grace is over", "at once", "cancelled"])
async def test_a_runner_that_cannot_wait_gives_up_what_is_under_way(engine: Engine, how: str):
    hanging = Hanging()
    model = ScriptedModel.by_turn([call("hang"), "Done."])
    task = await submit(engine)
    options = RunnerOptions(
        owner="me", poll_seconds=0.02, grace_seconds=0.05 if how == "grace is over" else 60.0
    )
    runner = Runner(
        engine, Catalog([Agent(model, name="agent", tools=[hanging.tool(effect="pure")])]), options
    )
    running = asyncio.create_task(runner.run())
    await hanging.begun.wait()
    if how == "cancelled":
        running.cancel()
    else:
        runner.stop(at_once=how == "at once")
    async with asyncio.timeout(SOON):
        await asyncio.wait({running})
    assert hanging.cancelled.is_set()
    now = await engine.get(task.tenant, task.id)
    assert (now.status, now.attempt, now.steps) == (TaskStatus.PENDING, 0, 2)
    assert running.cancelled() == (how == "cancelled")


async def test_a_stubborn_tool_is_abandoned_and_may_not_write_later(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(agentkit_loop, "STUBBORN_SECONDS", 0.05)
    stubborn = Stubborn()
    task = await submit(engine)
    async with asyncio.timeout(SOON):
        async with working(engine, stubborn.agent(), grace_seconds=0.05):
            await stubborn.begun.wait()
    now = await engine.get(task.tenant, task.id)
    assert (now.status, now.attempt) == (TaskStatus.PENDING, 0)
    steps = await steps_of(engine.store, task)
    stubborn.go_on.set()
    await asyncio.sleep(0.05)
    assert await steps_of(engine.store, task) == steps


# --- approvals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("approved", [True, False])
async def test_a_run_that_waits_goes_on_with_another_worker(engine: Engine, approved: bool):
    keys: list[str] = []

    @tool(approval=True)
    def pay(context: ToolContext[None]) -> str:
        """Pays."""
        keys.append(context.idempotency_key)
        return "paid"

    model = ScriptedModel.by_turn([call("pay"), "Done."])
    agent = Agent(model, name="agent", tools=[pay])
    task = await submit(engine)
    async with working(engine, agent) as runner:
        await until(engine, task, is_(TaskStatus.WAITING))
        async with asyncio.timeout(SOON):
            while runner.carrying:
                await asyncio.sleep(0.005)
    (asked,) = [step for step in await steps_of(engine.store, task) if isinstance(step, ApprovalAsked)]
    given = ApprovalGiven(approval_id=asked.approval_id, approved=approved, reason="as you say")
    assert (await engine.answer(task.tenant, task.id, given)).run_after is not None
    async with working(engine, agent):
        found = await ended(engine, task)
    assert (found.status, found.attempt) == (TaskStatus.COMPLETED, 1)
    assert len(keys) == approved
    if not approved:
        (returned,) = [step for step in await steps_of(engine.store, task) if isinstance(step, ToolReturned)]
        assert "as you say" in str(returned.error)


@pytest.mark.parametrize("approved", [True, False])
async def test_an_interrupted_unsafe_call_is_not_repeated_without_asking(engine: Engine, approved: bool):
    hanging = Hanging()
    keys: list[str] = []

    @tool
    async def pay(context: ToolContext[None]) -> str:
        """Pays."""
        keys.append(context.idempotency_key)
        return await hanging.reply()

    agent = Agent(ScriptedModel.by_turn([call("pay"), "Done."]), name="agent", tools=[pay])
    task = await submit(engine)
    async with working(engine, agent) as runner:
        await hanging.begun.wait()
        runner.stop(at_once=True)
    hanging.go_on.set()
    async with working(engine, agent):
        await until(engine, task, is_(TaskStatus.WAITING))
        (asked,) = [step for step in await steps_of(engine.store, task) if isinstance(step, ApprovalAsked)]
        assert asked.interrupted
        given = ApprovalGiven(approval_id=asked.approval_id, approved=approved)
        await engine.answer(task.tenant, task.id, given)
        found = await ended(engine, task)
    assert found.status is TaskStatus.COMPLETED
    assert len(keys) == (2 if approved else 1)
    assert len(set(keys)) == 1


async def test_an_interrupted_pure_call_is_repeated(engine: Engine):
    hanging = Hanging()
    agent = Agent(
        ScriptedModel.by_turn([call("hang"), "Done."]), name="agent", tools=[hanging.tool(effect="pure")]
    )
    task = await submit(engine)
    async with working(engine, agent) as runner:
        await hanging.begun.wait()
        runner.stop(at_once=True)
    hanging.go_on.set()
    async with working(engine, agent):
        assert (await ended(engine, task)).status is TaskStatus.COMPLETED
    assert hanging.calls == 2


async def test_an_answer_while_other_calls_still_run(engine: Engine):
    hanging = Hanging()

    @tool(effect="pure", approval=True)
    def ask() -> str:
        """Asks."""
        return "asked"

    model = ScriptedModel.by_turn([[call("ask"), call("hang")], "Done."])
    task = await submit(engine)
    agent = Agent(model, name="agent", tools=[ask, hanging.tool(effect="pure")])
    async with working(engine, agent):
        await hanging.begun.wait()
        await until(engine, task, lambda now: now.steps == 3)
        (asked,) = [step for step in await steps_of(engine.store, task) if isinstance(step, ApprovalAsked)]
        given = ApprovalGiven(approval_id=asked.approval_id, approved=True)
        assert (await engine.answer(task.tenant, task.id, given)).status is TaskStatus.RUNNING
        hanging.go_on.set()
        found = await ended(engine, task)
    assert (found.status, found.tool_calls) == (TaskStatus.COMPLETED, 2)


async def test_an_answer_to_a_task_that_its_worker_let_go_before_it_could_wait(engine: Engine):
    """Its worker was stopped between the question and the waiting."""
    hanging = Hanging()

    @tool(effect="pure", approval=True)
    def ask() -> str:
        """Asks."""
        return "asked"

    model = ScriptedModel.by_turn([[call("ask"), call("hang")], "Done."])
    agent = Agent(model, name="agent", tools=[ask, hanging.tool(effect="pure")])
    task = await submit(engine)
    async with working(engine, agent) as runner:
        await hanging.begun.wait()
        await until(engine, task, lambda now: now.steps == 3)
        runner.stop(at_once=True)
    (asked,) = [step for step in await steps_of(engine.store, task) if isinstance(step, ApprovalAsked)]
    async with asyncio.timeout(SOON):
        await engine.answer(task.tenant, task.id, ApprovalGiven(approval_id=asked.approval_id, approved=True))
    hanging.go_on.set()
    async with working(engine, agent):
        assert (await ended(engine, task)).status is TaskStatus.COMPLETED


# --- trouble with the store --------------------------------------------------------------------------------------


async def test_a_run_that_cannot_record_goes_on_once_its_lease_has_run_out(file_url: str):
    """Its steps are refused for a while, as by a full disk; what it had recorded is kept."""
    async with open_test_store(file_url) as store:
        engine = Engine(store, LocalDispatcher())

        @tool(effect="pure")
        async def fill() -> str:
            """Fills the disk, once."""
            if (await engine.get(task.tenant, task.id)).epoch == 1:
                await store._write(_pages(1))
            return "x" * 1_000_000

        model = ScriptedModel.by_turn([call("fill"), "Done."])
        task = await submit(engine)
        async with (
            sweeping(engine),
            working(engine, Agent(model, name="agent", tools=[fill]), lease_seconds=0.2),
        ):
            await until(engine, task, lambda now: now.epoch >= 2)
            await store._write(_pages(1_000_000))
            found = await ended(engine, task)
    assert found.status is TaskStatus.COMPLETED


def _pages(most: int) -> Callable[[Any], None]:
    def limit(writing: Any) -> None:
        writing.connection.exec_driver_sql(f"PRAGMA max_page_count = {most}")

    return limit


async def test_a_worker_deletes_what_ended_before_the_time_that_tasks_are_kept(file_url: str):
    async with open_test_ops(Agent(ScriptedModel(["Done."]), name="agent"), store_url=file_url) as ops:
        async with ops.working():
            task = (await ops.engine.submit(NewTask(agent="agent", input="go"))).task
            await ops.engine.until_ended(DEFAULT_TENANT, task.id)
        young = replace(ops, settings=ops.settings.model_copy(update={"retention_days": 1.0}))
        async with young.working():
            assert (await ops.engine.get(DEFAULT_TENANT, task.id)).status is TaskStatus.COMPLETED
        old = replace(ops, settings=ops.settings.model_copy(update={"retention_days": 1e-9}))
        async with old.working(), asyncio.timeout(SOON):
            with pytest.raises(TaskNotFound):
                while True:
                    await ops.engine.get(DEFAULT_TENANT, task.id)
