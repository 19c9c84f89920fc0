"""Token estimates of a request: an upper bound and a probable value. Pure.

Only the provider can count tokens. A token stands for at least one byte of UTF-8, so that the bytes are a bound,
and for about four in running text.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentkit.folds import Fold
from agentkit.messages import (
    AssistantMessage,
    Attachment,
    JsonValue,
    Message,
    ModelRequest,
    Opaque,
    Part,
    Source,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentkit.transcript.codec import to_json_text

_BYTES_PER_TOKEN = 4
_OF_A_MESSAGE = 32
"""What a provider puts around a message or a tool, at most."""
_OF_AN_IMAGE = 8192
_OF_A_DOCUMENT = 200_000
"""Of one that the provider fetches: what fits into most models at all."""
_OF_TOOLS = 1024
"""What it tells a model about tools in general, at most."""


class Sizes:
    """Bytes of the messages of one run, each counted once."""

    def __init__(self) -> None:
        self._messages: Fold[Message, int] = Fold(0, lambda before, message: before + _message(message))

    def of(self, messages: Sequence[Message]) -> int:
        """Of all of them together."""
        return self._messages.over(tuple(messages))


def max_input_tokens(request: ModelRequest, sizes: Sizes | None = None) -> int:
    """Tokens that the provider cannot read more of than this.

    Args:
        request: what is sent.
        sizes: of the run's messages.
    """
    return _size(request, sizes or Sizes()) + _around(request)


def max_tokens_of_texts(texts: Sequence[str]) -> int:
    """Tokens that a provider of embeddings cannot read more of than this."""
    return sum(_bytes(text) + _OF_A_MESSAGE for text in texts)


def likely_input_tokens(request: ModelRequest) -> int:
    """Tokens that the provider will read, roughly."""
    return _size(request, Sizes()) // _BYTES_PER_TOKEN + 1


def _around(request: ModelRequest) -> int:
    tools = len(request.tools)
    return _OF_A_MESSAGE * (len(request.messages) + tools + 2) + (_OF_TOOLS if tools else 0)


def _size(request: ModelRequest, sizes: Sizes) -> int:
    size = _bytes(request.instructions) + sizes.of(request.messages)
    if request.output_schema is not None:
        size += _json(request.output_schema)
    return size + sum(
        _bytes(tool.name) + _bytes(tool.description) + _json(tool.parameters) for tool in request.tools
    )


def _message(message: Message) -> int:
    match message:
        case UserMessage(text=text, attachments=attachments):
            return _bytes(text) + sum(map(_attachment, attachments))
        case AssistantMessage(parts=parts):
            return sum(map(_part, parts))
        case ToolMessage(call_id=call_id, name=name, content=content, attachments=attachments):
            said = _bytes(call_id) + _bytes(name) + _bytes(content)
            return said + sum(_OF_A_MESSAGE + _attachment(each) for each in attachments)


def _attachment(attachment: Attachment) -> int:
    """Images are billed by their size in pixels, pages as text and as an image: generous, as nobody says how many."""
    if attachment.is_image:
        return _OF_AN_IMAGE
    return _OF_A_DOCUMENT if attachment.data is None else _OF_AN_IMAGE + 2 * len(attachment.data)


def _part(part: Part) -> int:
    match part:
        case Source():
            return 0  # it is not sent back
        case Attachment():
            return _attachment(part)
        case ToolCall(id=call_id, name=name, arguments=arguments, invalid=invalid):
            size = _OF_A_MESSAGE + _bytes(call_id) + _bytes(name) + _json(arguments) + _bytes(invalid or "")
        case Opaque():
            size = _OF_A_MESSAGE
        case _:
            size = _bytes(part.text)
    return size + (0 if part.data is None else _json(part.data))


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _json(value: JsonValue) -> int:
    return _bytes(to_json_text(value))
