"""Anthropic's Messages, as pure functions and state: a request as its fields, a body or events as a reply."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from agentkit.errors import ModelBadResponse
from agentkit.messages import (
    AssistantMessage,
    Attachment,
    Delta,
    JsonObject,
    Message,
    ModelReply,
    ModelRequest,
    Opaque,
    Part,
    Reasoning,
    ReasoningDelta,
    Source,
    Text,
    TextDelta,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentkit.models.adapter.body import merged
from agentkit.models.adapter.call_ids import ANTHROPIC, CallIds
from agentkit.models.adapter.dialect import Dialect, model_name
from agentkit.models.adapter.finish_reasons import finished_reply, is_withheld
from agentkit.models.adapter.json import (
    CallDraft,
    Halves,
    as_count,
    as_list,
    as_object,
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
from agentkit.models.adapter.output_tool import ABOUT, OutputTool, answered, output_tool
from agentkit.models.adapter.reply_parts import sources
from agentkit.models.adapter.tool_images import apart
from agentkit.models.adapter.turns import answerable
from agentkit.models.adapter.unsupported_settings import sampling, unsupported
from agentkit.models.adapter.usage import anthropic_usage
from agentkit.models.anthropic.output import native_schema

MAX_TOKENS = 16_384
"""Of a reply, where the request names no bound: the wire demands one, and every current model takes this."""

_BLOCK = "anthropic_block"  # the key in Reasoning.data and Opaque.data
_CITED, _CALL = "anthropic_citations", "anthropic_call"  # the keys in Text.data and ToolCall.data
_THOUGHTS = frozenset({"thinking", "redacted_thinking"})
_CHOICES = {"auto": "auto", "required": "any", "none": "none"}
_NEVER_FORCED = re.compile(r"fable|mythos|opus-5[-.][5-9](\D|$)|(opus|sonnet|haiku)-([6-9]|\d\d)(\D|$)")
_NO_SAMPLING = re.compile(
    r"fable|mythos|(opus|sonnet|haiku)-(4[-.][7-9]|[5-9]|\d\d)(\D|$)|claude-(4[-.][7-9]|[5-9]|\d\d)(\D|$)"
)
"""Models that take no temperature but the default one: all since Claude 4.7."""
_MARKABLE = frozenset({"text", "tool_use", "tool_result", "image", "document", None})
_CACHED: JsonObject = {"type": "ephemeral"}


# --- the request -------------------------------------------------------------------------------------------------


def encode_request(request: ModelRequest, dialect: Dialect) -> dict[str, Any]:
    """The fields of ``request``.

    Where the conversation is likely to go on (there are tools, or it has gone on), the provider is told to cache what
    does not change, instructions and tools, and the conversation so far.

    Raises:
        ModelBadRequest: an attachment has no place in the wire.
    """
    goes_on = bool(request.tools) or any(isinstance(each, AssistantMessage) for each in request.messages)
    body: dict[str, Any] = {"model": dialect.model, "max_tokens": request.max_tokens or MAX_TOKENS}
    body["messages"] = _messages(request.messages, dialect)
    if request.instructions:
        body["system"] = [{"type": "text", "text": request.instructions}]
    tools = [_tool(spec.name, spec.description, spec.parameters) for spec in request.tools]
    if (output := output_for(request)) is not None:
        tools.append(_tool(output.name, ABOUT, output.schema))
        body["tool_choice"] = {"type": "any" if _may_be_forced(dialect) else "auto"}
    elif request.output_schema is not None:
        schema = native_schema(request.output_schema)
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    if tools:
        body["tools"] = tools
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    if goes_on:
        _mark_for_the_cache(body)
    return merged(merged(body, encoded_settings(request, dialect)), dialect.more)


def encoded_settings(request: ModelRequest, dialect: Dialect) -> dict[str, Any]:
    """Return the fields of a request that come from an agent's settings.

    Raises:
        UnsupportedSetting: the model, or the wire, has no place for one.
    """
    name, effort, choice = (
        dialect.name,
        request.reasoning_effort,
        request.tool_choice if request.tools else None,
    )
    if request.seed is not None:
        raise unsupported(name, "seed")
    if (request.temperature or 0) > 1:
        raise unsupported(name, "temperature", "above 1")
    if request.temperature not in {None, 1} and _thinks(dialect):
        raise unsupported(name, "temperature", "beside the thinking in the endpoint's body")
    if effort in {"none", "minimal"}:
        raise unsupported(name, "reasoning_effort", f"with the value {effort}")
    if choice not in {None, "auto", "none"} and not _may_be_forced(dialect):
        raise unsupported(name, "tool_choice", f"with the value {choice} (only auto and none)")
    found: dict[str, Any] = {**sampling(request, name, taken=_NO_SAMPLING.search(dialect.model) is None)}
    if effort is not None:
        found["output_config"] = {"effort": effort}
    if choice is not None:
        named = {"type": "tool", "name": safe_name(choice)}
        found["tool_choice"] = {"type": _CHOICES[choice]} if choice in _CHOICES else named
    return found


def _may_be_forced(dialect: Dialect) -> bool:
    """Whether it may be made to call a tool: one that thinks may not, nor may the newest ones."""
    return not _thinks(dialect) and _NEVER_FORCED.search(dialect.model) is None


def _thinks(dialect: Dialect) -> bool:
    return as_text(as_object(dialect.more.get("thinking")).get("type")) not in {"", "disabled"}


def output_for(request: ModelRequest) -> OutputTool | None:
    """The tool that takes the output that is asked for, where the wire has no words for it."""
    schema = request.output_schema
    if schema is None or native_schema(schema) is not None:
        return None
    return output_tool(schema, (spec.name for spec in request.tools))


def _tool(name: str, description: str, schema: JsonObject) -> dict[str, Any]:
    return {"name": name, "description": description, "input_schema": schema}


def _mark_for_the_cache(body: dict[str, Any]) -> None:
    """Tools come first, then instructions, then the conversation: a mark covers all that is before it."""
    fixed = body.get("system") or body.get("tools")
    blocks = body["messages"][-1]["content"] if body["messages"] else ()
    for marked in (fixed, blocks):
        if marked and marked[-1].get("type") in _MARKABLE:
            marked[-1] = {**marked[-1], "cache_control": _CACHED}


def _messages(messages: Sequence[Message], dialect: Dialect) -> list[dict[str, Any]]:
    """Messages of one side that follow each other are one: results of tools must all be in the next."""
    said: list[dict[str, Any]] = []
    ids = CallIds(ANTHROPIC)
    shown = apart(list(answerable(messages, dialect.issuer)), takes=lambda _: True, provider=dialect.provider)
    for message in shown:
        role = "assistant" if isinstance(message, AssistantMessage) else "user"
        blocks = list(_blocks(message, dialect, ids))
        while role == "assistant" and blocks and blocks[-1]["type"] in _THOUGHTS:
            blocks.pop()  # a thought that nothing follows is refused
        if role == "user" and said and _waits_for_its_tool(said[-1]):
            continue  # a paused turn is sent back as it is, and goes on by itself
        if said and said[-1]["role"] == role:
            said[-1]["content"].extend(blocks)
        elif blocks:  # a reply without a word is refused
            said.append({"role": role, "content": blocks})
    return said


def _waits_for_its_tool(message: Mapping[str, Any]) -> bool:
    """Whether a turn was paused before a tool of the provider's own had answered."""
    blocks = as_list(message["content"])
    last = as_object(blocks[-1] if blocks else None)
    return message["role"] == "assistant" and as_text(last.get("type")).endswith("_tool_use") and "id" in last


