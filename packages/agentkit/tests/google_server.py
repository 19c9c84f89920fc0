"""Gemini's generateContent, from the server's side."""

from __future__ import annotations

import base64
import json
import re
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
    StopReason.END: "STOP",
    StopReason.TOOL_CALLS: "STOP",
    StopReason.LENGTH: "MAX_TOKENS",
    StopReason.FILTERED: "SAFETY",
}
VERBATIM = {"args", "response", "parameters_json_schema", "responseJsonSchema", "response_json_schema"}
SIGNATURE = base64.b64encode(b"\x00signed\xff").decode()


def content(reply: ModelReply) -> dict[str, Any]:
    """``reply`` as Google would send it."""
    return _body([part for each in reply.parts for part in _part(each, reply)], reply)


def _part(part: Any, reply: ModelReply) -> Iterator[dict[str, Any]]:
    thought = any(isinstance(each, Reasoning) for each in reply.parts)
    if isinstance(part, Reasoning):
        yield {"text": part.text, "thought": True}
    elif isinstance(part, ToolCall):
        signed = {"thoughtSignature": SIGNATURE} if thought else {}
        yield {"functionCall": {"id": part.id, "name": part.name, "args": part.arguments}, **signed}
    else:
        yield {"text": part.text}


def _body(parts: list[dict[str, Any]], reply: ModelReply, *, last: bool = True) -> dict[str, Any]:
    usage = reply.usage
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    return {
        "candidates": [{**candidate, "finishReason": REASON[reply.stop_reason]} if last else candidate],
        "modelVersion": "tiny-1",
        "usageMetadata": {
            "promptTokenCount": usage.input_tokens,
            "cachedContentTokenCount": usage.cached_tokens,
            "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
            "thoughtsTokenCount": usage.reasoning_tokens,
            "totalTokenCount": usage.tokens,
        },
    }


def events(reply: ModelReply) -> Iterator[dict[str, Any]]:
    """``reply`` as Google would stream it."""
    for part in content(reply)["candidates"][0]["content"]["parts"]:
        text = part.get("text", "")
        pieces = [{**part, "text": text[at : at + 3]} for at in range(0, len(text), 3)] or [part]
        yield from (_body([piece], reply, last=False) for piece in pieces)
    yield _body([{"text": ""}], reply)


class GoogleProvider(WireProvider):  # type: ignore[misc]
    """generateContent."""

    streaming = False  # told by the address, which an answer is not shown

    def spoken(self, reply: ModelReply, body: Mapping[str, Any]) -> Answer:
        return as_events(list(events(reply)), done=False) if self.streaming else as_json(content(reply))

    def failing(self, fault: Fault, body: Mapping[str, Any]) -> Answer:
        return _fault(fault, body, stream=self.streaming)

    def understood(self, asked: Asked) -> ModelRequest:
        verb = "streamGenerateContent?alt=sse" if self.streaming else "generateContent"
        assert asked.target == f"/v1beta/models/tiny:{verb}"
        assert asked.headers["x-goog-api-key"] == KEY
        assert "x-server-timeout" not in asked.headers
        return _read_request(_in_camels(asked.body))

    def thought_sent(self, reply: ModelReply) -> object:
        parts = [part for each in reply.parts for part in _part(each, reply)]
        return [part for part in parts if part.get("thought") or "thoughtSignature" in part]

    def thought_heard(self, body: Mapping[str, Any]) -> object:
        parts = [part for said in _in_camels(body)["contents"] for part in said["parts"]]
        return [_without_our_id(part) for part in parts if part.get("thought") or "thoughtSignature" in part]


def _in_camels(value: Any) -> Any:
    """The SDK writes some names as Python does, which Google takes as well."""
    if isinstance(value, dict):
        return {
            re.sub(r"_(\w)", lambda found: found[1].upper(), name): each
            if name in VERBATIM
            else _in_camels(each)
            for name, each in value.items()
        }
    return [_in_camels(each) for each in value] if isinstance(value, list) else value


def _without_our_id(part: dict[str, Any]) -> dict[str, Any]:
    # An id that we may have made is not sent; the contract's are of that form.
    return (
        {**part, "functionCall": {"id": "call_1", **part["functionCall"]}} if "functionCall" in part else part
    )


