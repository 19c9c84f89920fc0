"""The process of a server that speaks over its standard streams.

:func:`started` is the only place that starts one: what confines such a process belongs there.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress

from agentkit.errors import McpUnavailable
from agentkit.mcp.servers import McpServer

MOST_LINE = 8 * 1024 * 1024
"""Bytes of one message."""

_EXIT_SECONDS = 2.0
"""So long a process may take to end by itself, and after that to end when it is asked to."""

INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "SYSTEMROOT",
    "PATHEXT",
    "TEMP",
    "APPDATA",
    "USERPROFILE",
)
"""All that a server sees of the environment of this process; keys and tokens are not among them."""


async def started(server: McpServer, environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    """The process, in a session of its own.

    Args:
        server: resolved, with a command.
        environment: of this process.

    Raises:
        McpUnavailable: it cannot be started.
    """
    assert server.command is not None
    env = {name: environment[name] for name in INHERITED if name in environment}
    try:
        return await asyncio.create_subprocess_exec(
            server.command,
            *server.args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env | dict(server.env),
            cwd=server.cwd,
            start_new_session=True,
            limit=MOST_LINE,
        )
    except (OSError, ValueError) as error:
        why = (
            error.strerror
            if isinstance(error, OSError)
            else "its command, arguments or environment cannot be"
        )
        raise McpUnavailable(f"{server.name}: the program cannot be started: {why}") from None


async def ended(process: asyncio.subprocess.Process) -> None:
    """End a process with all that it has started: by closing its input, else by signals. Bounded in time."""
    if process.stdin is not None:
        process.stdin.close()
    for sign in (None, signal.SIGTERM):
        if sign is not None:
            _signal(process, sign)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _EXIT_SECONDS)
            break
    _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))  # what it left behind, too
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), _EXIT_SECONDS)


def _signal(process: asyncio.subprocess.Process, sign: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, sign)
        elif process.returncode is None:
            process.send_signal(sign)
