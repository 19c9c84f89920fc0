"""MCP servers, for ``opspawn doctor``: all asked at the same time, each for a bounded time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

from agentkit.errors import ToolError, UsageError
from agentkit.mcp import McpPool, McpServer, Pins, standings
from ops_core.cli.doctor.finding import Finding, State
from ops_core.cli.terminal.step_lines import counted

SECONDS = 15.0
"""So long all of them may take together."""

_ABOUT = "MCP servers"


async def examine_servers(pool: McpPool) -> AsyncIterator[Finding]:
    """One finding for each server: where it runs, whether it can be used, and whether its tools are as approved."""
    if not pool.servers:
        return
    async with pool:
        asked = {name: asyncio.create_task(_asked(pool, server)) for name, server in pool.servers.items()}
        await asyncio.wait(asked.values(), timeout=SECONDS)
        for name, task in asked.items():
            if task.done():
                yield task.result()
            else:
                task.cancel()
                where = _where(pool.servers[name])
                yield _finding(name, "warning", f"{where}: it does not answer within {SECONDS:g} s")


async def _asked(pool: McpPool, server: McpServer) -> Finding:
    where, name = _where(server), server.name
    if (problem := pool.problem_of(name)) is not None:  # a program that nobody has approved is not started
        return _finding(name, "missing", f"{where}: {problem}")
    connection = pool.connection(name)
    try:
        definitions = await connection.tools()
    except (ToolError, UsageError) as error:
        said = f" (it said: {connection.last_words})" if connection.last_words else ""
        return _finding(name, "warning", f"{where}: {error}{said}")
    found = Counter(standings(server, (pool.pins or Pins()).of(server), definitions).values())
    approved = found.pop("approved", 0) if pool.pins is not None else len(definitions)
    others = (
        "".join(f", {count} {standing}" for standing, count in sorted(found.items())) if pool.pins else ""
    )
    text = f"{where}, {connection.revision or 'no revision'}: {counted(approved, 'tool')} as approved{others}"
    if others:
        return _finding(name, "warning", f"{text}: `opspawn mcp inspect {name}`")
    return _finding(name, "ok", text)


def _where(server: McpServer) -> str:
    if server.url is not None:
        return "at a url"
    return "in the jail" if server.sandbox == "jail" else "outside of the jail"


def _finding(name: str, state: State, text: str) -> Finding:
    return Finding(about=_ABOUT, name=name, state=state, text=text)
