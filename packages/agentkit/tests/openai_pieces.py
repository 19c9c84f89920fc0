"""What the tests of the OpenAI wire share: pieces of replies, and how they are read."""

from __future__ import annotations

from typing import Any

from agentkit.messages import (
    Delta,
    ModelReply,
    ModelRequest,
    UserMessage,
)
from agentkit.models.adapter.dialect import Dialect
from agentkit.models.openai.chat import decode_reply
from agentkit.models.openai.chat_stream import ReplyDraft
from agentkit.models.openai.client import OpenAIModel

from .wire_server import STREAM, Answer, WireServer  # type: ignore[import-not-found]

HELLO = ModelRequest(messages=(UserMessage(text="Hello"),))


DIALECT = Dialect(provider="test", model="tiny", official=False)


def chat(message: dict[str, Any], finish_reason: str | None = "stop", **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}], **more}


def read(message: dict[str, Any], finish_reason: str | None = "stop", **more: Any) -> ModelReply:
    return decode_reply(chat(message, finish_reason, **more), DIALECT)


def stream(*pieces: dict[str, Any], done: bool = True) -> tuple[ModelReply, list[Delta]]:
    """What the events of these bodies come to."""
    draft = ReplyDraft(DIALECT)
    deltas = [found for piece in pieces for found in draft.feed(piece)]
    return draft.finish(done=done), deltas


def function(name: str | None, arguments: str | None, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}, **more}


async def streamed(
    server: WireServer, model: OpenAIModel, *chunks: bytes, kind: str = STREAM, end: str = "well"
) -> ModelReply:
    server.plan(Answer(kind=kind, chunks=chunks, end=end))
    reply: ModelReply = await model.reply(HELLO, lambda _delta: None)
    return reply