ERRORS: Mapping[Fault, tuple[int, str, str]] = {
    Fault.BAD_REQUEST: (400, "INVALID_ARGUMENT", "no"),
    Fault.CONTEXT_TOO_LONG: (
        400,
        "INVALID_ARGUMENT",
        "The token count exceeds the maximum number of tokens",
    ),
    Fault.BAD_KEY: (400, "INVALID_ARGUMENT", "API key not valid"),
    Fault.FORBIDDEN: (403, "PERMISSION_DENIED", "no"),
    Fault.NO_CREDIT: (402, "FAILED_PRECONDITION", "billing"),
    Fault.UNKNOWN_MODEL: (404, "NOT_FOUND", "models/tiny is not found"),
    Fault.TOO_LARGE: (413, "INVALID_ARGUMENT", "no"),
    Fault.RATE_LIMITED: (429, "RESOURCE_EXHAUSTED", "slow down"),
    Fault.OVERLOADED: (503, "UNAVAILABLE", "The model is overloaded."),
    Fault.SERVER_ERROR: (500, "INTERNAL", "no"),
    Fault.GATEWAY_TIMEOUT: (504, "DEADLINE_EXCEEDED", "no"),
}
KIND = "type.googleapis.com/google.rpc."


def error(status: int, word: str, text: str, body: Mapping[str, Any]) -> dict[str, Any]:
    details: list[dict[str, Any]] = []
    if text.startswith("API key"):
        details = [{"@type": KIND + "ErrorInfo", "reason": "API_KEY_INVALID"}]
    if status == 429:
        details = [{"@type": KIND + "RetryInfo", "retryDelay": "7s"}]
    told = {"code": status, "message": f"{text} {KEY} {json.dumps(body)}", "status": word, "details": details}
    return {"error": told}


def _fault(fault: Fault, body: Mapping[str, Any], *, stream: bool) -> Answer:
    begun = list(events(ModelReply(parts=(Text(text="The answer"),))))[:2]
    whole = as_events(begun, done=False).chunks if stream else [b'{"candidates": [{"content": {"par']
    kind = STREAM if stream else JSON
    if fault in ERRORS:
        status, word, text = ERRORS[fault]
        return as_json(error(status, word, text, body), status=status)
    match fault:
        case Fault.FILTERED:
            blocked = {"promptFeedback": {"blockReason": "SAFETY"}}
            return as_events([blocked], done=False) if stream else as_json(blocked)
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
            inside = error(503, "UNAVAILABLE", "Overloaded", body)
            return as_events([*begun, inside], done=False) if stream else as_json(inside)
        case _:
            return Answer(end="hang", before=True)


def _read_request(body: Mapping[str, Any]) -> ModelRequest:
    config = body.get("generationConfig", {})
    functions = [each for tool in body.get("tools", []) for each in tool["functionDeclarations"]]
    tools = [
        ToolSpec(name=each["name"], description=each["description"], parameters=each["parametersJsonSchema"])
        for each in functions
    ]
    system = body.get("systemInstruction", {}).get("parts", [])
    return ModelRequest(
        messages=tuple(_read_messages(body["contents"])),
        instructions="".join(part["text"] for part in system),
        tools=tuple(tools),
        output_schema=config.get("responseJsonSchema"),
        stop=tuple(config.get("stopSequences", ())),
        max_tokens=config.get("maxOutputTokens"),
        temperature=config.get("temperature"),
    )


def _read_messages(contents: list[dict[str, Any]]) -> Iterator[Message]:
    ids: list[str] = []  # Google matches results by name and order
    for said in contents:
        parts = said["parts"]
        if said["role"] == "model":
            calls = [part["functionCall"] for part in parts if "functionCall" in part]
            ids = [call.get("id", f"call_{place}") for place, call in enumerate(calls)]
            unseen = iter(ids)
            yield AssistantMessage(
                parts=tuple(_read_part(part, unseen) for part in parts if not part.get("thought"))
            )
        elif "functionResponse" in parts[0]:
            for part, call_id in zip(parts, ids, strict=True):
                found = part["functionResponse"]
                ((word, text),) = found["response"].items()
                yield ToolMessage(call_id=call_id, name=found["name"], content=text, is_error=word == "error")
        else:
            shown = [_read_attachment(part) for part in parts if "text" not in part]
            yield UserMessage(text="".join(part.get("text", "") for part in parts), attachments=tuple(shown))


def _read_part(part: Mapping[str, Any], ids: Iterator[str]) -> Any:
    if "text" in part:
        return Text(text=part["text"])
    call = part["functionCall"]
    return ToolCall(id=next(ids), name=call["name"], arguments=call.get("args", {}))


def _read_attachment(part: Mapping[str, Any]) -> Attachment:
    if "fileData" in part:
        return Attachment(media_type=part["fileData"]["mimeType"], url=part["fileData"]["fileUri"])
    found = part["inlineData"]
    data = found["data"]
    return Attachment(
        media_type=found["mimeType"], data=base64.b64decode(data.replace("-", "+").replace("_", "/"))
    )
