"""Chat Completions, as pure functions: a request as its JSON body, a JSON body as a reply.

The wire is the one of OpenAI (``POST /v1/chat/completions``) as its many compatible servers speak it: what they leave
out, repeat or send in another shape is accepted where its meaning is certain and refused where it is not.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from agentkit.errors import ModelBadResponse, UsageError
from agentkit.messages import (
    AssistantMessage,
    JsonObject,
    Message,
    ModelReply,
    ModelRequest,
    Part,
    Reasoning,
    StopReason,
    Text,
    ToolCall,
    ToolMessage,
    ToolSpec,
    Usage,
    UserMessage,
)

REASONING_FIELDS = ("reasoning_content", "reasoning")
"""Where compatible servers put the model's reasoning; a message is sent back with the field it came with."""

_FIELD = "openai_field"  # the key in Reasoning.data
_BAD_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one endpoint wants to be spoken to.

    Attributes:
        provider: the part before the colon in the names of its models.
        model: the model's name there.
        official: it is OpenAI's own, where ``max_tokens`` is replaced by ``max_completion_tokens``.
    """

    provider: str
    model: str
    official: bool


# --- the request -------------------------------------------------------------------------------------------------


def encode_request(request: ModelRequest, dialect: Dialect, *, stream: bool) -> bytes:
    """The JSON body of ``request``.

    ``output_schema`` is sent as a ``json_schema`` response format that is not strict: the strict mode takes only
    schemas in which every object is closed and every property required, which few output types are.

    Raises:
        UsageError: the request holds something that JSON cannot express.
    """
    body: dict[str, Any] = {"model": dialect.model, "messages": list(_messages(request))}
    if request.tools:
        body["tools"] = [_tool(spec) for spec in request.tools]
    if request.output_schema is not None:
        schema = {"name": "output", "schema": request.output_schema, "strict": False}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.stop:
        body["stop"] = list(request.stop)
    if request.max_tokens is not None:
        body["max_completion_tokens" if dialect.official else "max_tokens"] = request.max_tokens
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return _dump(body).encode()


def _dump(value: object) -> str:
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the request holds what JSON cannot express ({type(error).__name__})") from None


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, object]", value))
    if isinstance(value, Sequence):
        return list(cast("Sequence[object]", value))
    raise TypeError(type(value).__name__)


def _tool(spec: ToolSpec) -> dict[str, Any]:
    function = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", "function": function}


def _messages(request: ModelRequest) -> Iterator[dict[str, Any]]:
    if request.instructions:
        yield {"role": "system", "content": request.instructions}
    for message in request.messages:
        yield _message(message)


def _message(message: Message) -> dict[str, Any]:
    match message:
        case UserMessage(text=text):
            return {"role": "user", "content": text}
        case ToolMessage(call_id=call_id, content=content, is_error=is_error):
            # The wire has no mark for a failed call; the model must be able to tell.
            return {
                "role": "tool",
                "tool_call_id": call_id,
                "content": f"Error: {content}" if is_error else content,
            }
        case AssistantMessage(parts=parts):
            return _assistant(parts)


def _assistant(parts: Sequence[Part]) -> dict[str, Any]:
    calls = [_call(part) for part in parts if isinstance(part, ToolCall)]
    text = "".join(part.text for part in parts if isinstance(part, Text))
    said: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else "")}
    if calls:
        said["tool_calls"] = calls
    for part in parts:  # DeepSeek refuses a conversation from which the reasoning before a call is missing
        field = (part.data or {}).get(_FIELD) if isinstance(part, Reasoning) else None
        if isinstance(part, Reasoning) and field in REASONING_FIELDS:
            said[str(field)] = said.get(str(field), "") + part.text
    return said


def _call(call: ToolCall) -> dict[str, Any]:
    # Servers that fill in a chat template parse the arguments of past calls, so even bad ones are sent as an object.
    arguments = call.arguments if call.invalid is None else {"invalid_json": call.invalid}
    name = _BAD_IN_A_NAME.sub("_", call.name)[
        :64
    ]  # a name the model made up must not spoil all later requests
    return {"id": call.id, "type": "function", "function": {"name": name, "arguments": _dump(arguments)}}


# --- JSON from outside -------------------------------------------------------------------------------------------


def load_json(text: str | bytes) -> Any:
    """Strict JSON: no NaN or Infinity, which could not be stored.

    Raises:
        ValueError: it is not JSON. A ``JSONDecodeError`` holds the whole text: do not chain it.
    """
    try:
        return _DECODER.decode(text if isinstance(text, str) else text.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)  # json.loads would make one for each event


def as_object(value: object) -> Mapping[str, Any]:
    """``value`` where it is a JSON object, else an empty one."""
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def as_list(value: object) -> Sequence[Any]:
    """``value`` where it is a JSON array, else an empty one."""
    return cast("Sequence[Any]", value) if isinstance(value, list) else ()


def as_text(value: object) -> str:
    """``value`` where it is a text, else an empty one."""
    return value if isinstance(value, str) else ""


def mend(text: str) -> str:
    """``text`` without halves of surrogate pairs, which no UTF-8 can hold: pairs are joined, lone halves replaced."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


