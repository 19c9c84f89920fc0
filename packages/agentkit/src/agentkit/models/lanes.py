"""Connections of HTTP as lanes: one is taken for a request and put back after it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx2

if TYPE_CHECKING:
    import ssl

KEPT = 100
"""So many connections are kept open while nobody uses them."""

_KEPT_SECONDS = 30.0


class Lanes(httpx2.AsyncBaseTransport):
    """As many connections as there are requests at a time, the one used last being used next.

    The pool of httpx2 looks at all of its connections twice for each request, and asks the kernel about those that are
    idle; with fifty requests at a time that is a third of all CPU. Here each connection is a pool of one.

    Args:
        tls: how servers are checked; one for all connections, since reading the roots takes longer than a request.
    """

    def __init__(self, tls: ssl.SSLContext | bool) -> None:
        self._tls = tls
        self._limits = httpx2.Limits(max_connections=1, keepalive_expiry=_KEPT_SECONDS)
        self._idle: deque[tuple[float, httpx2.AsyncHTTPTransport]] = deque()
        self._closed = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The response, its body unread; closing it puts the connection back."""
        lane = self._idle.pop()[1] if self._idle else self._new()
        try:
            response = await lane.handle_async_request(request)
        except BaseException:
            await self.put_back(lane)  # it has closed its connection, and makes another one next time
            raise
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Body(response.stream, self, lane)
        return response

    async def put_back(self, lane: httpx2.AsyncHTTPTransport) -> None:
        """Keep a connection for the next request, and close those that have been idle for too long."""
        if self._closed:
            await lane.aclose()
            return
        now = asyncio.get_running_loop().time()
        self._idle.append((now, lane))
        while self._idle and (len(self._idle) > KEPT or self._idle[0][0] < now - _KEPT_SECONDS):
            await self._idle.popleft()[1].aclose()

    async def aclose(self) -> None:
        """Close all connections, those in use when they are put back."""
        self._closed = True
        while self._idle:
            await self._idle.popleft()[1].aclose()

    def _new(self) -> httpx2.AsyncHTTPTransport:
        return httpx2.AsyncHTTPTransport(verify=self._tls, limits=self._limits)


class _Body(httpx2.AsyncByteStream):
    """The body of a response whose connection is put back when it is closed."""

    def __init__(self, body: httpx2.AsyncByteStream, lanes: Lanes, lane: httpx2.AsyncHTTPTransport) -> None:
        self._body = body
        self._lanes = lanes
        self._lane: httpx2.AsyncHTTPTransport | None = lane

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._body.__aiter__()

    async def aclose(self) -> None:
        lane, self._lane = self._lane, None
        if lane is None:
            return
        try:
            await self._body.aclose()
        finally:
            await self._lanes.put_back(lane)
