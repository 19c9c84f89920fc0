"""What ``opspawn mcp serve`` does."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from contextlib import nullcontext

from ops_core.assembly import open_ops
from ops_core.cli.exits import Exit
from ops_core.cli.serving import log_from
from ops_core.closing import stopped_by_signals, unless_closing
from ops_core.errors import ConfigError
from ops_core.server import mcp_is_installed
from ops_core.settings import read_settings


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
