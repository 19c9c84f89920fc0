"""A server that speaks Chat Completions on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from agentkit.messages import (
    AssistantMessage,
    Attachment,
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
    attached,
)

FINISH = {
    StopReason.END: "stop",
    StopReason.TOOL_CALLS: "tool_calls",
    StopReason.LENGTH: "length",
    StopReason.REFUSED: "stop",
    StopReason.FILTERED: "content_filter",
}


def completion(reply: ModelReply) -> dict[str, Any]:
    """``reply`` as OpenAI would send it."""
    name = "refusal" if reply.stop_reason is StopReason.REFUSED else "content"
    message: dict[str, Any] = {"role": "assistant", "content": None, name: reply.text or None}
    if reply.tool_calls:
        message["tool_calls"] = [_call(call) for call in reply.tool_calls]
    if thought := "".join(part.text for part in reply.parts if isinstance(part, Reasoning)):
        message["reasoning_content"] = thought
    choice = {"index": 0, "message": message, "finish_reason": FINISH[reply.stop_reason]}
    return {
        "id": "x",
        "object": "chat.completion",
        "model": "tiny-1",
        "choices": [choice],
        "usage": _usage(reply),
    }


def events(reply: ModelReply) -> list[dict[str, Any]]:
    """``reply`` as OpenAI would stream it."""
    found = [delta({"role": "assistant", "content": ""})]
    for part in reply.parts:
        if isinstance(part, Text | Reasoning):
            name = "content" if isinstance(part, Text) else "reasoning_content"
            name = "refusal" if reply.stop_reason is StopReason.REFUSED else name
            found += [delta({name: part.text[at : at + 3]}) for at in range(0, len(part.text), 3)]
    for index, call in enumerate(reply.tool_calls):
        whole = _call(call)
        arguments = whole["function"]["arguments"]
        first = {**whole, "index": index, "function": {"name": call.name, "arguments": ""}}
        found.append(delta({"tool_calls": [first]}))
        for at in range(0, len(arguments), 5):
            piece = {"index": index, "function": {"arguments": arguments[at : at + 5]}}
            found.append(delta({"tool_calls": [piece]}))
    found.append(delta({}, FINISH[reply.stop_reason]))
    return [*found, {"model": "tiny-1", "choices": [], "usage": _usage(reply)}]


def delta(piece: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": piece, "finish_reason": finish_reason}
    return {
        "id": "x",
        "object": "chat.completion.chunk",
        "model": "tiny-1",
        "choices": [choice],
        "usage": None,
    }


def _call(call: ToolCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
    }


def _usage(reply: ModelReply) -> dict[str, Any]:
    usage = reply.usage
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


# --- the stand-in that the contract asks for ---------------------------------------------------------------------


class OpenAIProvider(WireProvider):  # type: ignore[misc]
    """Chat Completions."""

    def spoken(self, reply: ModelReply, body: Mapping[str, Any]) -> Answer:
        return as_events(events(reply)) if body.get("stream") else as_json(completion(reply))

    def failing(self, fault: Fault, body: Mapping[str, Any]) -> Answer:
        return _fault(fault, body)

    def understood(self, asked: Asked) -> ModelRequest:
        return _read_request(asked.body)

    def thought_sent(self, reply: ModelReply) -> object:
        return "".join(part.text for part in reply.parts if isinstance(part, Reasoning))

    def thought_heard(self, body: Mapping[str, Any]) -> object:
        return "".join(message.get("reasoning_content", "") for message in body["messages"])


ERRORS: Mapping[Fault, tuple[int, str | None, str]] = {
    Fault.BAD_REQUEST: (400, None, "invalid_request_error"),
    Fault.CONTEXT_TOO_LONG: (400, "context_length_exceeded", "invalid_request_error"),
    Fault.BAD_KEY: (401, "invalid_api_key", "invalid_request_error"),
    Fault.FORBIDDEN: (403, None, "permission_error"),
    Fault.NO_CREDIT: (429, "insufficient_quota", "insufficient_quota"),
    Fault.UNKNOWN_MODEL: (404, "model_not_found", "invalid_request_error"),
    Fault.TOO_LARGE: (413, None, "invalid_request_error"),
    Fault.FILTERED: (400, "content_filter", "invalid_request_error"),
    Fault.RATE_LIMITED: (429, "rate_limit_exceeded", "tokens"),
    Fault.OVERLOADED: (503, None, "overloaded_error"),
    Fault.SERVER_ERROR: (500, None, "server_error"),
    Fault.GATEWAY_TIMEOUT: (504, None, "timeout"),
}


def error(code: object, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """An error object that, like some providers', quotes what it got."""
    text = f"Bad key {KEY} for {json.dumps(body)}"
    return {"error": {"message": text, "type": kind, "code": code, "param": f"key={KEY}"}}


def _fault(fault: Fault, body: Mapping[str, Any]) -> Answer:
    stream = bool(body.get("stream"))
    begun = as_events([delta({"content": "The answer"})], done=False).chunks
    whole = begun if stream else [b'{"choices": [{"message": {"content": "The ans']
    kind = STREAM if stream else JSON
    if fault in ERRORS:
        status, code, word = ERRORS[fault]
        headers = {"Retry-After": "7"} if status == 429 else {}
        return as_json(error(code, word, body), status=status, headers=headers)
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
            inside = error(503, "overloaded_error", body)
            return as_events([delta({"content": "The"}), inside]) if stream else as_json(inside)
        case _:
            return Answer(end="hang", before=True)


def _read_request(body: Mapping[str, Any]) -> ModelRequest:
    said = body["messages"]
    system = said[0]["content"] if said[0]["role"] == "system" else ""
    names = {
        call["id"]: call["function"]["name"] for message in said for call in message.get("tool_calls", [])
    }
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
    functions = [tool["function"] for tool in body.get("tools", [])]
    return ModelRequest(
        messages=tuple(_read_message(message, names) for message in said[bool(system) :]),
        instructions=system,
        tools=tuple(ToolSpec(**function) for function in functions),
        output_schema=schema,
        stop=tuple(body.get("stop", ())),
        max_tokens=body.get("max_tokens", body.get("max_completion_tokens")),
        temperature=body.get("temperature"),
    )


def _read_message(message: Mapping[str, Any], names: Mapping[str, str]) -> Message:
    match message["role"]:
        case "user":
            return _read_user(message["content"])
        case "tool":
            content, call_id = message["content"], message["tool_call_id"]
            return ToolMessage(
                call_id=call_id,
                name=names[call_id],
                content=content.removeprefix("Error: "),
                is_error=content.startswith("Error: "),
            )
        case _:
            return AssistantMessage(parts=tuple(_read_parts(message)))


def _read_parts(message: Mapping[str, Any]) -> Iterator[Part]:
    if message.get("content"):
        yield Text(text=message["content"])
    for call in message.get("tool_calls", []):
        function = call["function"]
        yield ToolCall(id=call["id"], name=function["name"], arguments=json.loads(function["arguments"]))


def _read_user(content: str | list[dict[str, Any]]) -> UserMessage:
    if isinstance(content, str):
        return UserMessage(text=content)
    texts = [part["text"] for part in content if part["type"] == "text"]
    shown = [_read_attachment(part) for part in content if part["type"] != "text"]
    return UserMessage(text="\n".join(texts), attachments=tuple(shown))


def _read_attachment(part: Mapping[str, Any]) -> Attachment:
    if part["type"] == "file":
        return attached(part["file"]["file_data"], "application/pdf", part["file"]["filename"])
    return attached(part["image_url"]["url"], "image/jpeg")
