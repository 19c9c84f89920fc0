"""What kinds of data a run has seen: a fold over its transcript."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agentkit.attachments import split_input
from agentkit.messages import ToolCall
from agentkit.ports import Behind, behind_nothing
from agentkit.transcript import (
    ApprovalAsked,
    ApprovalGiven,
    ModelReplied,
    Recalled,
    RunStarted,
    ToolReturned,
    Transcript,
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
