"""Chat Completions, as pure functions: a request as its JSON body, a JSON body as a reply.

The wire is the one of OpenAI (``POST /v1/chat/completions``) as its many compatible servers speak it: what they leave
out, repeat or send in another shape is accepted where its meaning is certain and refused where it is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from agentkit.errors import ContentRefused, ModelBadResponse
from agentkit.messages import (
    AssistantMessage,
    Attachment,
    JsonObject,
    Message,
    ModelReply,
    ModelRequest,
    Opaque,
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
from agentkit.models.adapter.body import merged
from agentkit.models.adapter.call_ids import CallIds
from agentkit.models.adapter.dialect import Dialect, model_name
from agentkit.models.adapter.finish_reasons import ending_of, finished_reply
from agentkit.models.adapter.json import (
    CallDraft,
    as_data_url,
    as_list,
    as_object,
    as_plain_text,
    as_text,
    dump_json,
    mend,
    mended,
    not_taken,
    safe_name,
    sent_arguments,
    tool_calls,
)
from agentkit.models.adapter.opaque_data import issued, opaque, own
from agentkit.models.adapter.output_tool import output_tool
from agentkit.models.adapter.reply_parts import of_chat
from agentkit.models.adapter.tool_images import apart
from agentkit.models.adapter.turns import answerable
from agentkit.models.adapter.unsupported_settings import sampling
from agentkit.models.adapter.usage import openai_usage

REASONING_FIELDS = ("reasoning_content", "reasoning")
"""Where compatible servers put the model's reasoning; a message is sent back with the field it came with."""


_FIELD, _DETAILS = "openai_field", "openai_details"  # the keys in Reasoning.data
_CALL, _MESSAGE = "openai_call", "openai_message"  # the keys in ToolCall.data and Opaque.data

KEPT_OF_A_CALL = ("extra_content", "provider_specific_fields", "thought_signature")
"""Fields of a call that servers want back: Google's, and those of gateways."""
KEPT_OF_A_MESSAGE = ("extra_content", "provider_specific_fields", "thinking_blocks")

NO_SIGNATURE = "skip_thought_signature_validator"
"""What Google asks for in the place of the signature of a call that another model has made."""
TOOL_CHOICES = frozenset({"auto", "required", "none"})
_BOUNDS = ("max_tokens", "max_completion_tokens")


# --- the request -------------------------------------------------------------------------------------------------


def encode_request(request: ModelRequest, dialect: Dialect, *, stream: bool) -> bytes:
    """The JSON body of ``request``.

    ``output_schema`` is sent as a ``json_schema`` response format that is not strict: the strict mode takes only
    schemas in which every object is closed and every property required, which few output types are.

    Raises:
        UsageError: the request holds something that JSON cannot express.
    """
    body: dict[str, Any] = {"model": dialect.model, "messages": list(_messages(request, dialect))}
    if dialect.marks_caches and (request.tools or len(request.messages) > 1):
        _mark_for_the_cache(body["messages"])
    if dialect.has_cache_keys:
        body["prompt_cache_key"] = cache_key(request)
    if request.tools:
        body["tools"] = [_tool(spec) for spec in request.tools]
    if request.output_schema is not None:
        schema = {"name": "output", "schema": output_tool(request.output_schema).schema, "strict": False}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    body.update(encoded_settings(request, dialect))
    if stream:
        body["stream"] = True
        if dialect.stream_options:
            body["stream_options"] = {"include_usage": True}
    return dump_json(merged(body, dialect.more)).encode()


def _mark_for_the_cache(messages: list[dict[str, Any]]) -> None:
    """Claude caches what stands before a mark: the tools and instructions, and the conversation so far."""
    for message in (messages[0], messages[-1]):
        content = message["content"]
        if isinstance(content, str) and content and message["role"] != "assistant":
            message["content"] = [{"type": "text", "text": content, "cache_control": {"type": "ephemeral"}}]


