"""Runs that are cancelled, let go and carried on."""

import asyncio

import pytest

from agentkit import (
    Agent,
    Cancelled,
    Control,
    MemoryJournal,
    tool,
)
from agentkit.errors import (
    RunReleased,
)
from agentkit.testing import ScriptedModel
from agentkit.transcript.steps import ToolReturned

from .loop_support import add, call, kinds, steps_of  # type: ignore[import-not-found]


async def test_cancel_reaches_a_tool_in_flight_and_keeps_what_was_done():
    control, cancelled = Control(), asyncio.Event()

    @tool(effect="pure")
    async def hang() -> None:
        """Cancels its own run, then waits."""
        control.cancel()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    model = ScriptedModel([call(a=1, b=1), call("hang", "c2")])
    outcome = await Agent(model, tools=[add, hang]).run("go", control=control)
    assert isinstance(outcome, Cancelled)
    assert cancelled.is_set()
    assert kinds(outcome.transcript) == [
        "RunStarted",
        "ModelReplied",
        "ToolReturned",
        "ModelReplied",
        "Finished",
    ]


async def test_cancel_reaches_a_model_call_in_flight():
    control, closed = Control(), asyncio.Event()

    async def hang(_request):
        control.cancel()
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()

    outcome = await Agent(ScriptedModel([hang])).run("go", control=control)
    assert isinstance(outcome, Cancelled)
    assert closed.is_set()


async def test_a_run_that_is_cancelled_before_it_starts_does_nothing():
    control = Control()
    control.cancel()
    outcome = await Agent(ScriptedModel([])).run("go", control=control)
    assert isinstance(outcome, Cancelled)


async def test_cancelling_the_coroutine_records_nothing_and_can_be_resumed():
    journal, started = MemoryJournal(), asyncio.Event()

    async def hang(_request):
        started.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(Agent(ScriptedModel([hang])).run("go", journal=journal))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert kinds(journal.steps) == ["RunStarted"]
    outcome = await Agent(ScriptedModel(["done"])).run("go", journal=journal)
    assert outcome.unwrap() == "done"


async def test_released_at_the_next_step_and_resumed():
    journal, control = MemoryJournal(), Control()

    @tool(effect="pure")
    def release() -> str:
        """Let the run go while the tool works."""
        control.release()
        return "released"

    with pytest.raises(RunReleased):
        await Agent(ScriptedModel([call("release")]), tools=[release]).run(
            "go", journal=journal, control=control
        )
    assert kinds(journal.steps) == ["RunStarted", "ModelReplied", "ToolReturned"]
    outcome = await Agent(ScriptedModel(["done"]), tools=[release]).run("go", journal=journal)
    assert outcome.unwrap() == "done"


async def test_a_cancellation_of_a_tools_own_making_is_its_failure():
    @tool(effect="pure")
    async def confused() -> None:
        """Some libraries let their own cancellation escape."""
        raise asyncio.CancelledError

    for calls in ([call("confused")], [call("confused"), call("confused", "c2")]):
        outcome = await Agent(ScriptedModel([calls, "done"]), tools=[confused]).run("go")
        assert outcome.unwrap() == "done"
        assert all(step.error is not None for step in steps_of(outcome.transcript, ToolReturned))
