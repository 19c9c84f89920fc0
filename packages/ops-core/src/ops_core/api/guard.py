"""Around every route: who may ask, which headers every answer carries, and what is told when we fail."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentkit.calls import place_of
from ops_core.api.errors import CROSS_ORIGIN, INTERNAL, WRONG_HOST, Refused

log = logging.getLogger("ops_core.api")

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Who this server is. A name that merely resolves to it (DNS rebinding) is another one."""

DEFAULT_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""On every answer that does not say otherwise itself."""

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """Checks `Host` and `Origin`, adds headers, and turns a crash into a plain 500.

    Args:
        app: what comes next.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in DEFAULT_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            _check_caller(scope["method"], Headers(scope=scope))
            await self._app(scope, receive, with_headers)
        except Refused as refused:
            await refused.response()(scope, receive, with_headers)
        except Exception as error:
            log.error("unexpected %s at %s", type(error).__name__, place_of(error))
            if started:  # the answer is cut off; the server closes the connection
                raise
            await Refused(INTERNAL).response()(scope, receive, with_headers)


def _check_caller(method: str, headers: Headers) -> None:
    host = headers.get("host", "")
    if _without_port(host) not in LOOPBACK_NAMES:
        raise Refused(WRONG_HOST, field="Host")
    origin = headers.get("origin")
    if origin is not None and method not in _READING and origin.lower() != f"http://{host.lower()}":
        raise Refused(CROSS_ORIGIN, field="Origin")


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()
