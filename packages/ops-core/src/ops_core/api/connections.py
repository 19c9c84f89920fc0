"""Connection limits of the HTTP server: their number, and how long each may be idle.

An idle connection costs a file descriptor, and the worker of the same process needs descriptors to carry its runs.
uvicorn itself closes a connection that is idle after an answer; it waits without end for a first request, for the rest
of a request's head, and for a caller who does not read.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import h11
import uvicorn
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from ops_core.concurrency.shutdown import unless_closing

Result = TypeVar("Result")

MAX_CONNECTIONS = 10_000
"""No server takes more, however many descriptors the process may have."""

MIN_PROGRESS_BYTES = 64 * 1024
"""A caller who reads less than this of an answer within ``write_seconds`` is not waited for any longer."""

log = logging.getLogger("ops_core.api.connections")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Bounds of the connections of one server.

    Attributes:
        max_connections: further ones are answered 503 and closed.
        head_seconds: the head of a request must arrive within this time, the first one's too.
        write_seconds: a caller who reads nothing of an answer for this time is disconnected.
    """

    max_connections: int
    head_seconds: float = 10.0
    write_seconds: float = 30.0

    @classmethod
    def of_process(cls) -> ConnectionLimits:
        """Leave a quarter of the process's file descriptors, or a hundred of them, to everything else."""
        soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return cls(max_connections=MAX_CONNECTIONS)
        reserve = max(soft // 4, min(100, soft // 2))
        return cls(max_connections=min(MAX_CONNECTIONS, soft - reserve))


def http_config(app: Any, *, drain_seconds: int, limits: ConnectionLimits | None = None) -> uvicorn.Config:
    """Return the configuration of uvicorn that every HTTP server of ours has.

    Args:
        app: the ASGI application.
        drain_seconds: time that answers under way have to end when the server stops.
        limits: bounds of its connections; those of the process where not given.
    """
    bounded = ConnectionLimits.of_process() if limits is None else limits
    protocol: type[asyncio.Protocol] = type("Connection", (_Connection,), {"limits": bounded})
    return uvicorn.Config(
        app,
        http=protocol,  # on h11: the other parser ends connections on its own
        lifespan="off",
        ws="none",
        log_config=None,  # the process has one configuration of logging, and it is not uvicorn's
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=drain_seconds,
    )


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result | None:
    """Return what ``work`` returns; ``None``, with the work cancelled, as soon as the caller has closed the connection.

    Args:
        request: whose body was read.
        work: what the caller waits for.
    """
    gone = asyncio.Event()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()

    watching = asyncio.create_task(watch())
    try:
        return await unless_closing(gone, work)
    finally:
        watching.cancel()
        await asyncio.wait({watching})


class _Connection(H11Protocol):
    limits: ClassVar[ConnectionLimits]
    _head: asyncio.TimerHandle | None = None
    _write: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            log.warning("more than %d connections: a new one was refused", self.limits.max_connections)
            transport.write(_BUSY)
            transport.close()
            return
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_head()

    def _await_head(self) -> None:
        """Start the clock while a head is incomplete; stop it once the request has begun."""
        incomplete = self.conn.their_state is h11.IDLE and not self.transport.is_closing()
        if not incomplete:
            self._stop_head()
        elif self._head is None:
            self._head = self.loop.call_later(self.limits.head_seconds, self._abort)

    def _stop_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write is not None:
            self._write.cancel()
            self._write = None

    def _await_reader(self, buffered: int) -> None:
        self._write = self.loop.call_later(self.limits.write_seconds, self._check_reader, buffered)

    def _check_reader(self, buffered: int) -> None:
        left = self.transport.get_write_buffer_size()
        if buffered - left < MIN_PROGRESS_BYTES:
            log.warning("a caller does not read its answer and was disconnected")
            self._abort()
        else:
            self._await_reader(left)

    def _abort(self) -> None:
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head()
        super().connection_lost(exc)
        self.resume_writing()


_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
)
