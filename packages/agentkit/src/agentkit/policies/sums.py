"""Which calls a run has made: what amounts that hold for a whole run are added up from. A fold over its transcript."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from agentkit.errors import BadArguments, ToolDenied, UnknownTool
from agentkit.messages import ToolCall
from agentkit.transcript import (
    ApprovalAsked,
    ApprovalGiven,
    ModelReplied,
    ToolReturned,
    ToolStarted,
    Transcript,
    expiry,
    without_withdrawn,
)

_NEVER_BEGAN = frozenset({BadArguments.code, UnknownTool.code})


def calls_made(transcript: Transcript, under_way: Iterable[ToolCall] = ()) -> Iterator[ToolCall]:
    """Each call that may have taken effect, once, with the arguments that it was made with. Pure.

    That is one that was begun, whether it succeeded, failed or was cut short; not one that was refused by the policy,
    by a person, or because its arguments do not fit.

    Args:
        transcript: all steps of the run, those before a retry and those that were summarised included.
        under_way: calls that were let through just now, of which it may not tell yet.
    """
    wanted = {call.id: call for call in under_way}
    begun = set[str]()
    made = dict.fromkeys(wanted, True)
    asked: dict[str, tuple[ApprovalAsked, float]] = {}
    for recorded in without_withdrawn(transcript):
        match step := recorded.step:
            case ModelReplied():
                wanted.update({call.id: call for call in step.tool_calls if call.id not in wanted})
            case ApprovalAsked():
                asked[step.approval_id] = (step, recorded.at)
            case ApprovalGiven(approved=True, approval_id=id_) if id_ in asked:
                _answered(wanted, *asked[id_], step, recorded.at)
            case ToolStarted():
                begun.add(step.call_id)
                made[step.call_id] = True
            case ToolReturned():
                made[step.call_id] = _was_made(step, begun=step.call_id in begun)
            case _:
                pass
    return (wanted[id_] for id_, counts in made.items() if counts and id_ in wanted)


def _answered(
    wanted: dict[str, ToolCall], asked: ApprovalAsked, asked_at: float, answer: ApprovalGiven, at: float
) -> None:
    """A person may have changed the arguments; an answer that does not count changes nothing."""
    until = expiry(asked_at, asked)
    in_time = until is None or at < until
    if in_time and answer.digest in ("", asked.digest) and asked.call_id in wanted:
        arguments = asked.arguments if answer.arguments is None else answer.arguments
        wanted[asked.call_id] = replace(wanted[asked.call_id], arguments=arguments)


def _was_made(returned: ToolReturned, *, begun: bool) -> bool:
    """One that was refused after it had begun was cut short before, or nearly made: it may have taken effect."""
    if returned.error is None:
        return True
    if returned.error.code in _NEVER_BEGAN:
        return False
    denied = returned.ruling is not None and returned.ruling.decision == "deny"
    return begun or not (denied or returned.error.code == ToolDenied.code)
