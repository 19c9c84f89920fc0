"""History of a run for policies: the labels of the data that it has seen, the calls that it has made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from agentkit.attachments import split_input
from agentkit.errors import BadArguments, ToolDenied, UnknownTool
from agentkit.messages import ToolCall
from agentkit.ports import Behind, behind_nothing
from agentkit.transcript.steps import (
    ApprovalAsked,
    ApprovalGiven,
    ModelReplied,
    Recalled,
    RunStarted,
    ToolReturned,
    ToolStarted,
    Transcript,
    expiry,
    without_withdrawn,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What a run has seen. A label never goes away: not with a summary, and not with a retry.

    Attributes:
        untrusted: words that somebody else may have written: results of tools, files that were handed in, memory,
            earlier turns.
        private: data that the operator has declared to be private.
    """

    untrusted: bool = False
    private: bool = False


def labels_of(
    transcript: Transcript,
    *,
    is_trusted: Callable[[str], bool],
    is_private: Callable[[str], bool],
    behind: Behind = behind_nothing,
) -> Labels:
    """What a run with this transcript has seen. Pure.

    An agent whose tools read private data may have kept some of it: what it recalls, and what was said in earlier
    turns, counts as private then. Whoever calls this has such tools.

    Args:
        transcript: all its steps, those that were summarised included.
        is_trusted: whether the results of the tool of this name are our own words.
        is_private: whether they are private.
        behind: tells what a call only passes on; its names count, too.
    """
    untrusted = private = False
    known: dict[str, str] = {}
    asked: dict[str, ApprovalAsked] = {}
    for recorded in transcript:
        if untrusted and private:
            break
        match recorded.step:
            case RunStarted(earlier=earlier, input=given):
                private = private or earlier > 0
                untrusted = untrusted or earlier > 0 or bool(split_input(given)[1])
            case Recalled(notes=notes) if notes:
                untrusted = private = True
            case ModelReplied() as reply:
                _note(known, reply.tool_calls, behind)
            case ApprovalAsked() as question:
                asked[question.approval_id] = question
            case ApprovalGiven(approval_id=id_, arguments=given) if given is not None and id_ in asked:
                changed = ToolCall(id=asked[id_].call_id, name=asked[id_].tool, arguments=given)
                _note(known, [changed], behind)
            case ToolReturned(ruling=ruling) as step if ruling is None or ruling.decision == "allow":
                names = {step.tool, known.get(step.call_id, step.tool)}
                untrusted = untrusted or not any(map(is_trusted, names))
                private = private or any(map(is_private, names))
            case _:
                pass
    return Labels(untrusted=untrusted, private=private)


def _note(known: dict[str, str], calls: Iterable[ToolCall], behind: Behind) -> None:
    """The name of what is behind each of these calls."""
    for call in calls:
        passed_on = behind(call)
        if passed_on is not None:
            known[call.id] = passed_on.name


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
