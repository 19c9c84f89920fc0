"""Transports of the MCP server: standard streams, and ``/mcp`` over HTTP."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ops_core.assembly import Ops
from ops_core.mcp_server.server import AgentServer

PATH = "/mcp"
MAX_SESSIONS = 1000


@asynccontextmanager
async def mounted(server: Server[Any], max_body_bytes: int) -> AsyncGenerator[Route]:
    """The route of the endpoint, which answers while the context lasts.

    It has no check of ``Host`` and ``Origin`` of its own: it stands behind the guard of the API, as every route does.
    """
    manager = StreamableHTTPSessionManager(
        server, max_request_body_size=max_body_bytes, max_sessions=MAX_SESSIONS
    )
    started, leaving = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        async with manager.run():
            started.set()
            await leaving.wait()

    # in a task of its own: what the SDK opens must be closed by the task that has opened it
    running = asyncio.create_task(run())
    starting = asyncio.create_task(started.wait())
    await asyncio.wait({running, starting}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield Route(PATH, endpoint=_Endpoint(StreamableHTTPASGIApp(manager)), include_in_schema=False)
    finally:
        starting.cancel()
        leaving.set()
        await running


class _Endpoint:
    """Values of headers without the spaces around them, which are no part of a value (RFC 9110, section 5.5).

    The server of HTTP leaves them there, and the SDK compares headers with the body, letter by letter.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, value.strip(b" \t")) for name, value in scope["headers"]]
        await self._app({**scope, "headers": headers}, receive, send)


async def serve_streams(ops: Ops, closing: asyncio.Event) -> None:
    """Serve one client over the standard streams of this process, until it closes them; may be cancelled.

    What anything else prints goes to standard error meanwhile: a stray line would be no message.
    """
    server = AgentServer(ops, closing).server
    async with _standard_streams(ops.settings.max_body_bytes) as (read, write):
        await server.run(read, write, server.create_initialization_options())


@asynccontextmanager
async def _standard_streams(max_bytes: int) -> AsyncGenerator[tuple[Any, Any]]:
    """As the SDK's ``stdio_server``, but on the event loop: a thread that reads cannot be told to stop."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=max_bytes)
    source, _protocol = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0) as output:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        target, flow = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, output)
        writer = asyncio.StreamWriter(target, flow, None, loop)
        incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception]()
        write, outgoing = anyio.create_memory_object_stream[SessionMessage]()
        working = [
            asyncio.create_task(_receive(lines, incoming)),
            asyncio.create_task(_send(outgoing, writer)),
        ]
        try:
            yield read, write
        finally:
            for task in working:
                task.cancel()
            await asyncio.wait(working)
            for stream in (incoming, read, write, outgoing):
                stream.close()
            source.close()
            target.close()


async def _receive(
    lines: asyncio.StreamReader, incoming: MemoryObjectSendStream[SessionMessage | Exception]
) -> None:
    with incoming, suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        while line := await lines.readline():  # one that is too long ends it all
            try:
                message = jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError as error:
                await incoming.send(error)
            else:
                await incoming.send(SessionMessage(message))


async def _send(outgoing: MemoryObjectReceiveStream[SessionMessage], writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, anyio.ClosedResourceError):
        async for each in outgoing:
            line = each.message.model_dump_json(by_alias=True, exclude_unset=True)
            writer.write(line.encode() + b"\n")
            await writer.drain()
