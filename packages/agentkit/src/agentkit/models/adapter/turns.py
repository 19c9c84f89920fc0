"""Turns of a conversation as a provider takes them that has not written all of them itself.

Anthropic pauses a turn while its own tools work, and goes on when it is sent what it has said so far. Another endpoint,
which is asked as a fallback, knows nothing of this: most refuse a conversation that ends with a turn of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import cast

from agentkit.messages import (
    AssistantMessage,
    Attachment,
    Message,
    Opaque,
    Source,
    Text,
    ToolMessage,
    UserMessage,
)
from agentkit.models.adapter.opaque_data import own

GO_ON = UserMessage(text="Please go on.")


def answerable(messages: Sequence[Message], issuer: str) -> Iterator[Message]:
    """Yield the conversation so that ``issuer`` can answer it: it is asked to go on with a paused turn of another one.

    Args:
        messages: the conversation.
        issuer: whom it is sent to; see :func:`agentkit.models.adapter.opaque_data.issuer_of`.
    """
    for message, following in zip_longest(messages, messages[1:]):
        is_paused = isinstance(message, AssistantMessage) and message.is_paused
        if not is_paused or isinstance(following, ToolMessage | UserMessage):
            yield message
        elif _is_of(issuer, message) and (following is None or _is_of(issuer, following)):
            yield message  # it is carried on where it is written
        else:
            said = _without_open_work(cast("AssistantMessage", message))
            if any(isinstance(part, Text) and part.text.strip() for part in said.parts):
                yield from (said, GO_ON)


def _is_of(issuer: str, message: Message) -> bool:
    return isinstance(message, AssistantMessage) and any(
        own(part, issuer) for part in message.parts if not isinstance(part, Source | Attachment)
    )


def _without_open_work(message: AssistantMessage) -> AssistantMessage:
    """The turn without what a tool of the provider's own has not answered yet: the answer will not come."""
    parts = list(message.parts)
    while parts and isinstance(parts[-1], Opaque):
        parts.pop()
    return replace(message, parts=tuple(parts))
