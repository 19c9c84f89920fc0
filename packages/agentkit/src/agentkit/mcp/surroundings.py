"""What connections find where they run: the same for all servers of a pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from agentkit.mcp.oauth import Login, TokenFolder
from agentkit.messages import JsonObject
from agentkit.sandbox import Sandboxes


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Attributes:
    variables: fill in what declarations leave open; the environment of the process as a rule.
    tokens: where is kept what people have granted.
    sandboxes: in which programs run; open as long as the connections are.
    folder: where programs run; that of the process where empty.
    login: a person who can log in now.
    elicit: a person who can answer servers now.
    """

    variables: Mapping[str, str]
    tokens: TokenFolder
    sandboxes: Sandboxes
    folder: str = ""
    login: Login | None = None
    elicit: Elicit | None = None