def _blocks(message: Message, dialect: Dialect, ids: CallIds) -> Iterator[dict[str, Any]]:
    match message:
        case UserMessage(text=text, attachments=attachments):
            yield from (_attachment(each, dialect) for each in attachments)
            if text.strip() or not attachments:
                yield {"type": "text", "text": text if text.strip() else "(no text)"}
        case ToolMessage(call_id=call_id, content=content, is_error=is_error, attachments=attachments):
            failed = {"is_error": True} if is_error else {}
            told: Any = content
            if attachments:
                shown = [_attachment(each, dialect) for each in attachments]
                told = [{"type": "text", "text": content if content.strip() else "(no text)"}, *shown]
            yield {"type": "tool_result", "tool_use_id": ids.of(call_id), "content": told, **failed}
        case AssistantMessage(parts=parts):
            for part in parts:
                if not isinstance(part, Source | Attachment):
                    yield from _said(part, own(part, dialect.issuer), ids)


def _said(
    part: Text | Reasoning | ToolCall | Opaque, data: Mapping[str, Any], ids: CallIds
) -> Iterator[dict[str, Any]]:
    match part:
        case Reasoning() | Opaque():
            if block := as_object(data.get(_BLOCK)):
                yield dict(block)
        case ToolCall():
            kept = data.get(_CALL)
            name, given = safe_name(part.name), json.loads(dump_json(sent_arguments(part)))
            call_id = ids.of(part.id, own=as_object(kept).get("id") == part.id)
            yield {"type": "tool_use", **as_object(kept), "id": call_id, "name": name, "input": given}
        case Text(text=text):
            if text.strip():  # a blank one is refused
                cited = {"citations": data[_CITED]} if data.get(_CITED) else {}
                yield {"type": "text", "text": text, **cited}


