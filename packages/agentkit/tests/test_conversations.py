"""Runs that follow each other: what a run is shown of those before it."""

import json
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel

from agentkit import Agent, Completed, MemoryJournal, Turn, tool
from agentkit.errors import UsageError
from agentkit.messages import AssistantMessage, Attachment, Text, ToolCall, UserMessage
from agentkit.testing.models import ScriptedModel
from agentkit.transcript.steps import RunStarted, digest_of

EARLIER = (
    Turn(input="My name is Kim.", output="Hello Kim."),
    Turn(input={"book": "a flight"}, status="failed"),
    Turn(input="Count.", output={"count": 3}),
    Turn(input="Stop.", status="cancelled"),
    Turn(input="Say nothing.", output=""),
)


@tool(effect="pure")
def look() -> str:
    """Look."""
    return "seen"


def said(request) -> list[tuple[str, str]]:
    return [
        ("user", message.text)
        if isinstance(message, UserMessage)
        else ("assistant", "".join(part.text for part in message.parts if isinstance(part, Text)))
        for message in request.messages
        if isinstance(message, UserMessage | AssistantMessage)
    ]


async def test_a_run_is_shown_the_turns_before_it():
    model = ScriptedModel(["Kim."])
    outcome = await Agent(model).run("What is my name?", earlier=EARLIER)
    assert said(model.requests[0]) == [
        ("user", "My name is Kim."),
        ("assistant", "Hello Kim."),
        ("user", '{"book": "a flight"}'),
        ("assistant", "(There was no answer: the run failed.)"),
        ("user", "Count."),
        ("assistant", '{"count": 3}'),
        ("user", "Stop."),
        ("assistant", "(There was no answer: the run was cancelled.)"),
        ("user", "Say nothing."),
        ("assistant", "(empty)"),
        ("user", "What is my name?"),
    ]
    first = outcome.transcript[0].step
    assert isinstance(first, RunStarted)
    assert (first.earlier, first.earlier_digest) == (5, digest_of(EARLIER))


async def test_in_text_an_earlier_answer_has_the_form_of_an_answer():
    model = ScriptedModel(["Thought: I know.\nFinal Answer: Kim."])
    await Agent(model, planning="react").run("What is my name?", earlier=EARLIER[:2])
    assert [text for _who, text in said(model.requests[0])] == [
        "My name is Kim.",
        "Final Answer: Hello Kim.",
        '{"book": "a flight"}',
        "(There was no answer: the run failed.)",
        "What is my name?",
    ]


@pytest.mark.parametrize("planning", ["native", "react"])
async def test_a_run_that_is_carried_on_is_shown_the_same(planning):
    journal = MemoryJournal()
    call = ToolCall(id="call_1", name="look")
    stopped = ScriptedModel([call, RuntimeError("the process dies here")])
    with pytest.raises(RuntimeError):
        await Agent(stopped, tools=[look], planning=planning).run("Go.", earlier=EARLIER, journal=journal)
    model = ScriptedModel(["Final Answer: done"])
    agent = Agent(model, tools=[look], planning=planning)
    for others in ((), EARLIER[:4], (*EARLIER[:4], Turn(input="Say nothing.", output="something"))):
        with pytest.raises(UsageError, match="5 earlier turns"):
            await agent.run(earlier=others, journal=journal)
    outcome = await agent.run(earlier=EARLIER, journal=journal)
    assert isinstance(outcome, Completed)
    assert model.requests == stopped.requests[1:]


def test_turns_have_one_digest_only():
    digests = {digest_of(EARLIER[:number]) for number in range(6)}
    assert len(digests) == 6
    assert digest_of(()) == ""
    as_text, as_json = (digest_of([Turn(input=given)]) for given in ("1", 1))
    assert as_text != as_json


class Count(BaseModel):
    n: int
    on: date = date(2026, 5, 1)


@dataclass
class Point:
    x: float


@pytest.mark.parametrize("output", [Count, Point, list[Count]], ids=str)
async def test_earlier_turns_hold_what_runs_were_given_and_have_returned(output):
    """Models, dataclasses and attachments stand as they are; a run that is carried on finds the same digest."""
    given: Any = ["What is this?", Attachment(media_type="image/png", data=b"\x89PNG", name="a.png")]
    texts = {Count: '{"n": 1}', Point: '{"x": 1.5}', list[Count]: '[{"n": 1}, {"n": 2}]'}
    first = await Agent(ScriptedModel([texts[output]]), output=output).run(given)
    earlier = [Turn(input=given, output=first.unwrap()), Turn(input=Count(n=7), output={Point(x=2).x: None})]
    journal, model = MemoryJournal(), ScriptedModel(["Kim."])
    outcome = await Agent(model).run("Who?", earlier=earlier, journal=journal)
    assert outcome.unwrap() == "Kim."
    (question, answer, other, *_rest) = model.requests[0].messages
    assert question.attachments == (given[1],)
    told = json.loads(answer.parts[0].text)
    assert (told["n"] if output is Count else told["x"] if output is Point else len(told)) in (1, 1.5, 2)
    assert json.loads(other.text) == {"n": 7, "on": "2026-05-01"}
    again = await Agent(ScriptedModel([])).run("Who?", earlier=earlier, journal=MemoryJournal(journal.steps))
    assert again.unwrap() == "Kim."


@pytest.mark.parametrize(
    "given", ["half \ud83d", {"text": "half \ud83d"}, ["half \ud83d"]], ids=["text", "object", "list"]
)
async def test_half_a_character_is_refused_wherever_it_stands(given):
    model = ScriptedModel([])
    options: Any
    for options in ({}, {"earlier": [Turn(input=given)]}, {"earlier": [Turn(input="x", output=given)]}):
        with pytest.raises(UsageError, match="surrogate"):
            await Agent(model).run("fine" if options else given, **options)
    assert model.requests == []
