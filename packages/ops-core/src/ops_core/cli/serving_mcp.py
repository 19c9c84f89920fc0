"""What ``opspawn mcp serve`` does."""

from __future__ import annotations

import asyncio
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
        ConfigError: the extra is not installed.
    """
    if not mcp_is_installed():
        raise ConfigError("this needs the extra ops-core[mcp]", field="mcp")
    from ops_core.mcp_server.transports import serve_streams

    settings = read_settings()
    log_from(settings)
    closing = asyncio.Event()
    with stopped_by_signals(closing):
        async with open_ops(settings) as ops, ops.working() if worker else nullcontext():
            await unless_closing(closing, serve_streams(ops, closing))
    return Exit.OK