# --- the reply ---------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class CallDraft:
    """A tool call as it came, before it is checked."""

    id: str
    name: str
    arguments: str


def decode_reply(body: Mapping[str, Any], dialect: Dialect) -> ModelReply:
    """The reply in the body of a completion that was not streamed.

    Raises:
        ModelBadResponse: it is no completion.
    """
    choices = as_list(body.get("choices"))
    choice = as_object(choices[0] if choices else None)
    message = as_object(choice.get("message"))
    if not message:
        raise ModelBadResponse(f"{dialect.provider}:{dialect.model} answered without a message")
    parts: list[Part] = []
    field, reasoning = reasoning_of(message)
    pieces = list(content_of(message.get("content")))
    thought = reasoning + "".join(text for is_thought, text in pieces if is_thought)
    if field or thought:
        parts.append(reasoning_part(field, thought))
    refusal = as_text(message.get("refusal"))
    if text := mend("".join(text for is_thought, text in pieces if not is_thought) + refusal):
        parts.append(Text(text=text))
    parts.extend(tool_calls([_draft(raw) for raw in raw_calls(message)], dialect))
    return finished_reply(
        parts,
        finish_reason=choice.get("finish_reason"),
        refused=bool(refusal),
        usage=usage_of(body, dialect),
        model=model_name(body, dialect),
    )


def finished_reply(
    parts: Iterable[Part], *, finish_reason: object, refused: bool, usage: Usage, model: str
) -> ModelReply:
    """The reply of these parts.

    Raises:
        ModelBadResponse: the server says that it gave up, or speaks of tool calls and sends none.
    """
    kept = tuple(parts)
    calls = any(isinstance(part, ToolCall) for part in kept)
    reason = stop_reason(finish_reason, calls=calls, refused=refused)
    if reason is StopReason.TOOL_CALLS and not calls:
        if not any(isinstance(part, Text) for part in kept):
            raise ModelBadResponse(f"{model} announced tool calls and sent none")
        reason = StopReason.END
    if reason is None:
        raise ModelBadResponse(f"{model} broke off its reply")
    return ModelReply(parts=kept, stop_reason=reason, usage=usage, model=model)


def stop_reason(finish_reason: object, *, calls: bool, refused: bool) -> StopReason | None:
    """What ``finish_reason`` means; ``None`` where the server gave up.

    A word that nobody has heard of is an ordinary end: the reply is complete, or the server would have said so.
    """
    word = as_text(finish_reason).lower()
    if refused or word == "content_filter":
        return StopReason.REFUSED
    if word in {"length", "max_tokens"}:
        return StopReason.LENGTH
    if word in {"error", "abort"}:  # OpenRouter and vLLM
        return None
    # Some servers say "stop" beside their tool calls.
    return StopReason.TOOL_CALLS if calls or word in {"tool_calls", "function_call"} else StopReason.END


def reasoning_of(message: Mapping[str, Any]) -> tuple[str, str]:
    """Which field of a message (or delta) holds reasoning, and the reasoning; a server may send it in both."""
    present = [field for field in REASONING_FIELDS if isinstance(message.get(field), str)]
    field = next((field for field in present if message[field]), present[0] if present else "")
    return field, as_text(message.get(field))


