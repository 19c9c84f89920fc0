"""What the commands about logins at MCP servers do."""

from __future__ import annotations

import asyncio
import webbrowser

from agentkit.errors import ToolError, UsageError
from agentkit.mcp import LoopbackLogin, McpServer
from ops_core.cli.exits import Exit
from ops_core.cli.prompt import can_ask
from ops_core.cli.screen import Screen
from ops_core.cli.servers import Declared, declared_here
from ops_core.cli.text import visible
from ops_core.errors import ConfigError, InvalidRequest

SECONDS = 300.0
"""So long a person may take."""


async def login(name: str, *, browser: bool) -> Exit:
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


async def logout(name: str) -> Exit:
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
