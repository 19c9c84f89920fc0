"""Finish reasons of a reply: the words of every server, mapped to ours.

A word that is not in the table is read by its parts: providers invent new ones, and nearly all of them say what they
mean (``network_error``, ``content_filtered``, ``max_output_tokens``). One that says nothing is no ordinary end: the
reply may have been cut or withheld.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agentkit.errors import ModelBadResponse
from agentkit.messages import DECLINED, ModelReply, Part, StopReason, Text, ToolCall, Usage
from agentkit.models.adapter.json import as_text


class Fault(StrEnum):
    """An end that leaves no reply."""

    BROKEN = "broken"
    """The server gave up."""
    MISTAKE = "mistake"
    """The model called a tool in a form that the server could not read, or in a way that it does not allow."""


End = StopReason | Fault

_ENDS: tuple[tuple[End, str], ...] = (
    (
        StopReason.END,
        "null none stop eos eos_token end_turn stop_sequence stop_token complete completed done",
    ),
    (StopReason.TOOL_CALLS, "tool_calls tool_call tool_use function_call function_calls"),
    (StopReason.LENGTH, "length max_tokens max_output_tokens max_completion_tokens model_length token_limit"),
    (StopReason.LENGTH, "model_context_window_exceeded"),
    (StopReason.REFUSED, "refusal"),
    (
        StopReason.FILTERED,
        "content_filter content_filtered sensitive safety recitation blocklist spii language",
    ),
    (
        StopReason.FILTERED,
        "prohibited_content model_armor guardrail_intervened image_safety image_recitation",
    ),
    (StopReason.FILTERED, "image_prohibited_content"),
    (StopReason.PAUSED, "pause_turn"),
    (
        Fault.BROKEN,
        "error abort aborted cancelled canceled failed timeout network_error insufficient_system_resource",
    ),
    (Fault.BROKEN, "malformed_response missing_thought_signature other image_other no_image"),
    (Fault.MISTAKE, "malformed_function_call malformed_tool_call malformed_tool_use malformed_model_output"),
    (Fault.MISTAKE, "unexpected_tool_call too_many_tool_calls tool_use_failed"),
)
_WORDS: dict[str, End] = {"": StopReason.END, **{word: end for end, words in _ENDS for word in words.split()}}
"""Words of OpenAI, Azure, Mistral, DeepSeek, z.ai, vLLM, OpenRouter, Anthropic, Bedrock and Gemini, of which some come
through the OpenAI wire of a gateway."""

_WITHHELD = (
    "filter|safety|unsafe|sensitiv|block|policy|prohibit|moderat|recitation|guardrail|violat|copyright|harm"
)
_CUT = "length|max_?(new_|output_|completion_)?tokens?|token_?(limit|budget)|context|truncat|too_long"
_GAVE_UP = (
    "error|fail|abort|cancel|interrupt|time_?out|network|resource|unavailab|overload|incomplete|unfinished"
)
_BROKE_OFF = "disconnect|preempt|exception|crash|kill|evict"
_ENDED = "(^|_)(stop(ped)?|eos|eot|end|ended|complete|completed|done|finish|finished|success)(_|$)"
_PARTS: tuple[tuple[str, End], ...] = (
    ("malformed|invalid.*(call|tool)|(call|tool).*invalid", Fault.MISTAKE),
    (_WITHHELD, StopReason.FILTERED),
    ("refus|declin", StopReason.REFUSED),
    (_CUT, StopReason.LENGTH),
    (f"{_GAVE_UP}|{_BROKE_OFF}", Fault.BROKEN),
    ("tool|function", StopReason.TOOL_CALLS),
    (_ENDED, StopReason.END),
)


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a reply ended.

    Attributes:
        end: as one of our reasons.
        word: the server's own.
    """

    end: End
    word: str


def ending_of(finish_reason: object) -> Ending:
    """What a server's word for the end of a reply means."""
    word = re.sub(r"[^\w .:-]", "?", as_text(finish_reason).strip(), flags=re.ASCII)[:80]
    known = (
        re.sub(r"[\s-]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word))
        .lower()
        .removeprefix("finish_reason_")
    )
    if known in _WORDS:
        return Ending(_WORDS[known], word)
    # what says nothing is not an ordinary end
    return Ending(next((end for part, end in _PARTS if re.search(part, known)), StopReason.UNFINISHED), word)


def is_withheld(finish_reason: object) -> bool:
    """Whether a reply that ends so may have nothing in it: it was declined, withheld, or cut before its first word."""
    return ending_of(finish_reason).end in {StopReason.REFUSED, StopReason.FILTERED, StopReason.LENGTH}


NO_CALLS = "You announced a tool call, but there is none in your reply. Call a tool, or answer."


def problem_with(ending: Ending) -> str | None:
    """What the model is told of an end that leaves nothing to act on; ``None`` where it is in order."""
    if ending.end is Fault.MISTAKE:
        return f"Your tool call could not be read ({ending.word}). Call a tool by its exact name, with a JSON object."
    if ending.end is not StopReason.UNFINISHED:
        return None
    return f"Your reply ended for a reason that is not known ({ending.word}), so it may not be whole."


def finished_reply(
    parts: Iterable[Part],
    *,
    finish_reason: object,
    refused: bool = False,
    usage: Usage,
    model: str,
    because: str = "",
) -> ModelReply:
    """The reply of these parts.

    Some servers say "stop" beside their tool calls, and some speak of calls beside a text. Of an end that nobody knows,
    calls that are whole are taken, and a text is not.

    Args:
        parts: of the reply.
        finish_reason: the server's word for its end.
        refused: the model has said that it will not answer.
        usage: what was used.
        model: ``provider:name``.
        because: why there is no answer, in the provider's words, where there is none.

    Raises:
        ModelBadResponse: the server says that it gave up.
    """
    kept = tuple(parts)
    calls = [part for part in kept if isinstance(part, ToolCall)]
    ending = ending_of(finish_reason)
    end = StopReason.REFUSED if refused else ending.end
    if end is Fault.BROKEN:
        raise ModelBadResponse(f"{model} broke off its reply ({ending.word})")
    problem = problem_with(Ending(end, ending.word))
    if calls and (end is StopReason.END or _are_whole(calls, ending)):
        end, problem = StopReason.TOOL_CALLS, None
    elif end is StopReason.TOOL_CALLS and not calls:
        if any(isinstance(part, Text) for part in kept):
            end = StopReason.END
        else:  # the model's own mistake: it is told so
            end, problem = StopReason.UNFINISHED, NO_CALLS
    if end is Fault.MISTAKE:
        kept, end = tuple(part for part in kept if part not in calls), StopReason.UNFINISHED
    reason = StopReason(end)
    declined = because if reason in DECLINED else ""
    return ModelReply(
        parts=kept, stop_reason=reason, usage=usage, model=model, problem=problem, declined_because=declined
    )


def _are_whole(calls: Sequence[ToolCall], ending: Ending) -> bool:
    """Whether calls may be taken as they are though the end is not an ordinary one."""
    is_open = ending.end is StopReason.UNFINISHED or (
        ending.end is Fault.MISTAKE and "malformed" not in ending.word.lower()
    )
    return is_open and all(call.invalid is None for call in calls)
