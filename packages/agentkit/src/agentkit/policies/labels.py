"""What kinds of data a run has seen: a fold over its transcript."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agentkit.attachments import split_input
from agentkit.transcript import Recalled, RunStarted, ToolReturned, Transcript


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
    transcript: Transcript, *, is_trusted: Callable[[str], bool], is_private: Callable[[str], bool]
) -> Labels:
    """What a run with this transcript has seen. Pure.

    An agent whose tools read private data may have kept some of it: what it recalls, and what was said in earlier
    turns, counts as private then. Whoever calls this has such tools.

    Args:
        transcript: all its steps, those that were summarised included.
        is_trusted: whether the results of the tool of this name are our own words.
        is_private: whether they are private.
    """
    untrusted = private = False
    for recorded in transcript:
        match recorded.step:
            case RunStarted(earlier=earlier, input=given):
                private = private or earlier > 0
                untrusted = untrusted or earlier > 0 or bool(split_input(given)[1])
            case Recalled(notes=notes) if notes:
                untrusted = private = True
            case ToolReturned(tool=tool, ruling=ruling) if ruling is None or ruling.decision == "allow":
                untrusted = untrusted or not is_trusted(tool)
                private = private or is_private(tool)
            case _:
                pass
    return Labels(untrusted=untrusted, private=private)
