"""Every wire behind one door: a model on loopback, replies in its own words, and what it was sent in one form."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from agentkit.models.anthropic.client import AnthropicModel
from agentkit.models.google.client import GoogleModel
from agentkit.models.openai.client import OpenAIModel, OpenRouterModel, ResponsesModel

from .wire_server import KEY, WireServer, as_json  # type: ignore[import-not-found]

MODELS: Mapping[str, tuple[type[Any], str]] = {
    "chat": (OpenAIModel, "/v1"),
    "openrouter": (OpenRouterModel, "/v1"),
    "responses": (ResponsesModel, "/v1"),
    "anthropic": (AnthropicModel, ""),
    "google": (GoogleModel, ""),
}


@dataclass(frozen=True, slots=True)
class Call:
    """A call in a reply."""

    id: str | None
    city: str = "Oslo"
    name: str = "weather"


@dataclass(frozen=True, slots=True)
class Served:
    """A model, and the server behind it."""

    kind: str
    model: Any
    server: WireServer

    def answers(self, *bodies: Mapping[str, Any]) -> None:
        """Plan whole bodies, one for each request."""
        for body in bodies:
            self.server.plan(as_json(body))

    @property
    def sent(self) -> list[Any]:
        """The bodies of all requests."""
        return [asked.body for asked in self.server.journal]

    @property
    def ids(self) -> tuple[list[str], list[str]]:
        """Of the last request: the ids of its calls, and those that its results name, each in their order."""
        return ids_in(self.kind, self.sent[-1])


@asynccontextmanager
async def served(kind: str, name: str = "m", **more: Any) -> AsyncGenerator[Served]:
    """A model of this wire on a server of its own."""
    cls, path = MODELS[kind]
    async with WireServer(path) as server, cls(name, api_key=KEY, base_url=server.url, **more) as model:
        yield Served(kind, model, server)


def body(kind: str, text: str = "", calls: Sequence[Call] = (), **more: Any) -> dict[str, Any]:
    """A reply in the words of the wire; ``more`` are fields of its message."""
    if kind in {"chat", "openrouter"}:
        called = [_chat_call(call) for call in calls]
        message = {
            "role": "assistant",
            "content": text or None,
            **({"tool_calls": called} if called else {}),
            **more,
        }
        finish = "tool_calls" if calls else "stop"
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        return {
            "id": "c",
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": usage,
        }
    if kind == "responses":
        return response(*([said(text, **more)] if text else []), *map(_response_call, calls))
    if kind == "anthropic":
        blocks: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
        return anthropic(*blocks, *map(_anthropic_call, calls))
    parts: list[dict[str, Any]] = [{"text": text}] if text else []
    return google(*parts, *map(_google_call, calls))


def response(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    return {
        "id": "r",
        "object": "response",
        "status": "completed",
        "model": "m",
        "output": list(items),
        "usage": usage,
        **more,
    }


def said(text: str, **more: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": content,
        **more,
    }


def anthropic(*blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    calls = any(block["type"] == "tool_use" for block in blocks)
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": list(blocks),
        "stop_reason": "tool_use" if calls else "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 5},
        **more,
    }


def google(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "finishReason": "STOP", **more}
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m"}


def ids_in(kind: str, sent: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The ids of the calls in a request, and those that its results name."""
    if kind in {"chat", "openrouter"}:
        said = sent["messages"]
        called = [call["id"] for message in said for call in message.get("tool_calls", [])]
        return called, [message["tool_call_id"] for message in said if message["role"] == "tool"]
    if kind == "responses":
        items = sent["input"]
        return tuple(  # type: ignore[return-value]
            [item["call_id"] for item in items if item.get("type") == wanted]
            for wanted in ("function_call", "function_call_output")
        )
    if kind == "anthropic":
        blocks = [block for message in sent["messages"] for block in message["content"]]
        return (
            [block["id"] for block in blocks if block["type"] == "tool_use"],
            [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"],
        )
    parts = [part for content in sent["contents"] for part in content["parts"]]
    return tuple(  # type: ignore[return-value]
        [part[wanted].get("id") for part in parts if wanted in part]
        for wanted in ("functionCall", "functionResponse")
    )


def _chat_call(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.dumps({"city": call.city})}
    return {"id": call.id, "type": "function", "function": function}


def _response_call(call: Call) -> dict[str, Any]:
    arguments = json.dumps({"city": call.city})
    return {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments}


def _anthropic_call(call: Call) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": {"city": call.city}}


def _google_call(call: Call) -> dict[str, Any]:
    given = {} if call.id is None else {"id": call.id}
    return {"functionCall": {**given, "name": call.name, "args": {"city": call.city}}}
