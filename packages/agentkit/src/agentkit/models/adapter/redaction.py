"""Redaction of replies: the key, or a header of the request, is cut where a model server repeats it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar, cast

from agentkit.errors import ModelError, ModelMistaken
from agentkit.messages import (
    Attachment,
    Delta,
    ModelReply,
    ModelRequest,
    Opaque,
    Part,
    ReasoningDelta,
    Source,
    TextDelta,
    ToolCall,
)
from agentkit.ports import OnDelta
from agentkit.untrusted.secrets import Secrets, looks_secret

_TEXTS = ("text", "invalid", "title", "quote", "url", "name")


Reply = TypeVar("Reply", bound=Callable[..., Awaitable[ModelReply]])


def secrets_of(key: str | None, headers: Mapping[str, str]) -> Secrets:
    """What an adapter was given, and nobody is to be told."""
    telling = {name: value for name, value in headers.items() if looks_secret(name, value)}
    return Secrets.of_headers(telling, [] if key is None else [("api_key", key)])


def cut_secrets(reply: Reply) -> Reply:
    """Cut the secrets of an adapter out of what its ``reply`` returns, shows and raises."""

    async def told(self: Any, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        secrets: Secrets = self.secrets
        shown = None if on_delta is None else _Shown(on_delta, secrets)
        try:
            found = await reply(self, request, shown)
        except ModelError as error:
            if isinstance(error, ModelMistaken):
                error.reply = _without(error.reply, secrets)
            error.args = tuple(secrets.hidden(list(error.args)))
            error.reason = secrets.hidden(error.reason)
            raise
        finally:
            if shown is not None:
                shown.end()
        return _without(found, secrets)

    return cast("Reply", wraps(reply)(told))


def _without(reply: ModelReply, secrets: Secrets) -> ModelReply:
    changed: dict[str, Any] = {}
    parts = tuple(_part_without(part, secrets) for part in reply.parts)
    if parts != reply.parts:
        changed["parts"] = parts
    for name in ("model", "problem", "declined_because"):
        value = getattr(reply, name)
        if value and (hidden := secrets.hidden(value)) != value:
            changed[name] = hidden
    return replace(reply, **changed) if changed else reply


def _part_without(part: Part, secrets: Secrets) -> Part:
    changed: dict[str, Any] = {}
    for name in _TEXTS:
        value = getattr(part, name, None)
        if isinstance(value, str) and (hidden := secrets.hidden(value)) != value:
            changed[name] = hidden
    if isinstance(part, ToolCall) and (arguments := secrets.hidden(part.arguments)) != part.arguments:
        changed["arguments"] = arguments
    if isinstance(part, Attachment | Source):
        return replace(part, **changed) if changed else part
    data = secrets.hidden(part.data)
    if isinstance(part, Opaque):
        return part if data == part.data else Opaque(data=data)
    if part.data is not None and (changed or data != part.data):
        changed["data"] = None  # a provider refuses a text that is not the one which it has signed
    return replace(part, **changed) if changed else part


class _Shown:
    """Shows pieces of a reply, without what may be the beginning of a secret until it is known that it is none."""

    def __init__(self, on_delta: OnDelta, secrets: Secrets) -> None:
        self._on_delta = on_delta
        self._secrets = secrets
        self._kind: type[TextDelta | ReasoningDelta] = TextDelta
        self._rest = ""

    def __call__(self, delta: Delta) -> None:
        if not isinstance(delta, TextDelta | ReasoningDelta):
            self.end()
            self._on_delta(delta)
            return
        if type(delta) is not self._kind:
            self.end()
            self._kind = type(delta)
        text = self._secrets.hidden(self._rest + delta.text)
        held = self._secrets.held_back(text)
        self._rest = text[len(text) - held :]
        if shown := text[: len(text) - held]:
            self._on_delta(self._kind(text=shown))

    def end(self) -> None:
        """Show what was held back."""
        rest, self._rest = self._rest, ""
        if rest:
            self._on_delta(self._kind(text=rest))
