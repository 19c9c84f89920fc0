"""What a run is made of, and what its model is asked, is recorded as digests, and a change of it is found."""

import json
from dataclasses import replace
from typing import Any

import pytest

from agentkit import Agent, Limits, MemoryJournal, ToolCall, Waiting
from agentkit.messages import Attachment, ModelRequest, ToolSpec, UserMessage
from agentkit.policies import SecurityPolicy
from agentkit.run.fingerprints import ConstantParts, Requests, changes, fingerprint, fingerprint_of_tool
from agentkit.testing import Crash, CrashingJournal, ScriptedModel
from agentkit.tools import Tool
from agentkit.transcript.codec import decode_step, encode_step
from agentkit.transcript.steps import (
    ApprovalAsked,
    ApprovalGiven,
    Declared,
    ModelReplied,
    Recorded,
    RunStarted,
    ToolReturned,
)

from .loop_support import kinds, steps_of  # type: ignore[import-not-found]

CALL = ToolCall(id="c1", name="pay", arguments={"amount": 5})


def payer(*, effect: Any = "unsafe", text: str = "Pay.", wide: bool = False, approval: bool = False) -> Any:
    async def pay(amount: int) -> str:
        return f"paid {amount}"

    async def pay_to(amount: int, to: str = "") -> str:
        return f"paid {amount} to {to}"

    function: Any = pay_to if wide else pay
    function.__doc__ = text
    return Tool(function, name="pay", effect=effect, approval=approval)


def agent(model: ScriptedModel | None = None, **fields: Any) -> Agent:
    given = {"instructions": "Be kind; the code word is sesame.", "tools": [payer()], **fields}
    return Agent(ScriptedModel.by_turn([CALL, "done"]) if model is None else model, **given)


async def test_a_run_says_what_it_is_made_of_and_tells_nothing_of_it():
    outcome = await agent().run("Pay.")
    (started,) = steps_of(outcome.transcript, RunStarted)
    declared = started.declared
    assert set(declared) == {"instructions", "policy", "output", "settings", "versions", "models", "tools"}
    assert declared["models"] == ["scripted:model"]
    assert declared["tools"]["pay"]["effect"] == "unsafe"
    assert "sesame" not in encode_step(started)
    assert len(json.dumps(declared)) < 500
    assert decode_step(encode_step(started)) == started
    again = await agent().run("Pay.")
    assert steps_of(again.transcript, RunStarted)[0].declared == declared


@pytest.mark.parametrize(
    "change, parts",
    [
        ({}, []),
        ({"instructions": "Be quick."}, ["instructions"]),
        ({"tools": [payer(effect="pure")]}, ["tools.pay.effect"]),
        ({"tools": [payer(text="Pay at once.")]}, ["tools.pay.description"]),
        ({"tools": [payer(wide=True)]}, ["tools.pay.schema"]),
        ({"tools": [payer(approval=True)]}, ["tools.pay.terms"]),
        ({"policy": SecurityPolicy(deny=("send_*",))}, ["policy"]),
        ({"output": list[str]}, ["output"]),
        ({"limits": Limits(steps=7)}, ["settings"]),
        ({"planning": "react"}, ["settings"]),
    ],
    ids=str,
)
async def test_whoever_carries_it_on_finds_what_has_changed(change: dict[str, Any], parts: list[str]):
    journal = CrashingJournal(at=1)
    with pytest.raises(Crash):
        await agent().run("Pay.", journal=journal)
    revived = journal.revived()
    script = (
        ["Final Answer: done"] if "planning" in change else ['["done"]'] if "output" in change else ["done"]
    )
    await agent(ScriptedModel(script), **change).run(journal=revived)
    assert [step.changed for step in steps_of(revived.steps, Declared)] == ([parts] if parts else [])
    if parts:
        assert kinds(revived.steps)[:2] == ["RunStarted", "Declared"], "before anything else is done"
        assert decode_step(encode_step(revived.steps[1].step)) == revived.steps[1].step
        # it is what counts from then on
        await agent(ScriptedModel(script), **change).run(journal=MemoryJournal(revived.steps[:2]))
        assert len(steps_of(revived.steps, Declared)) == 1


async def test_another_model_is_a_change():
    journal = CrashingJournal(at=1)
    with pytest.raises(Crash):
        await agent().run("Pay.", journal=journal)
    revived = journal.revived()
    await agent(ScriptedModel(["done"], name="scripted:other")).run(journal=revived)
    assert [step.changed for step in steps_of(revived.steps, Declared)] == [["models"]]


