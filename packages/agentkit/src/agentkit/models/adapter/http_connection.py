"""Connection of HTTP/1.1 to one server, for one request at a time: h11 on a transport of asyncio.

The connections of httpx2 pass each request through a pool, a lock, a cancel scope for each read and write, and three
kinds of streams: more processor time than all that agentkit does for a call of a model. What this one raises is what
httpx2 raises.
"""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import h11
import httpx2

if TYPE_CHECKING:
    import ssl

Origin: TypeAlias = tuple[str, str, int]
"""Scheme, host and port."""

_HIGH_WATER = 256 * 1024
"""Bytes that are kept of what nobody has read yet, before the server has to wait."""

_MAX_OF_A_HEAD = 100 * 1024
_PORTS = {"http": 80, "https": 443}
_SECOND_ADDRESS = 0.25
"""Seconds after which the next address of a host is tried beside the first."""


def origin_of(url: httpx2.URL) -> Origin:
    """The server of a URL.

    Raises:
        UnsupportedProtocol: it is none of HTTP.
    """
    if url.scheme not in _PORTS or not url.host:
        raise httpx2.UnsupportedProtocol(f"{url.scheme or 'no scheme'}: not a URL of HTTP")
    return url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme]


class Connection:
    """One connection. It is opened by the first request, and of no more use once :attr:`is_reusable` is false.

    Args:
        origin: the server.
        tls: how it is checked.
    """

    def __init__(self, origin: Origin, tls: ssl.SSLContext | None) -> None:
        self.origin = origin
        self._tls = tls
        self._wire: _Wire | None = None
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_OF_A_HEAD)

    @property
    def is_reusable(self) -> bool:
        """The last exchange is complete, and the server has not closed the connection since."""
        wire = self._wire
        return wire is not None and self._http.our_state is h11.IDLE and wire.is_quiet

    async def request(self, request: httpx2.Request) -> h11.Response:
        """Send ``request``; what comes back is the head of the response, whose body is still unread."""
        limits = request.extensions.get("timeout", {})
        try:
            if self._wire is None:
                self._wire = await self._open(limits.get("connect"))
            await self._send(request, self._wire, limits.get("write"))
            return await self._head(limits.get("read"))
        except BaseException:
            self.close()
            raise

    async def piece(self, seconds: float | None) -> bytes:
        """The next piece of the body, empty at its end; waits for at most so many seconds."""
        try:
            while not isinstance(event := await self._event(seconds), h11.EndOfMessage):
                if isinstance(event, h11.Data) and event.data:
                    return bytes(event.data)
        except BaseException:
            self.close()
            raise
        return b""

    def finish(self) -> None:
        """Make ready for the next request.

        A response that was not read to its end costs the connection, and so does more than a response: it would be
        taken for the answer to the next request.
        """
        http = self._http
        if http.our_state is h11.DONE and http.their_state is h11.DONE and not http.trailing_data[0]:
            http.start_next_cycle()
        else:
            self.close()

    def close(self) -> None:
        """Close at once, whatever is under way. Calling again is harmless."""
        if self._wire is not None:
            self._wire.close()

    async def _open(self, seconds: float | None) -> _Wire:
        scheme, host, port = self.origin
        is_secure = scheme == "https"
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                loop = asyncio.get_running_loop()
                # a loop of another kind, such as uvloop's, tries one address after the other
                is_asyncio = isinstance(loop, asyncio.BaseEventLoop)
                beside: dict[str, Any] = {"happy_eyeballs_delay": _SECOND_ADDRESS} if is_asyncio else {}
                _transport, wire = await loop.create_connection(
                    _Wire,
                    host,
                    port,
                    ssl=self._tls if is_secure else None,
                    server_hostname=host if is_secure else None,
                    **beside,
                )
        except TimeoutError as error:
            if deadline.expired():
                raise httpx2.ConnectTimeout("no connection in time") from None
            raise httpx2.ConnectError(str(error)) from error
        except OSError as error:  # also of TLS, and of the name
            raise httpx2.ConnectError(f"{host}:{port}: {error}") from error
        return wire

    async def _send(self, request: httpx2.Request, wire: _Wire, seconds: float | None) -> None:
        try:
            head = h11.Request(
                method=request.method, target=request.url.raw_path, headers=request.headers.raw
            )
            written = [self._http.send(head) or b""]
            assert isinstance(request.stream, httpx2.AsyncByteStream)
            async for piece in request.stream:
                if len(written) > 1:  # a body in one piece goes out together with the head
                    await wire.write(b"".join(written), seconds)
                    written = []
                written.append(self._http.send(h11.Data(data=piece)) or b"")
            written.append(self._http.send(h11.EndOfMessage()) or b"")
        except h11.LocalProtocolError as error:
            raise httpx2.LocalProtocolError(str(error)) from error
        await wire.write(b"".join(written), seconds)

    async def _head(self, seconds: float | None) -> h11.Response:
        while not isinstance(event := await self._event(seconds), h11.Response):
            if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                message = "the server changes to another protocol, for which it was not asked"
                raise httpx2.RemoteProtocolError(message)
        return event

    async def _event(self, seconds: float | None) -> object:
        wire = self._wire
        assert wire is not None
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                data = await wire.read(seconds)
                if not data and self._http.their_state is h11.SEND_RESPONSE:
                    raise httpx2.RemoteProtocolError("the server closed the connection without a response")
                self._http.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise httpx2.RemoteProtocolError(str(error)) from error
        return event


