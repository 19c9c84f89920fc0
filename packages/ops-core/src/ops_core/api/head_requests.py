"""``HEAD`` on every address that supports ``GET``: the same response without its body."""

from __future__ import annotations

from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _Told(Exception):
    """The head of a stream is told: nobody reads the rest."""


class Heads:
    """Answers ``HEAD`` as ``GET``.

    Args:
        app: what comes next; it never sees a ``HEAD``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        asked = {**scope, "method": "GET"}

        async def without_body(message: Message) -> None:
            if message["type"] != "http.response.body":
                scope["route"] = asked.get("route")  # for whoever counts
                await send(message)
                return
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            if message.get("more_body"):
                raise _Told

        with suppress(_Told):
            await self._app(asked, receive, without_body)
