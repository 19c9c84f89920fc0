"""The runner carries tasks: real engine, real store, a scripted model."""

import asyncio
import errno
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, cast

import pytest
from pydantic import AfterValidator
from sqlalchemy import text

from agentkit.agent import Agent
from agentkit.errors import ModelAuthError, ModelBadRequest, ModelOverloaded, ModelRateLimited
from agentkit.messages import ModelReply, Part, StopReason, Text, ToolCall, Usage
from agentkit.run.compaction import Context
from agentkit.testing.models import ScriptedModel
from agentkit.tools import tool
from agentkit.transcript.steps import ApprovalGiven, Declared, ModelReplied, RunRetried
from ops_core.config.catalog import Catalog
from ops_core.dispatchers import LocalDispatcher
from ops_core.engine import Engine
from ops_core.errors import TaskNotFound
from ops_core.ports import UNREADABLE_SECONDS
from ops_core.runner import Runner, RunnerOptions
from ops_core.stores import SqlStore
from ops_core.task import DEFAULT_TENANT, NewTask, RetryPolicy, Task, TaskStatus
from ops_core.testing import FakeClock, open_test_ops, open_test_store
from ops_core.testing.store_contract.examples import steps_of

from .runner_support import (  # type: ignore[import-not-found]
    SOON,
    Hanging,
    add,
    adding,
    call,
    ended,
    is_,
    submit,
    sweeping,
    until,
    working,
)

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


async def test_what_the_machine_lacks_is_tried_again_later_and_has_an_end(engine: Engine):
    is_full = [True]

    @tool(effect="pure")
    def save() -> str:
        """Save."""
        if is_full:
            raise OSError(errno.ENOSPC, "no room")
        return "saved"

    agent = Agent(ScriptedModel([call("save"), "Done."]), name="agent", tools=[save])
    kept = await submit(engine, max_attempts=2)
    async with working(engine, agent):
        found = await ended(engine, kept)
    assert found.error is not None
    assert (found.status, found.error.code, found.tool_calls) == (TaskStatus.FAILED, "machine_error", 0)
    assert "ENOSPC" in found.error.message
    again = (await engine.retry(DEFAULT_TENANT, kept.id)).task
    is_full.clear()
    async with working(engine, agent):
        assert (await ended(engine, again)).output == "Done."


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


class Panic(BaseException):
    """As native code raises it."""


@pytest.mark.parametrize("error", [Panic("sk-secret"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize("where", ["model", "catalog"])
async def test_what_is_no_exception_fails_its_own_task_only(
    engine: Engine, caplog, where: str, error: BaseException
):
    def fail(*_given: object) -> Any:
        raise error

    class Broken(Catalog):
        opened = fail  # type: ignore[assignment]

    model = ScriptedModel.by_turn({0: fail})
    broken = Agent("openai:gpt-x" if where == "catalog" else model, name="agent")
    catalog = Broken([broken, Agent(ScriptedModel.by_turn(["Well."]), name="other")])
    task = await submit(engine, max_attempts=1)
    async with working(engine, catalog=catalog):
        found = await ended(engine, task)
        assert (await ended(engine, await submit(engine, agent="other"))).output == "Well."
    assert found.error is not None
    assert (found.status, found.error.code) == (TaskStatus.FAILED, "internal")
    assert "sk-secret" not in found.error.message
    assert "never retrieved" not in caplog.text


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
        second = (await engine.retry(first.tenant, first.id)).task
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


@pytest.mark.parametrize("lease_seconds", [30.0, 0.1])
async def test_a_result_that_cannot_be_written_is_kept_and_written_again(
    file_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lease_seconds: float
):
    """The disk was full for a while, also longer than the lease: an unsafe call that has ended is not asked about."""
    monkeypatch.setattr("ops_core.journal.AGAIN_SECONDS", 0.05)
    async with open_test_store(file_url) as store:
        engine = Engine(store, LocalDispatcher())

        @tool(effect="unsafe")
        async def fill() -> str:
            """Fills the disk."""
            await store._write(_pages(1))
            return "x" * 1_000_000

        model = ScriptedModel.by_turn([call("fill"), "Done."])
        task = await submit(engine)
        async with working(engine, Agent(model, name="agent", tools=[fill]), lease_seconds=lease_seconds):
            async with asyncio.timeout(SOON):
                while caplog.text.count("kept and written again") < 6:
                    await asyncio.sleep(0.01)
            await store._write(_pages(1_000_000))
            found = await ended(engine, task)
        assert (found.status, found.epoch) == (TaskStatus.COMPLETED, 1)


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


async def test_replies_that_a_broken_validator_refuses_are_paid_for_once_and_counted(engine: Engine):
    """It raises what no validator should; the run fails in its first attempt, and says what was wrong."""

    def look_up(n: int) -> int:
        return {1: 2}[n]

    model = ScriptedModel(["7"] * 4)
    agent = Agent(model, name="agent", output=cast("Any", Annotated[int, AfterValidator(look_up)]))
    task = await submit(engine)
    async with working(engine, agent):
        now = await ended(engine, task)
    assert (now.status, now.attempt, now.model_calls) == (TaskStatus.FAILED, 1, 4)
    assert now.error is not None
    assert (now.error.code, "KeyError" in now.error.message) == ("no_progress", True)
    assert len(model.requests) == 4


async def test_a_task_says_what_it_was_made_of_and_what_has_changed(engine: Engine):
    """The first step is written by the claim, which knows no tools: the first reply says it."""
    asking = tool(effect="pure", approval=True, name="add")(add.function)
    changed = tool(effect="idempotent", name="add")(add.function)
    task = await submit(engine)
    async with working(engine, replace(adding(), tools=[asking])):
        now = await until(engine, task, is_(TaskStatus.WAITING))
    (question,) = now.approvals or (await engine.get(task.tenant, task.id)).approvals
    answer = ApprovalGiven(approval_id=question.asked.approval_id, approved=True)
    await engine.answer(task.tenant, task.id, answer)
    async with working(engine, replace(adding(), tools=[changed])):
        await ended(engine, task)
    steps = await steps_of(engine.store, task)
    replies = [step for step in steps if isinstance(step, ModelReplied)]
    assert replies[0].declared is not None
    assert set(cast("Any", replies[0].declared)["tools"]) == {"add"}
    assert all(reply.request for reply in replies)
    (found,) = [step for step in steps if isinstance(step, Declared)]
    assert set(found.changed) == {"tools.add.effect", "tools.add.terms"}
