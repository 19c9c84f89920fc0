"""OpenAI's Responses, from the server's side."""

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
    Reasoning,
    StopReason,
    Text,
    ToolCall,
    ToolMessage,
    ToolSpec,
    UserMessage,
)
from agentkit.testing.model_contract import Fault

from .openai_server import ERRORS, error  # type: ignore[import-not-found]
from .wire_server import (  # type: ignore[import-not-found]
    JSON,
    STREAM,
    Answer,
    Asked,
    WireProvider,
    as_events,
    as_json,
    attached,
)


def response(reply: ModelReply) -> dict[str, Any]:
    """``reply`` as OpenAI would send it."""
    why = {StopReason.LENGTH: "max_output_tokens", StopReason.FILTERED: "content_filter"}.get(
        reply.stop_reason
    )
    usage = reply.usage
    return {
        "id": "resp_1",
        "object": "response",
        "status": "incomplete" if why else "completed",
        "incomplete_details": {"reason": why} if why else None,
        "error": None,
        "model": "tiny-1",
        "output": [_item(part, place, reply) for place, part in enumerate(reply.parts)],
        "usage": {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.tokens,
        },
    }


def _item(part: Any, place: int, reply: ModelReply) -> dict[str, Any]:
    if isinstance(part, ToolCall):
        arguments = json.dumps(part.arguments)
        names = {"call_id": part.id, "name": part.name, "arguments": arguments}
        return {"type": "function_call", "id": f"fc_{place}", "status": "completed", **names}
    if isinstance(part, Reasoning):
        summary = [{"type": "summary_text", "text": text} for text in part.text.split("\n\n")]
        return {"type": "reasoning", "id": f"rs_{place}", "summary": summary, "encrypted_content": "gAAA=="}
    refused = reply.stop_reason is StopReason.REFUSED
    said = (
        {"type": "refusal", "refusal": part.text} if refused else {"type": "output_text", "text": part.text}
    )
    return {
        "type": "message",
        "id": f"msg_{place}",
        "role": "assistant",
        "status": "completed",
        "content": [said],
    }


def events(reply: ModelReply) -> Iterator[dict[str, Any]]:
    """``reply`` as OpenAI would stream it."""
    whole = response(reply)
    yield {"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}}
    for place, item in enumerate(whole["output"]):
        at = {"output_index": place, "item_id": item["id"]}
        yield {"type": "response.output_item.added", "item": {**item, "content": []}, **at}
        yield from ({**event, **at} for event in _deltas(item))
        yield {"type": "response.output_item.done", "item": item, **at}
    kind = "response.incomplete" if whole["incomplete_details"] else "response.completed"
    yield {"type": kind, "response": whole}


def _deltas(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if item["type"] == "function_call":
        yield from _cut("response.function_call_arguments.delta", item["arguments"])
    elif item["type"] == "reasoning":
        for index, part in enumerate(item["summary"]):
            yield {"type": "response.reasoning_summary_part.added", "summary_index": index}
            yield from _cut("response.reasoning_summary_text.delta", part["text"])
    else:
        said = item["content"][0]
        kind = "response.refusal.delta" if said["type"] == "refusal" else "response.output_text.delta"
        yield from _cut(kind, said.get("text", said.get("refusal")))


def _cut(kind: str, text: str) -> Iterator[dict[str, Any]]:
    for at in range(0, len(text), 3):
        yield {"type": kind, "delta": text[at : at + 3]}


class ResponsesProvider(WireProvider):  # type: ignore[misc]
    """Responses."""

    def spoken(self, reply: ModelReply, body: Mapping[str, Any]) -> Answer:
        return as_events(list(events(reply)), done=False) if body.get("stream") else as_json(response(reply))

    def failing(self, fault: Fault, body: Mapping[str, Any]) -> Answer:
        return _fault(fault, body)

    def understood(self, asked: Asked) -> ModelRequest:
        return _read_request(asked.body)

    def thought_sent(self, reply: ModelReply) -> object:
        items = [item for item in response(reply)["output"] if item["type"] == "reasoning"]
        return [
            {name: value for name, value in item.items() if name != "id"} for item in items
        ]  # nothing is stored

    def thought_heard(self, body: Mapping[str, Any]) -> object:
        return [item for item in body["input"] if item.get("type") == "reasoning"]


def _fault(fault: Fault, body: Mapping[str, Any]) -> Answer:
    stream = bool(body.get("stream"))
    begun = {"type": "response.output_text.delta", "output_index": 0, "delta": "The answer"}
    whole = as_events([begun], done=False).chunks if stream else [b'{"status": "completed", "output": [{"ty']
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
            why = {"code": "server_error", "message": json.dumps(body)}
            failed = {"status": "failed", "error": why, "output": []}
            return (
                as_events([begun, {"type": "response.failed", "response": failed}])
                if stream
                else as_json(failed)
            )
        case _:
            return Answer(end="hang", before=True)


def _read_request(body: Mapping[str, Any]) -> ModelRequest:
    names = {item["call_id"]: item["name"] for item in body["input"] if item.get("type") == "function_call"}
    messages: list[Message] = []
    for item in body["input"]:
        _read_item(item, names, messages)
    assert body["store"] is False
    assert not any(tool.pop("strict") or tool.pop("type") != "function" for tool in body.get("tools", []))
    return ModelRequest(
        messages=tuple(messages),
        instructions=body.get("instructions", ""),
        tools=tuple(ToolSpec(**tool) for tool in body.get("tools", [])),
        output_schema=body.get("text", {}).get("format", {}).get("schema"),
        max_tokens=body.get("max_output_tokens"),
        temperature=body.get("temperature"),
    )


def _read_item(item: Mapping[str, Any], names: Mapping[str, str], messages: list[Message]) -> None:
    kind = item.get("type", item.get("role"))
    if kind == "user":
        messages.append(_read_user(item["content"]))
    elif kind == "function_call_output":
        output, call_id = item["output"], item["call_id"]
        content, is_error = output.removeprefix("Error: "), output.startswith("Error: ")
        messages.append(ToolMessage(call_id=call_id, name=names[call_id], content=content, is_error=is_error))
    elif kind != "reasoning":
        part: Any = Text(text=item.get("content", ""))
        if kind == "function_call":
            part = ToolCall(id=item["call_id"], name=item["name"], arguments=json.loads(item["arguments"]))
        before = messages.pop().parts if isinstance(messages[-1], AssistantMessage) else ()
        messages.append(AssistantMessage(parts=(*before, part)))


def _read_user(content: str | list[dict[str, Any]]) -> UserMessage:
    if isinstance(content, str):
        return UserMessage(text=content)
    texts = [part["text"] for part in content if part["type"] == "input_text"]
    shown = [_read_attachment(part) for part in content if part["type"] != "input_text"]
    return UserMessage(text="\n".join(texts), attachments=tuple(shown))


def _read_attachment(part: Mapping[str, Any]) -> Attachment:
    if part["type"] == "input_file":
        address = part.get("file_data") or part["file_url"]
        return attached(address, "application/pdf", part.get("filename", ""))
    return attached(part["image_url"], "image/jpeg")