def cache_key(request: ModelRequest) -> str:
    """The same for requests that begin in the same way, so that they reach the machine that has this in its cache."""
    begins = [request.instructions, *((tool.name, tool.description) for tool in request.tools)]
    return hashlib.sha256(json.dumps(begins).encode()).hexdigest()[:32]


def encoded_settings(request: ModelRequest, dialect: Dialect) -> dict[str, Any]:
    """Return the fields of a request that come from an agent's settings.

    Raises:
        UnsupportedSetting: the model does not take one.
    """
    found: dict[str, Any] = {
        "stop": list(request.stop) or None,
        next(
            (name for name in _BOUNDS if name in dialect.more), dialect.max_tokens_field
        ): request.max_tokens,
        **sampling(request, dialect.name, taken=dialect.takes_sampling),
        "random_seed" if dialect.is_mistral else "seed": request.seed,
    }
    if request.reasoning_effort is not None:
        found |= (
            {"reasoning": {"effort": request.reasoning_effort}}
            if dialect.routed
            else {"reasoning_effort": request.reasoning_effort}
        )
    if request.tool_choice is not None and request.tools:
        choice = request.tool_choice
        named = {"type": "function", "function": {"name": safe_name(choice)}}
        found["tool_choice"] = choice if choice in TOOL_CHOICES else named
    return {name: value for name, value in found.items() if value is not None}


def _tool(spec: ToolSpec) -> dict[str, Any]:
    function = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", "function": function}


def _messages(request: ModelRequest, dialect: Dialect) -> Iterator[dict[str, Any]]:
    if request.instructions:
        yield {"role": "system", "content": request.instructions}
    ids = CallIds(dialect.id_rule)
    said = list(answerable(request.messages, dialect.issuer))
    for message in apart(said, ids.of, provider=dialect.provider):
        yield _message(message, dialect, ids)


def _message(message: Message, dialect: Dialect, ids: CallIds) -> dict[str, Any]:
    match message:
        case UserMessage(text=text, attachments=()):
            return {"role": "user", "content": text}
        case UserMessage(text=text, attachments=attachments):
            shown = [_attachment(each, dialect) for each in attachments]
            return {"role": "user", "content": [*shown, {"type": "text", "text": text}]}
        case ToolMessage(call_id=call_id, content=content, is_error=is_error):
            # The wire has no mark for a failed call; the model must be able to tell.
            return {
                "role": "tool",
                "tool_call_id": ids.of(call_id),
                "content": f"Error: {content}" if is_error else content,
            }
        case AssistantMessage(parts=parts):
            return _assistant(parts, dialect, ids)


def _attachment(attachment: Attachment, dialect: Dialect) -> dict[str, Any]:
    words = as_plain_text(attachment)
    if words is not None:
        return {"type": "text", "text": words}
    if attachment.is_image:
        return {"type": "image_url", "image_url": {"url": attachment.url or as_data_url(attachment)}}
    if attachment.data is None and not dialect.routed:
        raise not_taken(dialect.name, attachment)
    file = {"filename": attachment.name or "document", "file_data": attachment.url or as_data_url(attachment)}
    return {"type": "file", "file": file}


def _assistant(parts: Sequence[Part], dialect: Dialect, ids: CallIds) -> dict[str, Any]:
    calls = [_call(part, dialect, ids) for part in parts if isinstance(part, ToolCall)]
    text = "".join(part.text for part in parts if isinstance(part, Text))
    said: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else "")}
    if calls:
        said["tool_calls"] = calls
    for part in parts:  # DeepSeek refuses a conversation from which the reasoning before a call is missing
        if isinstance(part, Reasoning):
            _think(said, part.text, own(part, dialect.issuer))
        elif isinstance(part, Opaque):
            said.update(as_object(own(part, dialect.issuer).get(_MESSAGE)))
    if calls and dialect.wants_reasoning:
        said.setdefault(REASONING_FIELDS[0], " ")
    if calls and dialect.wants_signatures and "extra_content" not in calls[0]:
        calls[0]["extra_content"] = {"google": {"thought_signature": NO_SIGNATURE}}
    if said == {"role": "assistant", "content": ""}:
        said["content"] = "(empty)"  # Mistral, and Claude behind gateways, refuse a turn without a word
    return said