async def test_an_older_transcript_says_it_with_its_first_reply():
    """So does a task, whose first step is written when it is claimed."""
    started = Recorded(seq=0, at=1.0, step=RunStarted(run_id="r", agent="agent", input="Pay."))
    outcome = await agent().run(journal=MemoryJournal([started]))
    first, second = steps_of(outcome.transcript, ModelReplied)
    assert set(first.declared["tools"]) == {"pay"}
    assert second.declared is None
    assert not steps_of(outcome.transcript, Declared)


async def test_a_reply_has_the_digest_of_its_request():
    first, again = await agent().run("Pay."), await agent().run("Pay.")
    digests = [[step.request for step in steps_of(run.transcript, ModelReplied)] for run in (first, again)]
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 2
    assert all(len(digest) == 16 for digest in digests[0])
    other = await agent(instructions="Be quick.").run("Pay.")
    assert not {step.request for step in steps_of(other.transcript, ModelReplied)} & set(digests[0])


def test_a_request_is_told_from_every_other_one():
    spec = ToolSpec(name="pay", description="Pay.", parameters={"type": "object"})
    message = UserMessage(text="Pay.", attachments=(Attachment(media_type="image/png", data=b"\x89PNG"),))
    request = ModelRequest(
        messages=(message,), instructions="Be kind.", tools=(spec,), output_schema={"type": "array"}
    )
    others = [
        replace(request, messages=(message, message)),
        replace(request, messages=(replace(message, text="pay."),)),
        replace(
            request,
            messages=(replace(message, attachments=(Attachment(media_type="image/png", data=b"x"),)),),
        ),
        replace(request, instructions=""),
        replace(request, tools=(replace(spec, description="Pay!"),)),
        replace(request, tools=()),
        replace(request, output_schema=None),
        replace(request, temperature=0.5),
    ]
    requests = Requests()
    told = [requests.fingerprint(each) for each in (request, *others)]
    assert len(set(told)) == len(told)
    assert requests.fingerprint(request) == Requests().fingerprint(request) == told[0]
    assert requests.fingerprint(replace(request, max_tokens=9)) == told[0], (
        "that goes by the money that is left"
    )


def test_fingerprints_are_the_same_in_every_process():
    assert fingerprint({"b": frozenset({"x", "y", "z"}), "a": (1, 2.5, None)}) == "242138c256719ad4"
    assert fingerprint(object()) == fingerprint(object())
    assert fingerprint(SecurityPolicy()) != fingerprint(SecurityPolicy(deny=("*",)))
    assert changes({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "d": 2}, "e": 3}) == ["a.c", "a.d", "e"]


@pytest.mark.parametrize("change", [{}, {"text": "Pay at once."}, {"wide": True}], ids=str)
async def test_an_approval_is_for_the_tool_as_it_was_shown(change: dict[str, Any]):
    journal = MemoryJournal()
    waiting = await agent(tools=[payer(approval=True)]).run("Pay.", journal=journal)
    assert isinstance(waiting, Waiting)
    await journal.append(ApprovalGiven(approval_id=waiting.on[0].approval_id, approved=True))
    outcome = await agent(tools=[payer(approval=True, **change)]).run(journal=journal)
    if not change:
        assert outcome.unwrap() == "done"
        return
    assert isinstance(outcome, Waiting), "a yes is for what was shown"
    first, second = steps_of(journal.steps, ApprovalAsked)
    assert "has changed" in second.reason
    assert first.tool_digest != second.tool_digest
    await journal.append(ApprovalGiven(approval_id=second.approval_id, approved=True))
    outcome = await agent(tools=[payer(approval=True, **change)]).run(journal=journal)
    assert outcome.unwrap() == "done"
    assert steps_of(journal.steps, ToolReturned)[0].error is None


@pytest.mark.parametrize("text", ["go", "", 'ä"\\\n\u2028😀', "\ud800 half"])
def test_the_quick_form_of_a_plain_message_has_the_same_fingerprint(text):
    message = UserMessage(text=text)
    rest, tools = ConstantParts().fingerprints(ModelRequest(messages=()), fingerprint_of_tool)
    of_message = fingerprint(["", message])
    assert Requests().fingerprint(ModelRequest(messages=(message,))) == fingerprint([rest, tools, of_message])
