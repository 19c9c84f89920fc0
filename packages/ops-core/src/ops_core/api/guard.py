"""Guard around every route: permitted hosts, headers of every response, and the body of an internal error."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentkit.run.tool_call import place_of
from ops_core.api.errors import CROSS_ORIGIN, INTERNAL, MALFORMED_HEAD, WRONG_HOST, Refused

log = logging.getLogger("ops_core.api")

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Who this server is. A name that merely resolves to it (DNS rebinding) is another one."""

DEFAULT_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""On every answer that does not say otherwise itself."""

_OWN_SITES = frozenset({"same-origin", "none"})


class Guard:
    """Checks `Host`, `Origin` and `Sec-Fetch-Site`, adds headers, and turns a crash into a plain 500.

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
    if "content-length" in headers and "transfer-encoding" in headers:  # RFC 9112, section 6.1: smuggling
        message = "Content-Length and Transfer-Encoding must not be sent together."
        raise Refused(MALFORMED_HEAD, message, field="Transfer-Encoding", headers={"Connection": "close"})
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        raise Refused(CROSS_ORIGIN, field="Origin")
    if headers.get("sec-fetch-site", "none").lower() not in _OWN_SITES and not _is_visit(method, headers):
        raise Refused(CROSS_ORIGIN, field="Sec-Fetch-Site")


def _is_visit(method: str, headers: Headers) -> bool:
    """Whether a person follows a link to here: what the browser then shows, the other page cannot read."""
    mode, target = headers.get("sec-fetch-mode", ""), headers.get("sec-fetch-dest", "")
    return method == "GET" and mode.lower() == "navigate" and target.lower() == "document"


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()
