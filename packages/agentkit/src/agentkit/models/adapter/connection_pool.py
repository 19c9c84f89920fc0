"""Connection pool for model calls: a connection is taken for a request and put back after it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Self

import httpx2

from agentkit.models.adapter.http_connection import Connection, Origin, origin_of

if TYPE_CHECKING:
    import ssl

KEPT = 100
"""So many connections are kept open while nobody uses them."""

_KEPT_SECONDS = 30.0


class Lanes(httpx2.AsyncBaseTransport):
    """As many connections as there are requests at a time, the one used last being used next.

    The pool of httpx2 looks at all of its connections twice for each request, and asks the kernel about those that are
    idle; with fifty requests at a time that is a third of all CPU.

    Args:
        tls: how servers are checked; one for all connections, since reading the roots takes longer than a request.
            Where not given, one is made for the first address of HTTPS.
    """

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        if tls is not None:
            tls.set_alpn_protocols(["http/1.1"])
        self._idle: deque[tuple[float, Connection]] = deque()
        self._closed = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The response, its body unread; closing it puts the connection back."""
        lane = self._lane_to(origin_of(request.url))
        head = await lane.request(request)
        return httpx2.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=Body(lane, self, request.extensions.get("timeout", {}).get("read")),
            extensions={"http_version": b"HTTP/" + head.http_version, "reason_phrase": bytes(head.reason)},
        )

    def put_back(self, lane: Connection) -> None:
        """Keep a connection for the next request, and close those that have been idle for too long."""
        if self._closed or not lane.is_reusable:
            lane.close()
            return
        now = asyncio.get_running_loop().time()
        self._idle.append((now, lane))
        while self._idle and (len(self._idle) > KEPT or self._idle[0][0] < now - _KEPT_SECONDS):
            self._idle.popleft()[1].close()

    async def aclose(self) -> None:
        """Close all connections, those in use when they are put back."""
        self._closed = True
        while self._idle:
            self._idle.popleft()[1].close()
        await asyncio.sleep(0)  # the event loop closes them in its next turn

    def _lane_to(self, origin: Origin) -> Connection:
        while self._idle:
            since, lane = self._idle.pop()
            is_young = since >= asyncio.get_running_loop().time() - _KEPT_SECONDS
            if is_young and lane.origin == origin and lane.is_reusable:
                return lane
            lane.close()
        if origin[0] == "https" and self._tls is None:
            self._tls = httpx2.create_ssl_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return Connection(origin, self._tls)


class Body(httpx2.AsyncByteStream):
    """The body of a response whose connection is put back when it is closed."""

    def __init__(self, lane: Connection, lanes: Lanes, seconds: float | None) -> None:
        self._lane: Connection | None = lane
        self._lanes = lanes
        self._seconds = seconds

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = b"" if self._lane is None else await self._lane.piece(self._seconds)
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.finish()
            self._lanes.put_back(lane)
