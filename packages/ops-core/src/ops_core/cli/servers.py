"""What the commands about MCP servers do."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path

from agentkit.errors import McpUnavailable, ToolError, UsageError
from agentkit.mcp import Definition, McpPool, McpServer, Pins, Standing, standings
from agentkit.mcp.pins import problem_with
from ops_core.assembly import CONFIG_FILE
from ops_core.cli.exits import Exit
from ops_core.cli.narration import counted
from ops_core.cli.prompt import can_ask, confirm
from ops_core.cli.screen import Screen
from ops_core.cli.text import one_line, visible
from ops_core.declared import read_catalog
from ops_core.errors import ConfigError, InvalidRequest
from ops_core.mcp import lock_of, write_pins
from ops_core.settings import read_settings

_ABOUT: Mapping[Standing, tuple[str, str]] = {
    "approved": ("good", "as it was approved"),
    "new": ("person", "new: not approved"),
    "changed": ("bad", "changed since it was approved"),
    "gone": ("quiet", "approved, and gone"),
    "refused": ("bad", "cannot be used"),
}
_ORDER: Sequence[Standing] = ("refused", "changed", "new", "gone", "approved")


@dataclass(frozen=True, slots=True)
class Declared:
    """Attributes:
    pool: the servers that are declared and enabled.
    lock: the file of what was approved.
    """

    pool: McpPool
    lock: Path

    @property
    def pins(self) -> Pins:
        return self.pool.pins or Pins()

    def server(self, name: str) -> McpServer:
        try:
            return self.pool.get(name)
        except UsageError as error:
            raise InvalidRequest(str(error), field="server") from None


def declared_here() -> Declared:
    settings = read_settings()
    if settings.app is not None:
        message = "agents are declared in Python here (OPSPAWN_APP): what is approved is given to their McpPool there"
        raise ConfigError(message, field="app")
    file = settings.config or Path.cwd() / CONFIG_FILE
    return Declared(read_catalog(file).mcp, lock_of(file))


async def list_servers(as_json: bool) -> Exit:
    """Each server, as far as it can be told without asking it."""
    declared, screen = declared_here(), Screen()
    for name, server in declared.pool.servers.items():
        problem = declared.pool.problem_of(name)
        approved = declared.pins.of(server)
        tools = 0 if approved is None else len(approved.tools)
        way = server.url or " ".join([server.command or "", *server.args])
        if as_json:
            screen.json({"name": name, "way": way, "approved": tools, "problem": problem})
            continue
        screen.say(f"{name}  {one_line(way)}", "strong")
        if problem is None:
            screen.say(f"{counted(tools, 'tool')} approved", "good", indent=4)
        else:
            screen.say(f"cannot be used: {one_line(problem)}", "bad", indent=4)
    if not declared.pool.servers and screen.is_terminal:
        screen.say("no MCP server is declared", "quiet")
    return Exit.OUTPUT_CLOSED if screen.closed else Exit.OK


async def inspect(name: str, as_json: bool) -> Exit:
    """Each tool as it is now, beside what was approved."""
    declared = declared_here()
    server = declared.server(name)
    definitions = await _asked(declared, server)
    found = standings(server, declared.pins.of(server), definitions)
    screen = Screen()
    if as_json:
        for definition in definitions:
            standing = found.get(definition.name, "not allowed")
            screen.json({"standing": standing, "digest": definition.digest, **definition.as_json()})
        for tool in (tool for tool, standing in found.items() if standing == "gone"):
            screen.json({"standing": "gone", "name": tool})
    else:
        _show(screen, declared, server, definitions, found)
    as_approved = all(standing == "approved" for standing in found.values())
    return Exit.OK if as_approved else Exit.FAILED


async def approve(name: str, tools: Sequence[str], *, yes: bool) -> Exit:
    """Approve what the server offers now, after somebody has seen it."""
    declared, screen = declared_here(), Screen()
    server = declared.server(name)
    definitions = await _asked(declared, server)
    found = standings(server, declared.pins.of(server), definitions)
    wanted = _wanted(declared.pins, server, definitions, tools)
    changes: dict[str, Standing] = {
        tool: standing for tool, standing in found.items() if standing != "approved"
    }
    _show(screen, declared, server, definitions, changes)
    fresh = declared.pins.approving(server, wanted)
    if fresh == declared.pins:
        screen.say(f"nothing to approve: {counted(len(wanted), 'tool')} of {name} as approved", "good")
        return Exit.OK
    if not yes:
        if not can_ask(screen):
            raise InvalidRequest("there is no terminal to ask at: --yes approves what is shown", field="yes")
        if not await confirm(screen, f"approve {counted(len(wanted), 'tool')} of {name}?"):
            screen.say("nothing was approved", "quiet")
            return Exit.FAILED
    write_pins(declared.lock, fresh)
    screen.say(f"approved {counted(len(wanted), 'tool')} of {name}: {declared.lock.name}", "good")
    return Exit.OK


async def test(name: str) -> Exit:
    """Open a connection, and say what comes of it."""
    declared, screen = declared_here(), Screen()
    server = declared.server(name)
    began = time.monotonic()
    async with declared.pool as pool:
        connection = pool.connection(name)
        try:
            definitions = await connection.tools()
        except (ToolError, UsageError) as error:
            screen.say(visible(str(error)), "bad")
            if connection.last_words:
                screen.say(f"it said: {visible(connection.last_words)}", "quiet")
            return Exit.FAILED
        seconds = time.monotonic() - began
        found = standings(server, declared.pins.of(server), definitions)
        counts = {standing: list(found.values()).count(standing) for standing in _ORDER}
        screen.pairs(
            {
                "server": name,
                "protocol": connection.revision or "none",
                "opened in": f"{seconds:.2f} s",
                "tools": ", ".join(f"{count} {standing}" for standing, count in counts.items() if count)
                or "none",
            }
        )
    return Exit.OK


async def _asked(declared: Declared, server: McpServer) -> Sequence[Definition]:
    async with declared.pool as pool:
        try:
            return await pool.connection(server.name).tools()
        except McpUnavailable as error:
            words = pool.connection(server.name).last_words
            raise ConfigError(f"{error}{f' (it said: {words})' if words else ''}", field="server") from None


def _wanted(
    pins: Pins, server: McpServer, definitions: Sequence[Definition], tools: Sequence[str]
) -> Sequence[Definition]:
    """What is to be approved: what can be, or of that what is named, beside what was approved before."""
    usable = {each.name: each for each in definitions if problem_with(each, definitions) is None}
    if not tools:
        return tuple(usable.values())
    if missing := [tool for tool in tools if tool not in usable]:
        raise InvalidRequest(
            f"{server.name} has no tool that can be approved: {', '.join(missing)}", field="tool"
        )
    before = pins.of(server)
    kept = {} if before is None else dict(before.tools)
    return tuple((kept | {tool: usable[tool] for tool in tools}).values())


def _show(
    screen: Screen,
    declared: Declared,
    server: McpServer,
    definitions: Sequence[Definition],
    found: Mapping[str, Standing],
) -> None:
    now = {each.name: each for each in definitions}
    before = declared.pins.of(server)
    for name in sorted(found, key=lambda name: (_ORDER.index(found[name]), name)):
        tone, about = _ABOUT[found[name]]
        if found[name] == "refused":
            about = f"{about}: {problem_with(now[name], definitions)}"
        screen.say(f"{one_line(name)}  ({about})", tone)
        if found[name] == "changed" and before is not None:
            screen.say(visible(_difference(before.tools[name], now[name])), indent=4)
        elif found[name] != "gone" and name in now:
            screen.say(visible(now[name].description or now[name].title or "no description"), indent=4)
            screen.say(f"arguments: {visible(json.dumps(now[name].parameters))}", "quiet", indent=4)
            screen.say(f"effect: {server.effect_of(name)}", "quiet", indent=4)


def _difference(before: Definition, now: Definition) -> str:
    old, new = (json.dumps(each.as_json(), indent=1).splitlines() for each in (before, now))
    return "\n".join(list(unified_diff(old, new, "approved", "now", lineterm="", n=1)))
