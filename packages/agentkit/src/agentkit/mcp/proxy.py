"""Proxy toolset: three tools stand for many. An agent searches for a tool and calls it by name.

The description of every tool costs tokens in every request; beyond a few dozen, searching is cheaper. A policy
sees calls of ``mcp_proxy`` with the server and the tool among the arguments, and the call behind it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentkit.errors import BadArguments, ToolError, UnknownTool
from agentkit.mcp.definitions import Definition, shown_name
from agentkit.mcp.toolset import McpToolset
from agentkit.messages import Effect, JsonObject, JsonValue, ToolCall, ToolSpec
from agentkit.ports import ToolContext

MAX_LISTED = 100
"""Tools that are listed at a time."""
MAX_FOUND = 10
_BRIEF = 160

_TEXT: JsonObject = {"type": "string"}


class McpProxy:
    """The tools ``mcp_list_tools``, ``mcp_search_tools`` and ``mcp_proxy``.

    Args:
        toolsets: of the servers that may be used.
    """

    def __init__(self, toolsets: Sequence[McpToolset]) -> None:
        self._toolsets = {toolset.server.name: toolset for toolset in toolsets}

    @property
    def servers(self) -> Sequence[str]:
        """Names of the servers."""
        return tuple(self._toolsets)

    async def specs(self) -> Sequence[ToolSpec]:
        """The three. No server is asked."""
        names = ", ".join(self._toolsets) or "none"
        return (
            ToolSpec(
                name="mcp_list_tools",
                description=f"List the tools of one server, in short. Servers: {names}.",
                parameters=_object({"server": _TEXT}, "server"),
                effect=Effect.PURE,
            ),
            ToolSpec(
                name="mcp_search_tools",
                description="Find tools on all servers by what they do. Gives the arguments that each one takes.",
                parameters=_object({"query": _TEXT}, "query"),
                effect=Effect.PURE,
            ),
            ToolSpec(
                name="mcp_proxy",
                description="Call a tool of a server. Look its arguments up with mcp_search_tools first.",
                parameters=_object(
                    {"server": _TEXT, "tool": _TEXT, "arguments": {"type": "object"}}, "server", "tool"
                ),
                effect=Effect.UNSAFE,
                reaches_out=any(toolset.server.reaches_out for toolset in self._toolsets.values()),
            ),
        )

    def uses(self, call: ToolCall) -> tuple[str, str]:
        """The server and the tool that are meant, where they are named."""
        server, behind = call.arguments.get("server"), self.behind(call)
        if not isinstance(server, str) or server not in self._toolsets:
            return "", ""
        return server, "" if behind is None else behind.name

    def behind(self, call: ToolCall) -> ToolCall | None:
        """The call of the tool itself, by the name that it has where it is not behind the proxy."""
        server, tool = call.arguments.get("server"), call.arguments.get("tool")
        if call.name != "mcp_proxy" or not isinstance(server, str) or not isinstance(tool, str):
            return None
        arguments = call.arguments.get("arguments")
        return ToolCall(
            id=call.id,
            name=shown_name(server, tool),
            arguments=arguments if isinstance(arguments, Mapping) else {},
        )

    async def call(self, call: ToolCall, context: ToolContext[Any]) -> JsonValue:
        """List, find or call.

        Raises:
            UnknownTool: there is no such server or tool.
            BadArguments: the arguments do not fit.
            ToolError: as of :meth:`McpToolset.call`.
        """
        match call.name:
            case "mcp_list_tools":
                toolset = self._toolset(_text(call.arguments, "server"))
                found = await toolset.definitions()
                listed: list[JsonValue] = [
                    {"tool": each.name, "about": _brief(each)} for each in found[:MAX_LISTED]
                ]
                return {"tools": listed, "complete": len(found) <= MAX_LISTED}
            case "mcp_search_tools":
                return await self._search(_text(call.arguments, "query"))
            case "mcp_proxy":
                return await self._proxy(call, context)
            case _:
                raise UnknownTool(f"there is no tool {call.name!r}")

    async def _search(self, query: str) -> JsonValue:
        words = _words(query)
        ranked: list[tuple[int, str, Definition]] = []
        away: list[str] = []
        for name, toolset in self._toolsets.items():
            try:
                found = await toolset.definitions()
            except ToolError as error:
                away.append(str(error))
                continue
            ranked += [(score, name, each) for each in found if (score := _score(words, name, each)) > 0]
        ranked.sort(key=lambda each: (-each[0], each[1], each[2].name))
        tools: list[JsonValue] = [
            {
                "server": server,
                "tool": each.name,
                "about": each.description or each.title,
                "arguments": each.parameters,
            }
            for _score_, server, each in ranked[:MAX_FOUND]
        ]
        return {"tools": tools, "complete": len(ranked) <= MAX_FOUND, "unavailable": away}

    async def examine(self, call: ToolCall) -> None:
        """See whether the arguments fit the tool that is to be called.

        Raises:
            UnknownTool, BadArguments: as of :meth:`call`.
            ToolQuarantined, McpUnavailable: as of :meth:`McpToolset.definitions`.
        """
        match call.name:
            case "mcp_proxy":
                _server, definition, arguments = await self._meant(call)
                definition.check(arguments)
            case "mcp_list_tools":
                self._toolset(_text(call.arguments, "server"))
            case _:
                _text(call.arguments, "query")

    async def _proxy(self, call: ToolCall, context: ToolContext[Any]) -> JsonValue:
        toolset, definition, arguments = await self._meant(call)
        return await toolset.carry_out(definition, arguments, context)

    async def _meant(self, call: ToolCall) -> tuple[McpToolset, Definition, JsonObject]:
        """The server, the tool and the arguments of a call of ``mcp_proxy``."""
        toolset = self._toolset(_text(call.arguments, "server"))
        name = _text(call.arguments, "tool")
        arguments = call.arguments.get("arguments", {})
        if not isinstance(arguments, Mapping):
            raise BadArguments("arguments: it must be an object")
        if unknown := set(call.arguments) - {"server", "tool", "arguments"}:
            raise BadArguments(
                f"{', '.join(sorted(unknown))}: the tool's own arguments belong into `arguments`"
            )
        found = {each.name: each for each in await toolset.definitions()}
        if name not in found:
            some = ", ".join(sorted(found)[:20]) or "none"
            raise UnknownTool(f"{toolset.server.name} has no tool {name!r}; it has: {some}")
        return toolset, found[name], arguments

    def _toolset(self, name: str) -> McpToolset:
        if name not in self._toolsets:
            raise UnknownTool(
                f"there is no server {name!r}; there are: {', '.join(self._toolsets) or 'none'}"
            )
        return self._toolsets[name]


def _object(properties: Mapping[str, JsonValue], *required: str) -> JsonObject:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def _text(arguments: JsonObject, name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadArguments(f"{name}: a text is required")
    return value


def _brief(definition: Definition) -> str:
    line = " ".join((definition.description or definition.title).split())
    return line if len(line) <= _BRIEF else f"{line[:_BRIEF]}…"


def _words(text: str) -> frozenset[str]:
    spread = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text)
    return frozenset(word.rstrip("s") for word in re.findall(r"[^\W_]{2,}", spread.lower()))


def _score(words: frozenset[str], server: str, definition: Definition) -> int:
    """A word of the name counts for three of the description."""
    named = _words(f"{server} {definition.name} {definition.title}")
    told = _words(definition.description)
    return 3 * len(words & named) + len(words & told)
