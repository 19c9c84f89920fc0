"""Runs that wait for a person, and calls that were cut short."""

import asyncio
from typing import Any

import pytest

from agentkit.agent import Agent
from agentkit.errors import RunError
from agentkit.ports import ToolContext
from agentkit.testing.models import ScriptedModel
from agentkit.tools import ABSENT, found, tool
from agentkit.transcript.steps import ApprovalAsked, ApprovalGiven, Finished, Settlement, ToolReturned
from ops_core.engine import Engine
from ops_core.task import TaskStatus
from ops_core.testing.store_contract.examples import steps_of

from .runner_support import (  # type: ignore[import-not-found]
    SOON,
    Hanging,
    call,
    ended,
    is_,
    submit,
    until,
    working,
)


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


@pytest.mark.parametrize("verb", ["cancel", "fail"])
async def test_an_approval_is_used_once_whatever_is_retried(engine: Engine, verb: str):
    paid: list[str] = []

    @tool(approval=True)
    def pay(context: ToolContext[None]) -> str:
        """Pays."""
        paid.append(context.idempotency_key)
        return "paid"

    agent = Agent(ScriptedModel.by_turn([call("pay"), "Done."]), name="agent", tools=[pay])
    task = await submit(engine)
    async with working(engine, agent):
        await until(engine, task, is_(TaskStatus.WAITING))
    (asked,) = [step for step in await steps_of(engine.store, task) if isinstance(step, ApprovalAsked)]
    await engine.answer(task.tenant, task.id, ApprovalGiven(approval_id=asked.approval_id, approved=True))
    if verb == "cancel":
        await engine.cancel(task.tenant, task.id)
    else:
        (claimed,) = await engine.claim("another", 1, 60.0, ["agent"])
        error = RunError(code="broken", message="It broke.")
        await engine.store.append(claimed.lease, Finished(status="failed", error=error))
    answers = await asyncio.gather(*(engine.retry(task.tenant, task.id) for _ in range(4)))
    (again,) = {answer.task.id: answer.task for answer in answers}.values()
    async with working(engine, agent):
        status = TaskStatus.WAITING if verb == "cancel" else TaskStatus.COMPLETED
        await until(engine, again, is_(status))
    assert len(paid) == (verb == "fail")
    if verb == "cancel":
        (open_one,) = (await engine.get(task.tenant, again.id)).approvals
        assert open_one.asked.approval_id != asked.approval_id


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


@pytest.mark.parametrize(
    "answer, status, payments",
    [
        (found({"receipt": 4711}), TaskStatus.COMPLETED, 1),
        (ABSENT, TaskStatus.COMPLETED, 2),
        (None, TaskStatus.WAITING, 1),
        ({"found": 1, "absent": True}, TaskStatus.WAITING, 1),
        (OSError("the bank is away"), TaskStatus.WAITING, 1),
    ],
)
async def test_an_interrupted_call_is_looked_up_before_a_person_is_asked(
    engine: Engine, answer: Any, status: TaskStatus, payments: int
):
    hanging, paid, looked_up = Hanging(), list[str](), list[tuple[str, int]]()

    def look_up(context: ToolContext[None], amount: int) -> Any:
        looked_up.append((context.idempotency_key, amount))
        if isinstance(answer, Exception):
            raise answer
        return answer

    @tool(effect="unsafe", find=look_up)
    async def pay(context: ToolContext[None], amount: int, note: str = "") -> str:
        """Pays."""
        paid.append(context.idempotency_key)
        return await hanging.reply()

    model = ScriptedModel.by_turn([call("pay", amount=90, note="lamp"), "Done."])
    agent = Agent(model, name="agent", tools=[pay])
    task = await submit(engine)
    async with working(engine, agent) as runner:
        await hanging.begun.wait()
        assert looked_up == []
        runner.stop(at_once=True)
    hanging.go_on.set()
    async with working(engine, agent):
        await until(engine, task, is_(status))
    assert looked_up == [(paid[0], 90)]
    assert len(paid) == payments
    if status is TaskStatus.COMPLETED and payments == 1:
        (returned,) = [step for step in await steps_of(engine.store, task) if isinstance(step, ToolReturned)]
        assert returned.output == {"receipt": 4711}
        assert "looked up" in returned.remark


async def test_what_a_person_knows_of_an_interrupted_call_is_its_result(engine: Engine):
    hanging, paid = Hanging(), []

    @tool
    async def pay() -> str:
        """Pays."""
        paid.append(1)
        return await hanging.reply()

    told: list[str] = []

    def answer(request: Any) -> str:
        told.append(str(request.messages[-1]))
        return "Done."

    agent = Agent(ScriptedModel.by_turn([call("pay"), answer]), name="agent", tools=[pay])
    task = await submit(engine)
    async with working(engine, agent) as runner:
        await hanging.begun.wait()
        runner.stop(at_once=True)
    async with working(engine, agent):
        await until(engine, task, is_(TaskStatus.WAITING))
        (asked,) = [step for step in await steps_of(engine.store, task) if isinstance(step, ApprovalAsked)]
        settlement = Settlement(output={"receipt": 4711})
        given = ApprovalGiven(approval_id="", approved=False, by="kim", settlement=settlement)
        await engine.settle(task.tenant, task.id, asked.call_id, given)
        found = await ended(engine, task)
    assert (found.status, paid, found.approvals) == (TaskStatus.COMPLETED, [1], ())
    assert "4711" in told[0]
    assert "A person (kim)" in told[0]
    assert "Error" not in told[0]


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
