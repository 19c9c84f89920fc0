"""Pins: the servers that were approved, with each tool as it was defined at that time.

A file of these is kept beside the code, like a lock of dependencies, and its changes are read like those. Agents are
shown the tools as they stand in it, so what a server says later reaches no model before a person has approved it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

from agentkit.errors import UsageError
from agentkit.mcp.definitions import Definition, twice
from agentkit.mcp.servers import McpServer

Standing: TypeAlias = Literal["approved", "new", "changed", "gone", "refused"]
"""How a tool stands: as it was approved; not approved yet; defined otherwise than it was approved; approved, and no
longer there; or not to be approved at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """What was approved of one server.

    Attributes:
        server: fingerprint of its declaration.
        tools: the definitions, by the server's names.
    """

    server: str
    tools: Mapping[str, Definition]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """What was approved, by the names of the servers."""

    servers: Mapping[str, Approved] = field(default_factory=dict[str, Approved])

    def of(self, server: McpServer) -> Approved | None:
        """What was approved of this very server; ``None`` for nothing, also where it is declared otherwise now."""
        approved = self.servers.get(server.name)
        return approved if approved is not None and approved.server == server.fingerprint else None

    def problem_of(self, server: McpServer) -> str | None:
        """Why nothing of this server may be used, in words; ``None`` where something may."""
        if server.name not in self.servers:
            return "nobody has approved its tools"
        if self.of(server) is None:
            return "it is declared otherwise than it was when its tools were approved"
        return None

    def approving(self, server: McpServer, definitions: Sequence[Definition]) -> Pins:
        """These, with ``definitions`` in the place of what was approved of ``server``.

        Raises:
            UsageError: one of them cannot be approved; the message says why.
        """
        for definition in definitions:
            if (problem := problem_with(definition, definitions)) is not None:
                raise UsageError(f"{server.name}: {definition.name[:64]!a} cannot be approved: {problem}")
        tools = {
            definition.name: definition for definition in sorted(definitions, key=lambda each: each.name)
        }
        approved = Approved(server=server.fingerprint, tools=tools)
        return Pins(servers={**self.servers, server.name: approved})

    def without(self, server: str) -> Pins:
        """These, with nothing of ``server``."""
        return Pins(servers={name: each for name, each in self.servers.items() if name != server})

    def as_text(self) -> str:
        """The file: JSON in a fixed order, one line for each thing that may change."""
        servers = {
            name: {
                "server": approved.server,
                "tools": {
                    tool: {"digest": each.digest, **each.as_json()} for tool, each in approved.tools.items()
                },
            }
            for name, approved in sorted(self.servers.items())
        }
        return json.dumps({"version": 1, "servers": servers}, indent=2, ensure_ascii=True) + "\n"

    @staticmethod
    def from_text(text: str) -> Pins:
        """What :meth:`as_text` made.

        Raises:
            UsageError: it is something else, or was changed by hand: nothing in it counts then.
        """
        try:
            whole: Any = json.loads(text)
            if whole["version"] != 1:
                raise UsageError("it was written by a newer release")
            return Pins(servers={name: _approved(each) for name, each in whole["servers"].items()})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UsageError("it is not what was written there") from None


def problem_with(definition: Definition, all_of_them: Sequence[Definition]) -> str | None:
    """Why a definition may not be used at all; ``None`` where it may."""
    if definition.name in twice(all_of_them):
        return "the server has more than one tool of this name"
    return definition.problem


def standings(
    server: McpServer, approved: Approved | None, definitions: Sequence[Definition]
) -> Mapping[str, Standing]:
    """How the tools of a server stand, those that it has now and those that were approved.

    Args:
        server: as declared; tools that it does not allow are left out.
        approved: what was approved of it.
        definitions: as the server lists them now.
    """
    pinned = dict[str, Definition]() if approved is None else approved.tools
    found: dict[str, Standing] = {name: "gone" for name in pinned if server.allows(name)}
    for definition in definitions:
        if not server.allows(definition.name):
            continue
        if problem_with(definition, definitions) is not None:
            found[definition.name] = "refused"
        elif definition.name not in pinned:
            found[definition.name] = "new"
        else:
            same = pinned[definition.name].digest == definition.digest
            found[definition.name] = "approved" if same else "changed"
    return found


def _approved(told: Mapping[str, Any]) -> Approved:
    tools: dict[str, Definition] = {}
    for name, each in cast("Mapping[str, Mapping[str, Any]]", told["tools"]).items():
        definition = Definition.of(each)
        if definition.digest != each["digest"] or definition.name != name or definition.problem is not None:
            raise UsageError(f"the definition of {name[:64]!a} was changed by hand")
        tools[name] = definition
    return Approved(server=told["server"], tools=tools)
