"""Scripted model: it gives the replies of its script."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Self, TypeAlias

from agentkit.errors import UsageError
from agentkit.messages import (
    AssistantMessage,
    Delta,
    ModelReply,
    ModelRequest,
    Reasoning,
    ReasoningDelta,
    StopReason,
    Text,
    TextDelta,
    ToolCall,
)
from agentkit.ports import OnDelta

Reply: TypeAlias = str | ToolCall | Sequence[ToolCall] | ModelReply | BaseException
Planned: TypeAlias = Reply | Callable[[ModelRequest], Reply | Awaitable[Reply]]


class UnplannedRequest(UsageError, AssertionError):
    """A scripted model was asked more, or less, than was planned."""

    code = "unplanned_request"


class ScriptedModel:
    """A model that gives planned replies.

    A planned reply is a text, a :class:`ToolCall` or a list of them, a whole :class:`ModelReply`, an exception (it is
    raised), or a function of the request, sync or async, that returns one of these; an async one may wait for
    whatever the test decides.

    Args:
        replies: the replies, in the order of the requests.
        name: ``provider:name``.

    Attributes:
        requests: every request so far.
    """

    def __init__(self, replies: Iterable[Planned], *, name: str = "scripted:model") -> None:
        self.requests: list[ModelRequest] = []
        self._name = name
        self._planned: dict[int, Planned] = dict(enumerate(replies))
        self._given: set[int] = set()
        self._by_turn = False

    @classmethod
    def by_turn(
        cls, replies: Sequence[Planned] | Mapping[int, Planned], *, name: str = "scripted:model"
    ) -> Self:
        """A model whose reply depends on nothing but the request: its place is the number of assistant messages in it.

        So a run that was stopped and resumed, or that repeats a request, gets the reply it would have had.
        """
        made = cls((), name=name)
        made._planned = dict(replies) if isinstance(replies, Mapping) else dict(enumerate(replies))
        made._by_turn = True
        return made

    @property
    def name(self) -> str:
        """``provider:name``."""
        return self._name

    async def reply(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        """The planned reply; with ``on_delta`` also word by word.

        Raises:
            UnplannedRequest: none is planned.
        """
        self.requests.append(request)
        turn = sum(isinstance(message, AssistantMessage) for message in request.messages)
        place = turn if self._by_turn else len(self.requests) - 1
        if place not in self._planned:
            what = "turn" if self._by_turn else "request"
            raise UnplannedRequest(f"no reply is planned for {what} {place} (counted from 0) of {self._name}")
        self._given.add(place)
        planned = self._planned[place]
        if callable(planned) and not isinstance(planned, BaseException):
            found = planned(request)
            planned = await found if inspect.isawaitable(found) else found
        if isinstance(planned, BaseException):
            raise planned
        reply = as_reply(planned)
        for delta in pieces(reply) if on_delta else ():
            on_delta(delta)  # type: ignore[misc]
        return replace(reply, model=reply.model or self._name)

    def assert_complete(self) -> None:
        """Check that every planned reply was asked for.

        Raises:
            UnplannedRequest: some were not.
        """
        if left := sorted(self._planned.keys() - self._given):
            raise UnplannedRequest(f"{self._name} was never asked for its replies {left} (counted from 0)")


def as_reply(planned: str | ToolCall | Sequence[ToolCall] | ModelReply) -> ModelReply:
    """The whole reply that a short form stands for."""
    if isinstance(planned, ModelReply):
        return planned
    if isinstance(planned, str):
        return ModelReply(parts=(Text(text=planned),) if planned else ())
    calls: tuple[ToolCall, ...] = (planned,) if isinstance(planned, ToolCall) else tuple(planned)
    return ModelReply(parts=calls, stop_reason=StopReason.TOOL_CALLS)


def pieces(reply: ModelReply) -> list[Delta]:
    """What somebody who watches the reply sees: its text and reasoning, word by word."""
    found: list[Delta] = []
    for part in reply.parts:
        if isinstance(part, Text | Reasoning):
            kind = TextDelta if isinstance(part, Text) else ReasoningDelta
            found.extend(kind(text=word) for word in re.findall(r"\s*\S+\s*|\s+", part.text))
    return found
