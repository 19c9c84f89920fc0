"""What is paid for is recorded, whatever code of others stands between a reply and its record.

And what a run leaves behind can be copied and pickled.
"""

import copy
import pickle
import sys
from collections.abc import Callable
from typing import Annotated, Any, cast

import pytest
from pydantic import AfterValidator, BaseModel, field_validator, model_validator

import agentkit
from agentkit import Agent, Completed, Failed, Limits, MemoryJournal, ToolCall, tool
from agentkit.budget.prices import Price, Prices
from agentkit.errors import AgentkitError, ModelRateLimited, RunError, RunFailed
from agentkit.messages import ModelReply, StopReason, Text, Usage
from agentkit.testing import ScriptedModel
from agentkit.testing.models import as_reply
from agentkit.tools import Tool
from agentkit.transcript.steps import Finished, ModelFailed, ModelReplied, ToolReturned

from .loop_support import kinds, steps_of  # type: ignore[import-not-found]


class Panic(BaseException):
    """As other languages raise one through their bindings."""


SECRET = "sk-secret"
ERRORS = [
    *(kind(SECRET) for kind in (KeyError, TypeError, RuntimeError, Panic)),
    SystemExit(3),
    StopIteration(),
]


def refusing(error: BaseException) -> Any:
    class Amount(BaseModel):
        n: int

        @field_validator("n")
        @classmethod
        def positive(cls, n: int) -> int:
            if n < 0:
                raise error
            return n

        @model_validator(mode="after")
        def small(self) -> Any:
            if self.n > 100:
                raise error
            return self

    return Amount


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_validator_that_raises_anything_is_a_problem_that_the_model_is_told(error: BaseException):
    model = ScriptedModel(['{"n": -1}', '{"n": 101}', '{"n": 5}'])
    outcome = await Agent(model, output=refusing(error)).run("How much?")
    assert outcome.unwrap().n == 5
    assert kinds(outcome.transcript) == ["RunStarted", *["ModelReplied"] * 3, "Finished"]
    for reply in steps_of(outcome.transcript, ModelReplied)[:2]:
        assert type(error).__name__ in reply.problem
        assert SECRET not in reply.problem


async def test_no_progress_says_what_the_last_problem_was():
    model = ScriptedModel(['{"n": -1}'] * 4)
    outcome = await Agent(model, output=refusing(KeyError("n"))).run("How much?")
    assert isinstance(outcome, Failed)
    assert outcome.error.code == "no_progress"
    assert "failed with KeyError" in outcome.error.message
    assert outcome.usage.model_calls == 4

    calls = [ToolCall(id=f"c{n}", name="nothing", arguments={}) for n in range(4)]
    outcome = await Agent(ScriptedModel(calls)).run("Go.")
    assert "the last problem: there is no tool 'nothing'" in outcome.error.message


async def test_a_validator_is_asked_once_about_a_reply_before_it_is_recorded():
    """One that answers otherwise the next time cannot keep a reply out of the journal that was paid for."""
    asked: list[int] = []

    def moody(n: int) -> int:
        asked.append(n)
        if len(asked) > 1:
            raise KeyError(n)
        return n

    journal = MemoryJournal()
    agent = Agent(ScriptedModel(["7"]), output=cast("Any", Annotated[int, AfterValidator(moody)]))
    with pytest.raises(agentkit.UsageError, match="no longer fits"):
        await agent.run("A number?", journal=journal)
    assert kinds(journal.steps) == ["RunStarted", "ModelReplied", "Finished"]


async def test_a_reply_that_was_cut_is_not_asked_for_again_without_a_word():
    cut = ModelReply(
        parts=(Text(text="It beg"),), stop_reason=StopReason.LENGTH, usage=Usage(output_tokens=64)
    )
    model = ScriptedModel([cut, "Short."])
    outcome = await Agent(model).run("Tell me all.")
    assert outcome.unwrap() == "Short."
    told = model.requests[1].messages[-1].text
    assert "after 64 tokens" in told
    assert "write less" in told
    outcome = await Agent(ScriptedModel([cut] * 4)).run("Tell me all.")
    assert "cut off at the token limit after 64 tokens" in outcome.error.message


class Broken(Price):
    def of(self, usage: Usage) -> int:
        raise ZeroDivisionError


