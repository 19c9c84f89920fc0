"""Context of a pool: the settings and callbacks that the connections to all its servers share."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Protocol

from agentkit.mcp.oauth.tokens import Login, TokenFolder
from agentkit.messages import JsonObject
from agentkit.sandbox import Grants, Sandboxes


class Elicit(Protocol):
    """Answers what a server asks a person in the middle of a call."""

    async def __call__(self, server: str, message: str, schema: JsonObject, /) -> JsonObject | None:
        """The fields that were filled in, or ``None`` for a refusal.

        Args:
            server: its name.
            message: what it says; characters that nobody sees are made visible.
            schema: JSON schema of the form.
        """
        ...


class Watch(Protocol):
    """Told what happens at servers, by the names of their declarations. Nothing here waits, and nothing raises."""

    def called(self, server: str, outcome: str, seconds: float, /) -> None:
        """A call has ended: ``ok``, ``failed`` where the tool says so, ``cancelled``, or the code of the error."""
        ...

    def opened(self, server: str, error: str | None, /) -> None:
        """A connection was opened, or not, with the code of the error."""
        ...

    def closed(self, server: str, /) -> None:
        """A connection that was opened has ended."""
        ...


class Unwatched:
    """Nobody wants to know."""

    def called(self, server: str, outcome: str, seconds: float, /) -> None:
        """Not told."""

    def opened(self, server: str, error: str | None, /) -> None:
        """Not told."""

    def closed(self, server: str, /) -> None:
        """Not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolContext:
    """Attributes:
    variables: fill in what declarations leave open; the environment of the process as a rule.
    tokens: where is kept what people have granted.
    sandboxes: in which programs run; open as long as the connections are.
    granted: what programs see in the jail, by the names of their servers; resolved once for all connections.
    folder: where programs run; that of the process where empty.
    login: a person who can log in now.
    elicit: a person who can answer servers now.
    watch: told what happens.
    """

    variables: Mapping[str, str]
    tokens: TokenFolder
    sandboxes: Sandboxes
    granted: MutableMapping[str, Grants] = field(default_factory=dict[str, Grants])
    folder: str = ""
    login: Login | None = None
    elicit: Elicit | None = None
    watch: Watch = field(default_factory=Unwatched)
