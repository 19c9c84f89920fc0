"""Texts that come from anywhere are recorded as whole characters of a bounded length."""

from dataclasses import replace

import pytest

from agentkit import Agent, ToolError, tool
from agentkit.errors import ModelBadRequest, ModelOverloaded, RunError
from agentkit.messages import ToolCall
from agentkit.models.resilience.retry import Retries
from agentkit.recorded_text import MAX_CHARACTERS, recordable
from agentkit.run.outcomes import Completed, Failed
from agentkit.testing.models import ScriptedModel
from agentkit.transcript.codec import decode_step, encode_step
from agentkit.transcript.steps import (
    ApprovalAsked,
    ApprovalGiven,
    Finished,
    ModelFailed,
    ModelReplied,
    Note,
    Recalled,
    Ruling,
    ToolReturned,
)

HALF = "caf\udce9 \ud83d!"
ERROR = RunError(code="broken", message=HALF)


@pytest.mark.parametrize("text", ["", "plain", "é 🎉 \u202e \x00", "x" * MAX_CHARACTERS])
def test_what_can_be_recorded_stays_as_it_is(text):
    assert recordable(text) == text


@pytest.mark.parametrize("text", ["x" * (MAX_CHARACTERS + 1), "é" * 10_000_000, "\ud83d" * 40_000])
def test_what_is_too_long_is_cut_once_and_says_so(text):
    cut = recordable(text)
    assert len(cut) <= MAX_CHARACTERS
    assert cut.endswith("more characters were left out)")
    assert recordable(cut) == cut


@pytest.mark.parametrize(
    "step",
    [
        ToolReturned(call_id="c", tool="t", error=ERROR, ruling=Ruling(decision="deny", reason=HALF)),
        ToolReturned(call_id="c", tool="t", output=1, remark=HALF),
        ModelFailed(model="m", error=ERROR),
        ModelReplied(parts=(), problem=HALF, model=HALF),
        ApprovalAsked(approval_id="a", call_id="c", tool="t", arguments={}, reason=HALF),
        ApprovalGiven(approval_id="a", approved=False, reason=HALF, by=HALF),
        Recalled(notes=(Note(id="n", text=HALF, source=HALF),)),
        Finished(status="failed", error=replace(ERROR, message=HALF * 20_000)),
    ],
)
def test_every_step_can_be_recorded_and_is_read_as_it_was_written(step):
    stored = encode_step(step)
    assert len(stored) < 2 * MAX_CHARACTERS
    assert decode_step(stored) == step


async def test_the_error_of_a_tool_is_told_to_the_model_whole():
    @tool(effect="pure")
    def broken() -> str:
        """Breaks."""
        raise ToolError(HALF)

    model = ScriptedModel.by_turn([ToolCall(id="c", name="broken"), "Done."])
    outcome = await Agent(model, tools=[broken]).run("Go on.")
    assert isinstance(outcome, Completed)
    (returned,) = [one.step for one in outcome.transcript if isinstance(one.step, ToolReturned)]
    assert "caf\ufffd \ufffd!" in returned.error.message


@pytest.mark.parametrize("error", [ModelBadRequest(HALF), ModelOverloaded(HALF * 1_000_000)])
async def test_the_error_of_a_model_ends_the_run_with_its_own_code(error):
    def fail(_request):
        raise error

    outcome = await Agent(ScriptedModel.by_turn({0: fail}), retries=Retries(tries=1)).run("Go on.")
    assert isinstance(outcome, Failed)
    assert outcome.error.code == error.code
    assert len(outcome.error.message) <= MAX_CHARACTERS