async def test_a_price_that_cannot_be_computed_is_an_unknown_one():
    price = Broken(input_usd_per_million=1, output_usd_per_million=1)
    outcome = await Agent(ScriptedModel(["Yes."]), prices=Prices({"scripted:model": price})).run("Well?")
    assert outcome.unwrap() == "Yes."
    assert outcome.usage.tokens.cost_usd is None


@pytest.mark.parametrize(
    "wrong",
    [
        None, "a text", {"parts": []}, ModelReply(parts=None), ModelReply(parts=("text",)),  # type: ignore[arg-type]
        ModelReply(parts=(), usage=None), ModelReply(parts=(), usage={}), ModelReply(parts=(), stop_reason="done"),  # type: ignore[arg-type]
    ],
    ids=repr,
)  # fmt: skip
async def test_what_is_no_reply_is_a_failed_call_that_is_recorded(wrong: Any):
    class Strange:
        name = "strange:model"

        async def reply(self, request: Any, on_delta: Any = None) -> Any:
            return wrong

    prices = Prices({"strange:model": Price(input_usd_per_million=1, output_usd_per_million=1)})
    journal = MemoryJournal()
    outcome = await Agent(Strange(), prices=prices, limits=Limits(usd=1)).run("Go.", journal=journal)
    assert isinstance(outcome, Failed)
    assert outcome.error.code == "model_bad_response"
    (failed,) = steps_of(journal.steps, ModelFailed)
    assert failed.usage is None, "nobody knows what it has cost"
    assert outcome.usage.unsettled_usd > 0


# --- what can be copied --------------------------------------------------------------------------------------------


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


COPIES: dict[str, Callable[[Any], Any]] = {"pickle": pickled, "copy": copy.copy, "deepcopy": copy.deepcopy}


@tool(effect="pure", timeout=3)
def double(n: int) -> int:
    """Double a number."""
    return 2 * n


def halve(n: int) -> float:
    """Halve a number."""
    return n / 2


def every(kind: type[AgentkitError]) -> list[type[AgentkitError]]:
    return [kind, *(each for below in kind.__subclasses__() for each in every(below))]


@pytest.mark.parametrize("how", COPIES)
def test_every_error_can_be_copied(how: str):
    __import__("agentkit.sandbox.errors")
    classes = [kind for kind in every(AgentkitError) if kind.__module__.startswith("agentkit.")]
    assert len(classes) > 30
    for kind in classes:
        error = kind.__new__(kind, "it went wrong")
        error.retry_after = 7.0  # type: ignore[attr-defined]
        again = COPIES[how](error)
        assert (type(again), str(again), again.retry_after) == (kind, "it went wrong", 7.0)
        assert again.as_run_error() == error.as_run_error()


@pytest.mark.parametrize("how", COPIES)
def test_a_failed_run_keeps_its_reason_on_the_way_to_another_process(how: str):
    reason = RunError(code="limit_reached", message="too much", actor=agentkit.errors.Actor.BUDGET_OWNER)
    error = COPIES[how](RunFailed(reason))
    assert (error.error, error.actor, str(error)) == (reason, reason.actor, "limit_reached: too much")
    limited = COPIES[how](ModelRateLimited("slowly", retry_after=3.5))
    assert (str(limited), limited.retry_after) == ("slowly", 3.5)


@pytest.mark.parametrize("how", COPIES)
def test_an_agent_and_its_outcomes_can_be_copied(how: str):
    tools: Any = [double, halve, Tool(halve, name="half", effect="pure")]
    calls = [ToolCall(id=name, name=name, arguments={"n": 4}) for name in ("double", "half")]
    agent = Agent(ScriptedModel.by_turn([as_reply(calls), "Done."]), tools=tools)
    first = agent.run_sync("Count.")  # what it has worked out meanwhile is not in the way
    again = COPIES[how](agent)
    outcome = COPIES[how](again.run_sync("Count."))
    assert isinstance(outcome, Completed)
    assert outcome.unwrap() == first.unwrap() == "Done."
    returned = steps_of(outcome.transcript, ToolReturned)
    assert {step.call_id: step.output for step in returned} == {"double": 8, "half": 2.0}
    assert isinstance(outcome.transcript[-1].step, Finished)
    assert again.tools[0] is double, "a tool is found by the name of its function"
    assert (again.tools[2].name, again.tools[2].spec) == ("half", tools[2].spec)
    assert sys.modules[double.function.__module__].double is double
