"""Pictures that tools return, or that the model has made, for wires that have no place for them where they came."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from agentkit.messages import AssistantMessage, Attachment, Message, ToolMessage, UserMessage


def apart(
    messages: Sequence[Message],
    sent_id: Callable[[str], str] = str,
    takes: Callable[[Attachment], bool] = lambda _attachment: False,
    provider: str | None = None,
) -> Iterator[Message]:
    """The conversation with such pictures behind the results of their turn, each under the name of its call.

    A picture that the model has made goes back to the same provider only: another one may take no pictures.

    Args:
        messages: the conversation.
        sent_id: the id that is sent for that of a call.
        takes: the wire has a place in the result for this one.
        provider: to which pictures that the model has made are shown; ``None`` where they stand in its own turn.
    """
    waiting: list[UserMessage] = []
    for message in messages:
        if not isinstance(message, ToolMessage):
            yield from waiting
            waiting = []
            yield message
            if isinstance(message, AssistantMessage) and message.model.partition(":")[0] == provider:
                waiting += _made(message)
            continue
        kept = tuple(each for each in message.attachments if takes(each))
        yield replace(message, attachments=kept) if kept != message.attachments else message
        waiting += [
            UserMessage(text=label(each, message.name, sent_id(message.call_id)), attachments=(each,))
            for each in message.attachments
            if each not in kept
        ]
    yield from waiting


def _made(message: AssistantMessage) -> list[UserMessage]:
    images = [part for part in message.parts if isinstance(part, Attachment) and part.is_image]
    return [UserMessage(text="[The image that you made.]", attachments=(each,)) for each in images]


def label(attachment: Attachment, tool: str, call_id: str) -> str:
    """Which picture this is."""
    return f"[{attachment.name or attachment.media_type} of what {tool} returned for the call {call_id}.]"