def _think(said: dict[str, Any], text: str, data: Mapping[str, Any]) -> None:
    name, details = data.get(_FIELD), data.get(_DETAILS)
    if details:  # OpenRouter's, of which the text is only the readable part
        said["reasoning_details"] = [*said.get("reasoning_details", ()), *as_list(details)]
    elif isinstance(name, str) and name in REASONING_FIELDS:
        said[name] = said.get(name, "") + text


def _call(call: ToolCall, dialect: Dialect, ids: CallIds) -> dict[str, Any]:
    function = {"name": safe_name(call.name), "arguments": dump_json(sent_arguments(call))}
    kept = as_object(own(call, dialect.issuer).get(_CALL))
    return {"id": ids.of(call.id), "type": "function", "function": function, **kept}


# --- the reply ---------------------------------------------------------------------------------------------------


def decode_reply(body: Mapping[str, Any], dialect: Dialect) -> ModelReply:
    """The reply in the body of a completion that was not streamed.

    Raises:
        ModelBadResponse: it is no completion.
    """
    choices = as_list(body.get("choices"))
    choice = as_object(choices[0] if choices else None)
    message = as_object(choice.get("message"))
    if not message:
        return _without_message(choice, body, dialect)
    parts: list[Part] = []
    name, reasoning = reasoning_of(message)
    details = details_of(message)
    pieces = list(content_of(message.get("content")))
    thought = reasoning + "".join(text for is_thought, text in pieces if is_thought)
    if (
        thought or details or (name and as_list(message.get("tool_calls")))
    ):  # DeepSeek wants it back with its calls
        parts.append(reasoning_part(dialect, name, thought, details))
    refusal = as_text(message.get("refusal"))
    said = "".join(text for is_thought, text in pieces if not is_thought) + refusal
    if text := mend(said or as_text(as_object(message.get("audio")).get("transcript"))):
        parts.append(Text(text=text))
    drafts = [_draft(raw, dialect) for raw in raw_calls(message)]
    parts.extend(tool_calls([draft for draft in drafts if not draft.is_empty]))
    parts.extend(of_chat(message, body))
    parts.extend(kept_of_message(message, dialect))
    return finished_reply(
        parts,
        finish_reason=choice.get("finish_reason"),
        refused=bool(refusal),
        usage=usage_of(body, dialect),
        model=model_name(body, dialect),
        because=mend(refusal) or filtered_because(choice.get("content_filter_results")),
    )


def _without_message(choice: Mapping[str, Any], body: Mapping[str, Any], dialect: Dialect) -> ModelReply:
    """The reply of a choice that says only why it has none: Azure sends none where its filter has withheld it."""
    reason = choice.get("finish_reason")
    if is_filtered(body.get("prompt_filter_results")) and not reason:
        raise prompt_refused(dialect.name, body.get("prompt_filter_results"))
    if is_filtered(choice.get("content_filter_results")):
        reason = "content_filter"
    if ending_of(reason).end in {StopReason.END, StopReason.UNFINISHED}:
        raise ModelBadResponse(f"{dialect.name} answered without a message")
    usage, model = usage_of(body, dialect), model_name(body, dialect)
    because = filtered_because(choice.get("content_filter_results"))
    return finished_reply((), finish_reason=reason, usage=usage, model=model, because=because)


def prompt_refused(model: str, results: object) -> ContentRefused:
    """Return the error for a request that Azure's filter has withheld."""
    because = filtered_because(results)
    return ContentRefused(
        f"{model}: the provider's filter declined the request{f' ({because})' if because else ''}"
    )


