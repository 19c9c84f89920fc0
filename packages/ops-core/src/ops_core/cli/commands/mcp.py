"""``opspawn mcp``: MCP servers that agents use, what was approved of them, logins, and agents served over MCP."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
import time
import webbrowser
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ops_core.cli import phase
from ops_core.cli.exit_codes import Exit
from ops_core.cli.groups import CommandGroup
from ops_core.cli.options import Json, do

if TYPE_CHECKING or phase.to_run:
    from agentkit.errors import McpUnavailable, ToolError, UsageError
    from agentkit.mcp import Definition, LoopbackLogin, McpPool, McpServer, Pins, Standing, standings
    from agentkit.mcp.pins import problem_with
    from ops_core.assembly import CONFIG_FILE, open_ops
    from ops_core.cli.commands.serve import log_from
    from ops_core.cli.terminal.prompt import can_ask, confirm
    from ops_core.cli.terminal.screen import Screen
    from ops_core.cli.terminal.step_lines import counted
    from ops_core.cli.terminal.text import one_line, visible
    from ops_core.concurrency.shutdown import stopped_by_signals, unless_closing
    from ops_core.config.loader import read_catalog
    from ops_core.config.mcp import lock_of, write_pins
    from ops_core.errors import ConfigError, InvalidRequest
    from ops_core.processes.server import mcp_is_installed
    from ops_core.settings import read_settings

app = typer.Typer(
    cls=CommandGroup,
    help="The MCP servers that agents use, and what was approved of them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name: TypeAlias = Annotated[
    str, typer.Argument(metavar="SERVER", help="Its name in opspawn.toml.", show_default=False)
]


@app.command(name="list")
def list_servers(as_json: Json = False) -> None:
    """List the servers that are declared, and whether their tools may be used. None is asked."""
    do(_list_servers(as_json))


@app.command()
def inspect(server: Name, as_json: Json = False) -> None:
    """Ask a server for its tools, and show each as it is defined now, beside what was approved.

    Ends with 1 where something is not as it was approved.
    """
    do(_inspect(server, as_json))


@app.command()
def approve(
    server: Name,
    tool: Annotated[
        list[str] | None,
        typer.Option("--tool", metavar="NAME", help="Only this tool; may be repeated.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; for whoever has inspected them.")] = False,
) -> None:
    """Show what has changed since the last approval, and approve the tools of a server as they are defined now.

    What is approved is written into the file beside opspawn.toml that ends in .mcp.lock: commit it. Agents are shown
    the tools as they stand there. Without a terminal, --yes is needed.
    """
    do(_approve(server, tuple(tool or ()), yes=yes))


@app.command()
def login(
    server: Name,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Only show the address; do not open it.")
    ] = False,
) -> None:
    """Log in at the authorization server of a server, in a browser on this machine, and keep what it grants.

    What is granted is kept in a file that its owner alone may read; workers that see it go on with it.
    """
    do(_login(server, browser=not no_browser))


@app.command()
def logout(server: Name) -> None:
    """Delete what was granted for a server. The authorization server is not told."""
    do(_logout(server))


@app.command()
def serve(
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Only hand tasks in; other workers carry them.")
    ] = False,
) -> None:
    """Offer the agents as tools over standard input and output, until the input ends.

    A program that speaks MCP starts this by itself. `opspawn serve` offers the same at /mcp, for many at a time.
    """
    from ops_core.processes.event_loop import run_lasting

    raise typer.Exit(run_lasting(serve_streams_here(worker=not no_worker)))


@app.command()
def test(server: Name) -> None:
    """Open a connection to a server, and say what comes of it. Ends with 1 where none can be opened."""
    do(_test(server))


SECONDS = 300.0
"""So long a person may take."""


async def _login(name: str, *, browser: bool) -> Exit:
    """Send a person to the authorization server of a server, and keep what comes of it."""
    declared, screen = declared_here(), Screen()
    server = _of_a_person(declared, name)
    assert server.oauth is not None

    async def show(url: str) -> None:
        screen.say("log in there; the answer is awaited here:", "person")
        screen.raw(url)
        if browser and can_ask(screen):
            await asyncio.to_thread(webbrowser.open, url)

    try:
        async with (
            LoopbackLogin(show, port=server.oauth.redirect_port, seconds=SECONDS) as person,
            declared.pool.logging_in(name, person, SECONDS) as pool,
        ):
            await pool.toolset(name).definitions()
    except (ToolError, UsageError) as error:
        screen.say(visible(str(error)), "bad")
        return Exit.FAILED
    except OSError as error:
        message = f"no answer can be awaited at port {server.oauth.redirect_port}: {error.strerror}"
        raise ConfigError(message, field="redirect_port") from None
    if declared.pool.problem_of_login(name) is not None:
        screen.say(f"{name} has asked for no login", "quiet")
        return Exit.OK
    screen.say(f"logged in at {name}", "good")
    return Exit.OK


async def _logout(name: str) -> Exit:
    """Delete what was granted."""
    declared, screen = declared_here(), Screen()
    _of_a_person(declared, name)
    if declared.pool.tokens.forget(name):
        screen.say(f"logged out at {name}", "good")
    else:
        screen.say(f"nobody was logged in at {name}", "quiet")
    return Exit.OK


def _of_a_person(declared: Declared, name: str) -> McpServer:
    server = declared.server(name)
    if server.oauth is None or server.oauth.grant != "authorization_code":
        message = f"nobody logs in at {name}: it is not declared with [mcp.servers.{name}.oauth] for a person"
        raise InvalidRequest(message, field="server")
    return server


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


async def _list_servers(as_json: bool) -> Exit:
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


async def _inspect(name: str, as_json: bool) -> Exit:
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


async def _approve(name: str, tools: Sequence[str], *, yes: bool) -> Exit:
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


async def _test(name: str) -> Exit:
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


async def serve_streams_here(*, worker: bool) -> Exit:
    """Agents over standard input and output, until the input ends or a signal comes.

    Raises:
        ConfigError: the extra is not installed, or no client is at the other end of the streams.
    """
    if not mcp_is_installed():
        raise ConfigError("this needs the extra opspawn[mcp]", field="mcp")
    from ops_core.mcp_server.transports import serve_streams

    _check_streams()
    settings = read_settings()
    log_from(settings)
    closing = asyncio.Event()
    with stopped_by_signals(closing):
        async with open_ops(settings) as ops, ops.working() if worker else nullcontext():
            await unless_closing(closing, serve_streams(ops, closing))
    return Exit.OK


def _check_streams() -> None:
    """A file or /dev/null cannot be waited for: libuv ends the whole process over it."""
    for stream, name in ((sys.stdin, "input"), (sys.stdout, "output")):
        mode = os.fstat(stream.fileno()).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stream.isatty()):
            message = f"its standard {name} is a file, where mcp serve needs an MCP client that starts it"
            raise ConfigError(message, field="mcp")