def _attachment(attachment: Attachment, dialect: Dialect) -> dict[str, Any]:
    kind, media_type, data = "document", attachment.media_type, attachment.data
    title = {"title": attachment.name} if attachment.name else {}
    if attachment.is_image:
        kind, title = "image", {}
    elif data is not None and media_type.startswith("text/"):
        text = data.decode(errors="replace")
        source = {"type": "text", "media_type": "text/plain", "data": text}
        return {"type": kind, "source": source, **title}
    elif media_type != "application/pdf":
        raise not_taken(dialect.name, attachment)
    if data is None:
        return {"type": kind, "source": {"type": "url", "url": attachment.url}, **title}
    encoded = base64.b64encode(data).decode()
    return {"type": kind, "source": {"type": "base64", "media_type": media_type, "data": encoded}, **title}


# --- the reply ---------------------------------------------------------------------------------------------------


def decode_reply(
    body: Mapping[str, Any], dialect: Dialect, request: ModelRequest | None = None
) -> ModelReply:
    """The reply in a message.

    Args:
        body: the message.
        dialect: whose.
        request: what was asked for.

    Raises:
        ModelBadResponse: it is none, or not finished.
    """
    content, reason = body.get("content"), as_text(body.get("stop_reason"))
    if isinstance(content, str):  # servers that speak the wire
        content = [{"type": "text", "text": content}]
    if not reason or not (isinstance(content, list) or is_withheld(reason)):
        raise ModelBadResponse(f"{dialect.name} answered without a finished message")
    blocks = [as_object(block) for block in as_list(cast("object", content))]
    blocks = [block for block in blocks if not (_is_call(block) and _draft(block, dialect).is_empty)]
    drafts = [_draft(block, dialect) for block in blocks if _is_call(block)]
    calls = iter(list(tool_calls(drafts)))
    parts = [part for block in blocks for part in _parts(block, calls, dialect)]
    usage, model = usage_of(body), model_name(body, dialect)
    because = _because(as_object(body.get("stop_details")))
    reply = finished_reply(parts, finish_reason=reason, usage=usage, model=model, because=because)
    output = None if request is None else output_for(request)
    if output is None:
        return reply
    parts, stop_reason = answered(reply.parts, reply.stop_reason, output)
    return replace(reply, parts=tuple(parts), stop_reason=stop_reason)