def filtered_because(results: object) -> str:
    """Return the categories that Azure's filter results name as withheld."""
    return ", ".join(dict.fromkeys(_filtered(results)))


def _filtered(results: object) -> Iterator[str]:
    for each in as_list(results):
        yield from _filtered(each)
    for name, value in as_object(results).items():
        if as_object(value).get("filtered") is True:
            yield name[:40]
        else:
            yield from _filtered(value)


def is_filtered(results: object) -> bool:
    """Whether Azure's filter results say of anything that it was withheld."""
    found = as_object(results)
    return found.get("filtered") is True or any(map(is_filtered, [*as_list(results), *found.values()]))


def reasoning_of(message: Mapping[str, Any]) -> tuple[str, str]:
    """Which field of a message (or delta) holds reasoning, and the reasoning; a server may send it in both."""
    present = [name for name in REASONING_FIELDS if isinstance(message.get(name), str)]
    name = next((name for name in present if message[name]), present[0] if present else "")
    return name, as_text(message.get(name))


def details_of(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The pieces of reasoning that OpenRouter wants back as they are: encrypted, signed."""
    return [detail for detail in map(as_object, as_list(message.get("reasoning_details"))) if detail]


def reasoning_part(
    dialect: Dialect, name: str, text: str, details: Sequence[Mapping[str, Any]] = ()
) -> Reasoning:
    """Reasoning that goes back in the field it came in."""
    data = issued(dialect.issuer, **{_FIELD: name, _DETAILS: mended(list(details))})
    return Reasoning(text=mend(text), data=data)


def kept_of_call(raw: Mapping[str, Any], dialect: Dialect) -> JsonObject | None:
    """What the server wants back with a call."""
    return issued(dialect.issuer, **{_CALL: kept(raw, KEPT_OF_A_CALL)})


def kept_of_message(message: Mapping[str, Any], dialect: Dialect) -> Iterator[Opaque]:
    """What the server wants back with a message."""
    return opaque(issued(dialect.issuer, **{_MESSAGE: kept(message, KEPT_OF_A_MESSAGE)}))


def kept(found: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """These fields, where there is something in them."""
    return {name: mended(found[name]) for name in names if found.get(name)}


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
    """The tool calls of a message (or delta), the one of the older ``function_call`` form included.

    Some servers fill every field of a message: a call that names nothing and holds nothing is none.
    """
    calls = [as_object(raw) for raw in as_list(message.get("tool_calls"))]
    calls.append({"function": as_object(message.get("function_call"))})
    return [call for call in calls if id_of(call) or any(as_object(call.get("function")).values())]


def arguments_of(function: Mapping[str, Any]) -> str:
    """The arguments as text; some servers send the object itself."""
    arguments = function.get("arguments")
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return json.dumps(arguments)


def _draft(raw: Mapping[str, Any], dialect: Dialect) -> CallDraft:
    function = as_object(raw.get("function"))
    return CallDraft(
        id=id_of(raw),
        name=as_text(function.get("name")),
        arguments=arguments_of(function),
        data=kept_of_call(raw, dialect),
    )


def id_of(raw: Mapping[str, Any]) -> str:
    """The id of a call; empty where it has none."""
    found = raw.get("id")
    return mend(str(found)) if isinstance(found, str | int) else ""


def usage_of(body: Mapping[str, Any], dialect: Dialect) -> Usage:
    """What the completion has used, as far as the server says."""
    usage = as_object(body.get("usage")) or as_object(as_object(body.get("x_groq")).get("usage"))
    choices = body.get("choices")
    if not usage and isinstance(choices, list) and choices:  # streams of Moonshot
        usage = as_object(as_object(cast("list[object]", choices)[0]).get("usage"))
    return openai_usage(usage, routed=dialect.routed)
