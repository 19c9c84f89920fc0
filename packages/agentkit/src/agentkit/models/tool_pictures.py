"""Pictures that tools return, for wires that have no place for them in the result of a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from agentkit.messages import Attachment, Message, ToolMessage, UserMessage


def apart(
    messages: Sequence[Message],
    sent_id: Callable[[str], str] = str,
    takes: Callable[[Attachment], bool] = lambda _attachment: False,
) -> Iterator[Message]:
    """The conversation with such pictures behind the results of their turn, each under the name of its call.

    Args:
        messages: the conversation.
        sent_id: the id that is sent for that of a call.
        takes: the wire has a place in the result for this one.
    """
    waiting: list[UserMessage] = []
    for message in messages:
        if not isinstance(message, ToolMessage):
            yield from waiting
            waiting = []
            yield message
            continue
        kept = tuple(each for each in message.attachments if takes(each))
        yield replace(message, attachments=kept) if kept != message.attachments else message
        waiting += [
            UserMessage(text=label(each, message.name, sent_id(message.call_id)), attachments=(each,))
            for each in message.attachments
            if each not in kept
        ]
    yield from waiting


def label(attachment: Attachment, tool: str, call_id: str) -> str:
    """Which picture this is."""
    return f"[{attachment.name or attachment.media_type} of what {tool} returned for the call {call_id}.]"