def _because(details: Mapping[str, Any]) -> str:
    """Why the model has declined: its category and its explanation."""
    said = (as_text(details.get(name)) for name in ("category", "explanation"))
    return mend(": ".join(filter(None, said)))


def usage_of(body: Mapping[str, Any]) -> Usage:
    """What a message has used, as far as its provider says."""
    return anthropic_usage(as_object(body.get("usage")), as_text(body.get("model")))


def _is_call(block: Mapping[str, Any]) -> bool:
    return block.get("type") == "tool_use"


def _draft(block: Mapping[str, Any], dialect: Dialect) -> CallDraft:
    given, pieces = block.get("input"), [*map(as_text, as_list(block.get(_PIECES)))]
    if any(pieces):  # they say it again where it was there from the start
        given = "".join(pieces)
    arguments = given if isinstance(given, str) else json.dumps(given if given is not None else {})
    call_id, name = mend(as_text(block.get("id"))), as_text(block.get("name"))
    data = issued(dialect.issuer, **{_CALL: _kept_of_call(block)})
    return CallDraft(id=call_id, name=name, arguments=arguments, pieces=pieces, data=data)


def _kept_of_call(block: Mapping[str, Any]) -> dict[str, Any]:
    call_id, caller = mend(as_text(block.get("id"))), as_object(block.get("caller"))
    kept: dict[str, Any] = {}
    if caller.get("type", "direct") != "direct":  # code of the provider's waits for the result
        kept["caller"] = mended(dict(caller))
    if call_id and not ANTHROPIC.fits(call_id):  # whoever makes such an id takes it back
        kept["id"] = call_id
    return kept


def _parts(block: Mapping[str, Any], calls: Iterator[ToolCall], dialect: Dialect) -> Iterator[Part]:
    kind = block.get("type")
    if _is_call(block):
        yield next(calls)
    elif kind == "text":
        if text := mend(as_text(block.get("text"))):
            cited = mended(list(as_list(block.get("citations"))))
            yield Text(text=text, data=issued(dialect.issuer, **{_CITED: cited}))
            yield from sources(cited)
    elif isinstance(kind, str) and kind in _THOUGHTS:
        data = issued(dialect.issuer, **{_BLOCK: mended(dict(block))})
        yield Reasoning(text=mend(as_text(block.get("thinking"))), data=data)
    elif isinstance(
        kind, str
    ):  # a tool of the provider's own has been at work, or it has shortened the conversation
        yield from opaque(issued(dialect.issuer, **{_BLOCK: _whole(mended(dict(block)))}))


def _whole(block: dict[str, Any]) -> dict[str, Any]:
    """A block with its input as an object, also where that has arrived in pieces."""
    pieces = [*map(as_text, as_list(block.pop(_PIECES, None)))]
    if any(pieces):
        try:
            block["input"] = json.loads("".join(pieces))
        except ValueError:
            block["input"] = {}
    return block


# --- streamed ----------------------------------------------------------------------------------------------------

_PIECES = "agentkit_pieces"  # of the input of a call; no field of the wire
_GROWING = {  # the field of each kind of delta: where it is added
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
    "compaction_delta": ("content", "content"),
}


