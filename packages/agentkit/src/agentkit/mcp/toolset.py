"""Tools of an MCP server as a :class:`~agentkit.ports.Toolset`."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from agentkit.errors import BadArguments, ToolError, ToolQuarantined, UnknownTool
from agentkit.mcp.content import contents_of, error_of, output_of
from agentkit.mcp.definitions import Definition, shown_name
from agentkit.mcp.pins import Pins, problem_with, standings
from agentkit.mcp.servers import McpServer
from agentkit.messages import Effect, JsonObject, JsonValue, ToolCall, ToolSpec
from agentkit.ports import ToolContext
from agentkit.untrusted.secrets import Secrets
from agentkit.untrusted.text import visible

log = logging.getLogger("agentkit.mcp")

_MAX_PROGRESS = 300
_PROGRESS_SECONDS = 0.05

MAX_LISTED = 200
"""Resources that are listed at a time."""


class Calls(Protocol):
    """What a toolset needs of a connection; see :class:`agentkit.mcp.connection.Connection`."""

    @property
    def secrets(self) -> Secrets: ...
    async def tools(self) -> Sequence[Definition]: ...
    async def call(
        self, tool: str, arguments: Mapping[str, Any], *, progress: Any = None, again: bool = False
    ) -> Any: ...
    async def resources(self) -> Sequence[Any]: ...
    async def read(self, uri: str) -> Any: ...


class McpToolset:
    """The tools of one server, each called ``server__tool``.

    With pins they are those that were approved, whether the server is there or not; without, those that the server
    lists. A definition that cannot be used is left out, and logged.

    Args:
        server: as declared.
        connection: gives the connection to it.
        pins: what was approved; ``None`` where nothing has to be.
    """

    def __init__(self, server: McpServer, connection: Callable[[], Calls], pins: Pins | None) -> None:
        self.server = server
        self._connection = connection
        self._pins = pins
        self._told = set[str]()

    async def specs(self) -> Sequence[ToolSpec]:
        """The tools that can be called.

        Raises:
            ToolQuarantined: nobody has approved anything of this server.
            McpUnavailable: without pins, it has to be asked, and cannot be.
        """
        found = [definition.spec(self.server) for definition in await self.definitions()]
        return [*found, *(_resource_specs(self.server) if self.server.resources else ())]

    async def definitions(self) -> Sequence[Definition]:
        """The tools that can be called, as the server defines them.

        Raises:
            ToolQuarantined, McpUnavailable: as :meth:`specs`.
        """
        if self._pins is None:
            listed = await self._connection().tools()
            problems = {each.name: problem_with(each, listed) for each in listed}
            self._warn({name: problem for name, problem in problems.items() if problem is not None})
            return [each for each in listed if problems[each.name] is None]
        approved = self._pins.of(self.server)
        if approved is None:
            problem = self._pins.problem_of(self.server)
            raise ToolQuarantined(f"the MCP server {self.server.name} cannot be used: {problem}")
        return [each for each in approved.tools.values() if self.server.allows(each.name)]

    def uses(self, call: ToolCall) -> tuple[str, str]:
        """The server, whatever is called."""
        return self.server.name, ""

    async def call(self, call: ToolCall, context: ToolContext[Any]) -> JsonValue:
        """Call the tool on its server.

        Raises:
            UnknownTool: there is none of this name.
            BadArguments: the arguments do not fit.
            ToolQuarantined: it is defined otherwise now than it was when it was approved.
            McpUnavailable: the server cannot be reached, or went away meanwhile.
            ToolTimeout: it did not answer in time, and was told that no answer is wanted any more.
            ToolError: the tool, or the server, says that the call failed.
        """
        if self.server.resources and call.name in {spec.name for spec in _resource_specs(self.server)}:
            return await self._cut_secrets(self._about_resources(call))
        known = {shown_name(self.server.name, each.name): each for each in await self.definitions()}
        definition = known.get(call.name)
        if definition is None:
            raise UnknownTool(f"there is no tool {call.name!r}; there are: {', '.join(known) or 'none'}")
        return await self.carry_out(definition, call.arguments, context)

    async def examine(self, call: ToolCall) -> None:
        """See whether the arguments fit the definition that was approved, as far as can be seen without running it.

        Raises:
            UnknownTool, BadArguments: as of :meth:`call`.
            ToolQuarantined, McpUnavailable: as of :meth:`definitions`.
        """
        for definition in await self.definitions():
            if shown_name(self.server.name, definition.name) == call.name:
                definition.check(call.arguments)

    async def carry_out(
        self, definition: Definition, arguments: JsonObject, context: ToolContext[Any]
    ) -> JsonValue:
        """:meth:`call` of a tool that :meth:`definitions` has given."""
        return await self._cut_secrets(self._carried_out(definition, arguments, context))

    async def _cut_secrets(self, answer: Awaitable[JsonValue]) -> JsonValue:
        """The answer, or why there is none, without the secrets that the server was given and repeats."""
        try:
            found = await answer
        except ToolError as error:
            error.args = (self._connection().secrets.hidden(str(error)),)
            raise
        told: JsonValue = self._connection().secrets.hidden(found)
        return told

    async def _carried_out(
        self, definition: Definition, arguments: JsonObject, context: ToolContext[Any]
    ) -> JsonValue:
        definition.check(arguments)
        await self._check(definition)
        effect = self.server.effect_of(definition.name)

        told_at = 0.0

        async def progress(done: float, total: float | None, message: str | None) -> None:
            nonlocal told_at
            now = time.monotonic()
            if now - told_at < _PROGRESS_SECONDS and done != total:
                return  # nobody reads faster, and a server may send any number
            told_at = now
            told = message or (f"{done:g}" if total is None else f"{done:g} of {total:g}")
            shown = str(visible(self._connection().secrets.hidden(told)))
            context.report(shown if len(shown) <= _MAX_PROGRESS else f"{shown[:_MAX_PROGRESS]} …")

        result = await self._connection().call(
            definition.name, arguments, progress=progress, again=effect is not Effect.UNSAFE
        )
        blocks = [block.model_dump(by_alias=True, mode="json", exclude_none=True) for block in result.content]
        if result.is_error:
            raise ToolError(error_of(blocks, result.structured_content))
        return output_of(blocks, result.structured_content)

    async def _check(self, definition: Definition) -> None:
        """A server that was approved may have been exchanged since: what it says now is compared before each call."""
        if self._pins is None:
            return
        now = standings(self.server, self._pins.of(self.server), await self._connection().tools())
        self._warn({name: _ABOUT[how] for name, how in now.items() if how != "approved"})
        standing = now.get(definition.name, "gone")
        if standing == "gone":
            raise UnknownTool(f"{self.server.name} has no tool {definition.name} any more")
        if standing != "approved":
            raise ToolQuarantined(f"{definition.name} may not be called: {_ABOUT[standing]}")

    def _warn(self, problems: Mapping[str, str]) -> None:
        """Say it once each."""
        for name, problem in problems.items():
            line = f"MCP server {self.server.name}: tool {name[:64]!a}: {problem}"
            if line not in self._told and len(self._told) < 1000:
                self._told.add(line)
                log.warning("%s", line)

    # --- resources ------------------------------------------------------------------------------------------------

    async def _about_resources(self, call: ToolCall) -> JsonValue:
        if call.name.endswith("__list_resources"):
            found = await self._connection().resources()
            told = [
                {"uri": each.uri, "name": each.name, "description": each.description or ""}
                for each in found[:MAX_LISTED]
            ]
            return {"resources": told, "complete": len(found) <= MAX_LISTED}
        uri = call.arguments.get("uri")
        if not isinstance(uri, str) or not uri:
            raise BadArguments("uri: the address of a resource is required")
        result = await self._connection().read(uri)
        return contents_of(
            [each.model_dump(by_alias=True, mode="json", exclude_none=True) for each in result.contents]
        )


_ABOUT = {
    "new": "nobody has approved it",
    "changed": "its definition has changed since it was approved",
    "gone": "it was approved, and the server has it no longer",
    "refused": "its definition cannot be used",
}


def _resource_specs(server: McpServer) -> Sequence[ToolSpec]:
    return (
        ToolSpec(
            name=f"{server.name}__list_resources",
            description=f"List what the server {server.name} offers to be read.",
            parameters={"type": "object", "properties": {}, "additionalProperties": False},
            effect=Effect.PURE,
            timeout_seconds=server.call_seconds,
            reaches_out=server.reaches_out,
        ),
        ToolSpec(
            name=f"{server.name}__read_resource",
            description=f"Read a resource of the server {server.name}.",
            parameters={
                "type": "object",
                "properties": {"uri": {"type": "string", "description": "Its address, as it was listed."}},
                "required": ["uri"],
                "additionalProperties": False,
            },
            effect=Effect.PURE,
            timeout_seconds=server.call_seconds,
            reaches_out=server.reaches_out,
        ),
    )
