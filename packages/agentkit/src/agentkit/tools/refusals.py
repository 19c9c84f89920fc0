"""Results of calls that were not carried out as asked, in words for the model. Pure."""

from __future__ import annotations

from dataclasses import replace

from agentkit.errors import ResultUnavailable, ToolDenied, ToolHalted
from agentkit.messages import Effect, ToolCall, ToolSpec
from agentkit.transcript.codec import to_json_text
from agentkit.transcript.steps import ApprovalAsked, ApprovalGiven, OpenCall, Settlement, ToolReturned


def carried_out(error: ResultUnavailable, spec: ToolSpec) -> str:
    """What the model is told in the place of a result that cannot be shown. It is no error: the call took effect."""
    if spec.effect is Effect.PURE:
        return f"{error}. The same call will not show it either; ask for less, or in another way."
    return f"{error}. Do not call it again for the result: that would repeat what it did."


def out_of_time(spec: ToolSpec) -> str:
    """What the model is told of a call that was given up."""
    told = f"{spec.name} was given up after its time limit"
    return told if spec.effect is Effect.PURE else f"{told}; it is not known whether it took effect"


def settled(call: ToolCall, answer: ApprovalGiven, settlement: Settlement) -> ToolReturned:
    """The result of a call as a person knows it."""
    who = f"A person ({answer.by})" if answer.by else "A person"
    remark = f"{who} has said what came of this call; it was not made (again)"
    said = settlement.error
    if said is not None:
        said = replace(said, message=f"{remark}: {said.message}")
    return ToolReturned(
        call_id=call.id, tool=call.name, output=settlement.output, error=said, remark="" if said else remark
    )


def halted_by(owed: OpenCall, halted: ToolHalted) -> ToolHalted:
    """Why a call is not made whose tool is switched off."""
    if not owed.started:
        return halted
    return ToolHalted(
        f"{halted}; it is not known whether this call took effect before, and it was not repeated"
    )


def denied_by_person(owed: OpenCall) -> ToolDenied:
    """Why a call is not made that a person has refused."""
    reason = owed.answer.reason if owed.answer is not None else ""
    what = (
        "it is not known whether this call took effect; it was not repeated"
        if owed.started
        else "not approved"
    )
    return ToolDenied(f"{what}: {reason}" if reason else what)


def unanswered(asked: ApprovalAsked) -> str:
    """Why a call is not made about which nobody has said anything in time."""
    what = (
        "; it is not known whether this call took effect, and it was not repeated"
        if asked.interrupted
        else ""
    )
    return f"not approved: nobody has answered within {asked.expires_seconds or 0:g} seconds{what}"


def remark_of(answer: ApprovalGiven) -> str:
    """What a person has said with a yes; empty for nothing."""
    if answer.arguments is not None:
        what = f"A person has changed the arguments of this call to {to_json_text(answer.arguments)}"
    else:
        what = "A person has approved this call" if answer.reason else ""
    return f"{what}: {answer.reason}" if answer.reason else what
