"""Runs that are cancelled, and runners that are stopped."""

import asyncio
import threading
from typing import Any

import pytest

from agentkit.agent import Agent
from agentkit.errors import ModelOverloaded, ModelRateLimited, ToolError
from agentkit.ports import ToolContext
from agentkit.run import control
from agentkit.testing.models import ScriptedModel
from agentkit.tools import tool
from agentkit.transcript.steps import Finished, ToolReturned
from ops_core.config.catalog import Catalog
from ops_core.dispatchers import LocalDispatcher
from ops_core.engine import Engine
from ops_core.halt import HaltKind, NewHalt
from ops_core.runner import Runner, RunnerOptions
from ops_core.task import RetryPolicy, TaskStatus
from ops_core.testing import FakeClock, open_test_store
from ops_core.testing.store_contract.examples import steps_of

from .runner_support import (  # type: ignore[import-not-found]
    SOON,
    Hanging,
    Stubborn,
    add,
    call,
    ended,
    is_,
    submit,
    until,
    working,
)

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


async def test_after_a_cancellation_by_another_process_nothing_begins(file_url: str):
    """Although the next heartbeat is far away, and a file tells nobody of what another process has written."""
    fetching, paid = Hanging(), asyncio.Event()

    @tool(effect="unsafe")
    async def pay() -> str:
        """Pay."""
        paid.set()
        return "paid"

    model = ScriptedModel.by_turn([call("hang"), call("pay"), "Done."])
    agent = Agent(model, name="agent", tools=[fetching.tool(), pay])
    async with open_test_store(file_url) as store, open_test_store(file_url) as other:
        here, there = Engine(store, LocalDispatcher()), Engine(other, LocalDispatcher())
        task = await submit(there)
        async with working(here, agent, lease_seconds=1000.0):
            await fetching.begun.wait()
            await there.cancel(task.tenant, task.id)
            fetching.go_on.set()
            assert (await ended(here, task)).status is TaskStatus.CANCELLED
        steps = await steps_of(store, task)
    assert not paid.is_set()
    assert [type(step) for step in steps[-2:]] == [ToolReturned, Finished]


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
    monkeypatch.setattr(control, "STUBBORN_SECONDS", 0.05)
    stubborn = Stubborn()
    task = await submit(engine)
    async with working(engine, stubborn.agent()):
        await stubborn.begun.wait()
        await engine.cancel(task.tenant, task.id)
        assert (await ended(engine, task)).status is TaskStatus.CANCELLED
        stubborn.go_on.set()


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
    # a claim that was under way when the runner stopped may have taken it; then it was given back
    assert (await engine.get(late.tenant, late.id)).attempt == 0
    assert len(await steps_of(engine.store, late)) <= 1
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
    monkeypatch.setattr(control, "STUBBORN_SECONDS", 0.05)
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


# --- a tool that makes something else of its cancellation ---------------------------------------------------------


class Swallowing(Hanging):  # type: ignore[misc]
    """A tool that answers its cancellation with a result or an error of its own, and a payment behind it."""

    def __init__(self, error: BaseException | None) -> None:
        super().__init__()
        self.error = error
        self.payments = 0
        self.model = ScriptedModel.by_turn([call("hang"), call("pay"), "All done."])

    async def reply(self, _request: object = None) -> str:
        try:
            return await super().reply()
        except asyncio.CancelledError:
            if self.error is not None:
                raise self.error from None
            return "a part of the page"

    def agent(self) -> Agent[Any, Any]:
        @tool(effect="unsafe")
        async def pay() -> str:
            """Pays."""
            self.payments += 1
            return "paid"

        return Agent(self.model, name="agent", tools=[self.tool(effect="pure"), pay])


@pytest.mark.parametrize("error", [None, ToolError("interrupted"), KeyError("page")], ids=repr)
@pytest.mark.parametrize("how", ["cancel", "deadline", "halt", "shutdown", "lost lease"])
async def test_nothing_begins_after_a_stop_that_a_tool_has_swallowed(
    url: str, clock: FakeClock, how: str, error: BaseException | None
):
    swallowing = Swallowing(error)
    async with open_test_store(url, clock) as store:
        engine = Engine(store, LocalDispatcher())
        task = await submit(engine, timeout_seconds=0.2 if how == "deadline" else None)
        quick = {"lease_seconds": 1.0, "concurrency": 1, "grace_seconds": 0.0, "poll_seconds": 30.0}
        async with working(engine, swallowing.agent(), **quick) as runner, asyncio.timeout(SOON):
            await swallowing.begun.wait()
            match how:
                case "cancel":
                    await engine.cancel(task.tenant, task.id)
                case "halt":
                    await engine.halt(task.tenant, NewHalt(kind=HaltKind.TASK, target=task.id))
                case "lost lease":
                    while not (await store.sweep()).released:
                        clock.advance(2)
                    await store.claim("other", 1, 30.0, ["agent"])
                case "shutdown":
                    runner.stop(at_once=True)
                case _:
                    pass
            await swallowing.cancelled.wait()
            while runner.carrying:
                await asyncio.sleep(0.005)
        now = await engine.get(task.tenant, task.id)
    statuses = {"cancel": "cancelled", "deadline": "failed", "lost lease": "running"}
    assert now.status.value == statuses.get(how, "pending")
    assert (swallowing.payments, len(swallowing.model.requests)) == (0, 1)