def reasoning_part(field: str, text: str) -> Reasoning:
    """Reasoning that goes back to the same wire in the field it came in, and to no other provider's."""
    return Reasoning(text=mend(text), data={_FIELD: field} if field else None)


def content_of(content: object) -> Iterator[tuple[bool, str]]:
    """The pieces of a ``content``, which is a text, a list of typed parts, or null; true for those of reasoning."""
    if isinstance(content, str):
        yield False, content
    for part in as_list(content):
        if isinstance(part, str):
            yield False, part
        elif as_object(part).get("type") == "thinking":  # Mistral
            yield from ((True, text) for _, text in content_of(as_object(part).get("thinking")))
        else:
            yield False, as_text(as_object(part).get("text")) or as_text(as_object(part).get("refusal"))


def raw_calls(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The tool calls of a message (or delta), the one of the older ``function_call`` form included."""
    calls = [as_object(raw) for raw in as_list(message.get("tool_calls"))]
    if function := as_object(message.get("function_call")):
        calls.append({"function": function})
    return calls


def arguments_of(function: Mapping[str, Any]) -> str:
    """The arguments as text; some servers send the object itself."""
    arguments = function.get("arguments")
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return json.dumps(arguments)


def _draft(raw: Mapping[str, Any]) -> CallDraft:
    function = as_object(raw.get("function"))
    return CallDraft(id=id_of(raw), name=as_text(function.get("name")), arguments=arguments_of(function))


def id_of(raw: Mapping[str, Any]) -> str:
    """The id of a call; empty where it has none."""
    found = raw.get("id")
    return mend(str(found)) if isinstance(found, str | int) else ""


def tool_calls(drafts: Iterable[CallDraft], dialect: Dialect) -> Iterator[ToolCall]:
    """The calls, with ids that are unique in the reply.

    Raises:
        ModelBadResponse: a call has no name.
    """
    taken: set[str] = set()
    for draft in drafts:
        if not draft.name:
            raise ModelBadResponse(f"{dialect.provider}:{dialect.model} sent a tool call without a name")
        call_id = draft.id if draft.id and draft.id not in taken else f"call_{uuid.uuid4().hex}"
        taken.add(call_id)
        arguments = _arguments(draft.arguments)
        if arguments is None:
            yield ToolCall(id=call_id, name=mend(draft.name), invalid=mend(draft.arguments))
        else:
            yield ToolCall(id=call_id, name=mend(draft.name), arguments=arguments)


def _arguments(raw: str) -> JsonObject | None:
    """The arguments; ``None`` where they are no JSON object. No text at all is how some models say "none"."""
    if not raw.strip():
        return {}
    try:
        found = load_json(mend(raw))
        if "\\u" in raw:  # an escape may hide half a surrogate pair, which could not be stored
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return cast("JsonObject", found) if isinstance(found, dict) else None


def usage_of(body: Mapping[str, Any], dialect: Dialect) -> Usage:
    """What the completion has used; zeros where the server does not say."""
    usage = as_object(body.get("usage"))
    if not usage:
        return Usage()
    read, written = (
        as_object(usage.get("prompt_tokens_details")),
        as_object(usage.get("completion_tokens_details")),
    )
    cost = usage.get("cost") if dialect.provider == "openrouter" else None  # elsewhere in whatever unit
    return Usage(
        input_tokens=_count(usage.get("prompt_tokens")),
        output_tokens=_count(usage.get("completion_tokens")),
        cached_tokens=_count(
            read.get("cached_tokens") or usage.get("prompt_cache_hit_tokens")
        ),  # or DeepSeek's
        reasoning_tokens=_count(written.get("reasoning_tokens")),
        cost_usd=_amount(cost),
    )


def _amount(value: object) -> float | None:
    """A number that may be one: not below zero, finite, and not so large that arithmetic goes wrong."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value < 2**53 else None


def _count(value: object) -> int:
    return int(_amount(value) or 0)


def model_name(body: Mapping[str, Any], dialect: Dialect) -> str:
    """``provider:name`` of the model that answered, as far as the server says which one it was."""
    return f"{dialect.provider}:{mend(as_text(body.get('model')))[:200] or dialect.model}"