class MessageDraft:
    """A message that arrives in events."""

    def __init__(self, dialect: Dialect, request: ModelRequest | None = None) -> None:
        self._dialect = dialect
        self._request = request
        self._holds_back = (
            request is not None and output_for(request) is not None
        )  # which text is the output is known at the end
        self._body: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._given: list[dict[str, Any]] = []
        self._reason: object = None
        self._ended = False
        self._counted = False
        self._halves = Halves()

    def feed(self, event: Mapping[str, Any]) -> Iterator[Delta]:
        """What is new for somebody who watches."""
        match event.get("type"):
            case "message_start":
                self._body = dict(as_object(event.get("message")))
                self._usage.update(as_object(self._body.get("usage")))
                self._reason = self._body.get("stop_reason")
                self._counted = self._reason is not None
                self._given = [dict(as_object(each)) for each in as_list(self._body.get("content"))]
            case "content_block_start":
                index, block = as_count(event.get("index")), dict(as_object(event.get("content_block")))
                yield from self._take_given(before=index)
                self._blocks[index] = block
                yield from self._deltas(block, as_text(block.get("text")) or as_text(block.get("thinking")))
            case "content_block_delta":
                yield from self._grow(as_count(event.get("index")), as_object(event.get("delta")))
            case "content_block_stop":
                yield from self._rest(as_count(event.get("index")))
            case "message_delta":
                delta = as_object(event.get("delta"))
                self._reason = delta.get("stop_reason") or self._reason
                self._body["stop_details"] = delta.get("stop_details") or self._body.get("stop_details")
                told = as_object(event.get("usage"))
                self._counted = self._counted or told.get("output_tokens") is not None
                self._usage.update({name: count for name, count in told.items() if count is not None})
            case "message_stop":
                yield from self._take_given()
                self._ended = True
                if self._holds_back and (text := self._reply().text):
                    yield TextDelta(text=text)
            case _:
                pass

    def finish(self) -> ModelReply:
        """The whole reply, once the stream has ended.

        Raises:
            ModelBadResponse: it ended early.
        """
        if not self._ended:
            raise ModelBadResponse(f"{self._dialect.name} stopped in the middle of its reply")
        return self._reply()

    @property
    def ended(self) -> bool:
        """The last event was there."""
        return self._ended

    @property
    def begun(self) -> bool:
        """Some of the message has arrived."""
        return bool(self._blocks)

    @property
    def usage(self) -> Usage:
        """What was used, as far as the provider has said; it begins with what it has read."""
        used = usage_of({**self._body, "usage": self._usage})
        return used if self._counted else replace(used, partial=True)

    def _reply(self) -> ModelReply:
        content = [self._blocks[index] for index in sorted(self._blocks)]
        body = {**self._body, "content": content, "stop_reason": self._reason, "usage": self._usage}
        return replace(decode_reply(body, self._dialect, self._request), usage=self.usage)

    def _grow(self, index: int, delta: Mapping[str, Any]) -> Iterator[Delta]:
        block, kind = self._blocks.get(index), as_text(delta.get("type"))
        if block is not None and kind == "input_json_delta":
            block.setdefault(_PIECES, []).append(as_text(delta.get("partial_json")))
        if block is not None and kind == "citations_delta":
            block["citations"] = [*as_list(block.get("citations")), delta.get("citation")]
        if block is None or kind not in _GROWING:
            return
        source, name = _GROWING[kind]
        piece = as_text(delta.get(source))
        block[name] = as_text(block.get(name)) + piece
        if kind in {"text_delta", "thinking_delta"}:
            yield from self._deltas(block, piece)

    def _take_given(self, before: int | None = None) -> Iterator[Delta]:
        """Blocks that were whole at the start of the message; a block that is streamed takes the place of one."""
        given, self._given = self._given[:before], []
        for index, block in enumerate(given):
            self._blocks.setdefault(index, block)
            yield from self._deltas(block, as_text(block.get("text")) or as_text(block.get("thinking")))

    def _rest(self, index: int) -> Iterator[Delta]:
        """Half an emoji that nothing followed; none, as a rule."""
        if (block := self._blocks.get(index)) is not None and (half := self._halves.close()):
            yield from self._deltas(block, half)

    def _deltas(self, block: Mapping[str, Any], piece: str) -> Iterator[Delta]:
        piece = self._halves.feed(piece)
        if piece and block.get("type") == "thinking":
            yield ReasoningDelta(text=piece)
        elif piece and block.get("type") == "text" and not self._holds_back:
            yield TextDelta(text=piece)