class _Wire(asyncio.Protocol):
    """The bytes of one connection, with a limit of time for each wait."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._arrived: list[bytes] = []
        self._size = 0
        self._ended = False
        self._lost: Exception | None = None
        self._is_held = self._is_full = False
        self._waiting: asyncio.Future[bool] | None = None

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are of no class of asyncio

    def data_received(self, data: bytes) -> None:
        self._arrived.append(data)
        self._size += len(data)
        if self._size > _HIGH_WATER and not self._is_held:
            self._transport.pause_reading()
            self._is_held = True
        self._wake()

    def eof_received(self) -> None:
        self._ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended, self._lost = True, exc
        self._wake()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._wake()

    # --- what the connection calls

    @property
    def is_quiet(self) -> bool:
        """Nothing has arrived that nobody has asked for: that would be the server's good-bye."""
        if self._ended or self._arrived or self._transport.is_closing():
            return False
        return not _is_readable(self._transport.get_extra_info("socket"))

    async def read(self, seconds: float | None) -> bytes:
        """What has arrived, at least a byte; empty at the end.

        Raises:
            ReadTimeout: nothing has.
            ReadError: the connection broke.
        """
        if not self._arrived and not self._ended and not await self._woken(seconds):
            raise httpx2.ReadTimeout("nothing has arrived in time")
        data, self._size = b"".join(self._arrived), 0
        self._arrived.clear()
        if self._is_held:
            self._is_held = False
            self._transport.resume_reading()
        if not data and self._lost is not None:
            raise httpx2.ReadError(str(self._lost))
        return data

    async def write(self, data: bytes, seconds: float | None) -> None:
        """Send; a server that hangs up while it is sent to may have answered all the same.

        Raises:
            WriteTimeout: the server takes no more.
        """
        if self._ended:
            return
        self._transport.write(data)
        while self._is_full and not self._ended:
            if not await self._woken(seconds):
                raise httpx2.WriteTimeout("the server takes no more")

    def close(self) -> None:
        self._transport.abort()

    async def _woken(self, seconds: float | None) -> bool:
        """Wait until something has happened; false where nothing has in time."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[bool] = loop.create_future()
        self._waiting = waiting
        timer = None if seconds is None else loop.call_later(seconds, _resolve, waiting, False)
        try:
            return await waiting
        finally:
            self._waiting = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiting is not None:
            _resolve(self._waiting, True)


def _resolve(waiting: asyncio.Future[bool], has_happened: bool) -> None:
    if not waiting.done():
        waiting.set_result(has_happened)


def _is_readable(sock: Any) -> bool:
    """Whether the kernel holds what the event loop has not read yet, be it the end."""
    if sock is None or sock.fileno() < 0:
        return True
    if not hasattr(select, "poll"):
        return bool(select.select([sock], [], [], 0)[0])
    found = select.poll()
    found.register(sock, select.POLLIN)
    return bool(found.poll(0))
