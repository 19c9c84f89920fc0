"""Loopback login (RFC 8252): a browser on this machine visits the authorization server and returns to a local port."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

from agentkit.errors import McpUnavailable
from agentkit.mcp.oauth.tokens import Answer
from agentkit.untrusted.text import visible

_MAX_REQUEST = 16_384
_REQUEST_SECONDS = 10.0
_DONE = "You are logged in. This page can be closed."
_REFUSED = "You are not logged in; the reason stands where you began. This page can be closed."


class LoopbackLogin:
    """Awaits the answer at a port of 127.0.0.1, while it is open. Answers that nobody has asked for are not heard.

    ::

        async with LoopbackLogin(print) as login, McpPool([server], login=login) as pool:
            await pool.toolset("tickets").specs()

    Args:
        show: tells the person where to go.
        port: to wait at; any that is free where it is 0.
        seconds: so long the person may take.
    """

    def __init__(self, show: Callable[[str], object], *, port: int = 0, seconds: float = 300.0) -> None:
        self._show = show
        self._port = port
        self._seconds = seconds
        self._server: asyncio.Server | None = None
        self._state = ""
        self._answered: asyncio.Future[Answer] | None = None

    @property
    def redirect_uri(self) -> str:
        """Where the person comes back to."""
        return f"http://127.0.0.1:{self._port}/callback"

    async def show(self, url: str) -> None:
        """Send the person to ``url``."""
        self._state = parse_qs(urlsplit(url).query).get("state", [""])[0]
        self._answered = asyncio.get_running_loop().create_future()
        told = self._show(url)
        if isinstance(told, Awaitable):
            await told

    async def answer(self) -> Answer:
        """What the person came back with.

        Raises:
            McpUnavailable: nobody came back in time, or with a refusal.
        """
        assert self._answered is not None
        try:
            return await asyncio.wait_for(self._answered, self._seconds)
        except TimeoutError:
            raise McpUnavailable(f"nobody has logged in within {self._seconds:g} s") from None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=_MAX_REQUEST)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                status, text = self._heard(head.decode("latin-1").split(" ", 2))
                body = text.encode()
                fields = (
                    f"HTTP/1.1 {status}",
                    "Content-Type: text/plain; charset=utf-8",
                    "Cache-Control: no-store",
                    "Referrer-Policy: no-referrer",
                    f"Content-Length: {len(body)}",
                    "Connection: close",
                )
                writer.write("\r\n".join(fields).encode() + b"\r\n\r\n" + body)
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    def _heard(self, request: list[str]) -> tuple[str, str]:
        """The status and the page that answer a request."""
        place = urlsplit(request[1]) if len(request) == 3 and request[0] == "GET" else None
        if place is None or place.path != "/callback":
            return "404 Not Found", "There is nothing here."
        told = {name: values[0] for name, values in parse_qs(place.query).items()}
        waiting = self._answered
        if (
            waiting is None
            or waiting.done()
            or not hmac.compare_digest(told.get("state", "").encode(), self._state.encode())
        ):
            return "400 Bad Request", "Nobody has asked for this."
        if "code" not in told:
            why = visible(told.get("error", "no reason is given"))[:100]
            waiting.set_exception(McpUnavailable(f"the authorization server has refused the login: {why}"))
            return "200 OK", _REFUSED
        waiting.set_result(Answer(told["code"], told["state"], told.get("iss")))
        return "200 OK", _DONE
