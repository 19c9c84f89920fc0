"""Model mistakes that a provider reports as errors: read as the reply that the model gave.

Groq, Ollama and others check the calls that their models write. What does not pass is an error of theirs, though the
next request would be in order; as a reply it goes back to the model, which corrects itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from agentkit.messages import ModelReply, Part, StopReason, Text, Usage
from agentkit.models.adapter.json import CallDraft, as_object, as_text, load_json, mend, tool_calls

_CODES = frozenset(
    {"tool_use_failed", "output_parse_failed", "json_validate_failed", "tool_call_parse_failed"}
)
_UNREADABLE = (
    r"(error|failed) (while )?(parsing|to parse) (the )?(tool[ _]?calls?|input at pos)"  # Ollama, llama.cpp
)
_UNMADE = r"failed to (call|generate) (a )?(function|tool|json)|model produced (an )?invalid"  # Groq, Cerebras, Bedrock
_SAID = re.compile(f"{_UNREADABLE}|{_UNMADE}", re.IGNORECASE)
_STATUSES = frozenset({200, 400, 422, 424, 500, 502})
_FUNCTION = re.compile(r"<function[=(\s]*\"?([\w.-]+)\"?\)?\s*>?\s*(\{.*?\})\s*(?:</?function>|$)", re.DOTALL)
_FENCE = re.compile(r"^\s*```(?:json)?\s*|\s*```\s*$|</?tool_calls?>|<\|[a-z_]+\|>")
_MALFORMED = (
    "Your tool call could not be read. Call a tool by its exact name, with arguments that fit its schema."
)
_MISFIT = "Your reply did not fit the schema that was asked for."


def mistaken_reply(
    error: Mapping[str, Any], status: int, *, said: Sequence[Part], usage: Usage, model: str
) -> ModelReply | None:
    """The reply that an error object tells of; ``None`` where it tells of something else.

    Args:
        error: the provider's error object.
        status: of the HTTP response.
        said: what of the reply had arrived before.
        usage: what was used, as far as the provider says.
        model: ``provider:name``.
    """
    code = as_text(error.get("code")).lower()
    wrote = error.get("failed_generation")
    is_mistake = code in _CODES or isinstance(wrote, str) or _SAID.search(as_text(error.get("message"))[:200])
    if not is_mistake or status not in _STATUSES:
        return None
    text = mend(as_text(wrote)).strip()
    drafts = [] if code == "json_validate_failed" else list(_calls_in(text))
    if drafts:
        parts = (*said, *tool_calls(drafts))
        return ModelReply(parts=parts, stop_reason=StopReason.TOOL_CALLS, usage=usage, model=model)
    parts = (*said, *((Text(text=text),) if text else ()))
    problem = _MALFORMED
    if code == "json_validate_failed":
        problem = _MISFIT
    return ModelReply(
        parts=parts, stop_reason=StopReason.UNFINISHED, usage=usage, model=model, problem=problem
    )


def _calls_in(text: str) -> Iterator[CallDraft]:
    """The calls in what a model wrote; none where it is not certain that all of it is calls."""
    found = list(_FUNCTION.finditer(text))
    if found and not _FUNCTION.sub("", text).strip():
        for call in found:
            yield CallDraft(id="", name=call[1], arguments=call[2])
        return
    calls = _loaded(_FENCE.sub("", text).strip())
    drafts = [_draft(as_object(call)) for call in calls]
    if all(drafts):
        yield from (draft for draft in drafts if draft is not None)


def _loaded(text: str) -> Sequence[Any]:
    try:
        found = load_json(text)
    except ValueError:
        return ()
    return cast("Sequence[Any]", found) if isinstance(found, list) else (found,)


def _draft(call: Mapping[str, Any]) -> CallDraft | None:
    inner = as_object(call.get("function")) or call
    name, arguments = as_text(inner.get("name")), inner.get("arguments", inner.get("parameters"))
    if not name or not isinstance(arguments, dict | str):
        return None
    return CallDraft(
        id="", name=name, arguments=arguments if isinstance(arguments, str) else json.dumps(arguments)
    )
