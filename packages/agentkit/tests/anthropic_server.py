"""Anthropic's Messages, from the server's side."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from agentkit.messages import (
    AssistantMessage,
    Attachment,
    Message,
    ModelReply,
    ModelRequest,
    Reasoning,
    StopReason,
    Text,
    ToolCall,
    ToolMessage,
    ToolSpec,
    UserMessage,
)
from agentkit.testing.model_contract import Fault

from .wire_server import (  # type: ignore[import-not-found]
    JSON,
    KEY,
    STREAM,
    Answer,
    Asked,
    WireProvider,
    as_events,
    as_json,
)

REASON = {
    StopReason.END: "end_turn",
    StopReason.TOOL_CALLS: "tool_use",
    StopReason.LENGTH: "max_tokens",
    StopReason.REFUSED: "refusal",
}


def message(reply: ModelReply) -> dict[str, Any]:
    """``reply`` as Anthropic would send it."""
    usage = reply.usage
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "tiny-1",
        "content": [_block(part) for part in reply.parts],
        "stop_reason": REASON[reply.stop_reason],
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens,
            "cache_read_input_tokens": usage.cached_tokens,
            "cache_creation_input_tokens": usage.cache_write_tokens,
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        },
    }


def _block(part: Any) -> dict[str, Any]:
    if isinstance(part, ToolCall):
        return {"type": "tool_use", "id": part.id, "name": part.name, "input": part.arguments}
    if isinstance(part, Reasoning):
        return {"type": "thinking", "thinking": part.text, "signature": "c2ln"}
    return {"type": "text", "text": part.text}


def events(reply: ModelReply) -> Iterator[dict[str, Any]]:
    """``reply`` as Anthropic would stream it."""
    whole = message(reply)
    usage = {**whole["usage"], "output_tokens": 1}
    yield {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None, "usage": usage}}
    yield {"type": "ping"}
    for index, block in enumerate(whole["content"]):
        empty = {"text": "", "thinking": "", "signature": "", "input": {}}
        begun = {name: empty.get(name, value) for name, value in block.items()}
        yield {"type": "content_block_start", "index": index, "content_block": begun}
        for delta in _deltas(block):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ended = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": ended, "usage": whole["usage"]}
    yield {"type": "message_stop"}


def _deltas(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if block["type"] == "tool_use":
        text = json.dumps(block["input"]) if block["input"] else ""
        yield from (
            {"type": "input_json_delta", "partial_json": text[at : at + 5]} for at in range(0, len(text), 5)
        )
    elif block["type"] == "thinking":
        text = block["thinking"]
        yield from (
            {"type": "thinking_delta", "thinking": text[at : at + 3]} for at in range(0, len(text), 3)
        )
        yield {"type": "signature_delta", "signature": block["signature"]}
    else:
        text = block["text"]
        yield from ({"type": "text_delta", "text": text[at : at + 3]} for at in range(0, len(text), 3))


class AnthropicProvider(WireProvider):  # type: ignore[misc]
    """Messages."""

    def spoken(self, reply: ModelReply, body: Mapping[str, Any]) -> Answer:
        return as_events(list(events(reply)), done=False) if body.get("stream") else as_json(message(reply))

    def failing(self, fault: Fault, body: Mapping[str, Any]) -> Answer:
        return _fault(fault, body)

    def understood(self, asked: Asked) -> ModelRequest:
        assert asked.target == "/v1/messages"
        assert asked.headers["authorization"] == f"Bearer {KEY}" or asked.headers["x-api-key"] == KEY
        return _read_request(asked.body)

    def thought_sent(self, reply: ModelReply) -> object:
        return [_block(part) for part in reply.parts if isinstance(part, Reasoning)]

    def thought_heard(self, body: Mapping[str, Any]) -> object:
        blocks = [block for said in body["messages"] for block in said["content"]]
        return [block for block in blocks if "thinking" in block["type"]]


ERRORS: Mapping[Fault, tuple[int, str, str]] = {
    Fault.BAD_REQUEST: (400, "invalid_request_error", "no"),
    Fault.CONTEXT_TOO_LONG: (400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
    Fault.BAD_KEY: (401, "authentication_error", "bad key"),
    Fault.FORBIDDEN: (403, "permission_error", "no"),
    Fault.NO_CREDIT: (400, "invalid_request_error", "Your credit balance is too low to access the API."),
    Fault.UNKNOWN_MODEL: (404, "not_found_error", "model: tiny"),
    Fault.TOO_LARGE: (413, "request_too_large", "no"),
    Fault.FILTERED: (400, "invalid_request_error", "Output blocked by content filtering policy"),
    Fault.RATE_LIMITED: (429, "rate_limit_error", "slow down"),
    Fault.OVERLOADED: (529, "overloaded_error", "Overloaded"),
    Fault.SERVER_ERROR: (500, "api_error", "no"),
    Fault.GATEWAY_TIMEOUT: (504, "timeout_error", "no"),
}


def error(kind: str, text: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "error",
        "error": {"type": kind, "message": f"{text} {KEY} {json.dumps(body)}"},
        "request_id": KEY,
    }


def _fault(fault: Fault, body: Mapping[str, Any]) -> Answer:
    stream = bool(body.get("stream"))
    begun = list(events(ModelReply(parts=(Text(text="The answer"),))))[:4]
    whole = as_events(begun, done=False).chunks if stream else [b'{"type": "message", "content": [{"te']
    kind = STREAM if stream else JSON
    if fault in ERRORS:
        status, word, text = ERRORS[fault]
        headers = {"Retry-After": "7"} if status == 429 else {}
        return as_json(error(word, text, body), status=status, headers=headers)
    match fault:
        case Fault.DISCONNECT:
            return Answer(before=True)
        case Fault.DISCONNECT_MIDWAY:
            return Answer(kind=kind, chunks=whole, end="drop")
        case Fault.SILENCE_MIDWAY:
            return Answer(kind=kind, chunks=whole, end="hang")
        case Fault.TRUNCATED:
            return Answer(kind=kind, chunks=whole)
        case Fault.GARBLED:
            garbled = b"data: {\xff\xfe not json\n\n" if stream else b"\xff\xfe not json"
            return Answer(kind=kind, chunks=[garbled])
        case Fault.WEB_PAGE:
            return Answer(kind="text/html", chunks=[b"<!doctype html>\n<h1>Welcome</h1>\n"])
        case Fault.ERROR_INSIDE:
            inside = error("overloaded_error", "Overloaded", body)
            return as_events([*begun, inside], done=False) if stream else as_json(inside)
        case _:
            return Answer(end="hang", before=True)


def _read_request(body: Mapping[str, Any]) -> ModelRequest:
    blocks = [block for said in body["messages"] for block in said["content"]]
    names = {block["id"]: block["name"] for block in blocks if block["type"] == "tool_use"}
    roles = [said["role"] for said in body["messages"]]
    assert all(one != two for one, two in itertools.pairwise(roles)), "one side speaks twice"
    tools = [
        ToolSpec(name=tool["name"], description=tool["description"], parameters=tool["input_schema"])
        for tool in body.get("tools", [])
    ]
    schema = body.get("output_config", {}).get("format", {}).get("schema")
    if schema:
        assert schema.pop("additionalProperties") is False
    return ModelRequest(
        messages=tuple(message for said in body["messages"] for message in _read_messages(said, names)),
        instructions="".join(block["text"] for block in body.get("system", [])),
        tools=tuple(tools),
        output_schema=schema,
        stop=tuple(body.get("stop_sequences", ())),
        max_tokens=body["max_tokens"],
    )


def _read_messages(said: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[Message]:
    blocks = said["content"]
    if said["role"] == "assistant":
        yield AssistantMessage(
            parts=tuple(_read_part(block) for block in blocks if "thinking" not in block["type"])
        )
        return
    for block in blocks:
        if block["type"] == "tool_result":
            call_id, is_error = block["tool_use_id"], block.get("is_error", False)
            yield ToolMessage(
                call_id=call_id, name=names[call_id], content=block["content"], is_error=is_error
            )
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    shown = [_read_attachment(block) for block in blocks if block["type"] in {"image", "document"}]
    if texts:
        yield UserMessage(text="\n".join(texts), attachments=tuple(shown))


def _read_part(block: Mapping[str, Any]) -> Any:
    if block["type"] == "text":
        return Text(text=block["text"])
    return ToolCall(id=block["id"], name=block["name"], arguments=block["input"])


def _read_attachment(block: Mapping[str, Any]) -> Attachment:
    source, name = block["source"], block.get("title", "")
    if source["type"] == "url":
        kind = "image/jpeg" if block["type"] == "image" else "application/pdf"
        return Attachment(media_type=kind, url=source["url"], name=name)
    data = source["data"].encode() if source["type"] == "text" else base64.b64decode(source["data"])
    return Attachment(media_type=source["media_type"], data=data, name=name)
