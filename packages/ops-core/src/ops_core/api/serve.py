"""HTTP server: the API and a worker in one process."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any

import uvicorn
from starlette.routing import BaseRoute

from ops_core.api import create_api
from ops_core.api.connections import http_config
from ops_core.assembly import Ops
from ops_core.errors import ConfigError

DRAIN_SECONDS = 3
"""When stopping, so long an answer that has begun may take to reach its end."""


@asynccontextmanager
async def serving(
    ops: Ops,
    closing: asyncio.Event | None = None,
    *,
    worker: bool = True,
    routes: Sequence[BaseRoute] = (),
) -> AsyncGenerator[Sequence[str], None]:
    """The API and a worker while the context lasts; gives the addresses, which are ready.

    Args:
        ops: the platform, open.
        closing: set when the context is left, or by the caller before that: whoever waits for a task is answered.
        worker: work, too.
        routes: that are no part of the REST API.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    closing = asyncio.Event() if closing is None else closing
    sockets = _listen(ops.settings.host, ops.settings.port)
    server = _Server(http_config(create_api(ops, closing, routes), drain_seconds=DRAIN_SECONDS))
    try:
        async with asyncio.TaskGroup() as group, ops.working() if worker else nullcontext():
            group.create_task(server.serve(sockets))
            await server.accepting.wait()
            try:
                yield [_address(listening) for listening in sockets]
            finally:  # both come to their end at the same time
                closing.set()
                server.should_exit = True
    finally:
        for listening in sockets:
            listening.close()


class _Server(uvicorn.Server):
    """Uvicorn, without its handling of signals, and with a word when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.accepting.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _listen(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of ``host``, all on one port.

    Raises:
        ConfigError: it is taken, or may not be used.
    """
    sockets: list[socket.socket] = []
    try:
        for family in (socket.AF_INET, socket.AF_INET6):
            for *_what, place in _addresses(host, port, family)[:1]:
                listening = socket.create_server(place[:2], family=family, backlog=2048)
                # asyncio does it for sockets that it makes; without it, the second packet of an answer waits up to
                # 40 ms for a caller who delays his acknowledgement of the first
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sockets.append(listening)
                port = listening.getsockname()[1]  # where it was any free one, the second is to be the same
    except OSError as error:
        for listening in sockets:
            listening.close()
        message = f"cannot listen on {host}, port {port}: {os.strerror(error.errno or 0)}"
        raise ConfigError(message, field="port") from None
    if not sockets:
        message = f"cannot listen on {host}: it has no address"
        raise ConfigError(message, field="host")
    return sockets


def _addresses(host: str, port: int, family: socket.AddressFamily) -> Sequence[tuple[Any, ...]]:
    if family == socket.AF_INET6 and not socket.has_dualstack_ipv6():
        return ()
    try:
        return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except socket.gaierror:  # a name need not have addresses of both families
        return ()


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if listening.family == socket.AF_INET6 else f"http://{host}:{port}"
