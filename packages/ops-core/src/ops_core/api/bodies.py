"""Request bodies: bounded, of the right type, and JSON that every parser reads in the same way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ops_core.api.errors import MALFORMED_BODY, TOO_LARGE, TOO_SLOW, UNSUPPORTED, Refused
from ops_core.concurrency.offload import Offload
from ops_core.strict_json import MAX_VALUES, NotStrict, parse

BODY_SECONDS = 30.0
"""A body has to arrive within this time."""

MAX_BATCH_VALUES = 5 * MAX_VALUES
"""Number of values in a batch; each of its tasks is bounded by :data:`~ops_core.strict_json.MAX_VALUES`."""

_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
_READ = "opspawn.body"


class Bodies:
    """Reads the whole body and checks it before anything else sees the request.

    Args:
        app: what comes next.
        max_bytes: a larger body is refused, by the bytes that arrive, whatever the headers say.
        max_bytes_at: the same for paths that have a bound of their own; these may hold more values, too.
        offload: reads large bodies.
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int, max_bytes_at: Mapping[str, int], offload: Offload
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_bytes_at = max_bytes_at
        self._offload = offload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _WITHOUT_BODY:
            await self._app(scope, receive, send)
            return
        try:
            max_bytes = self._max_bytes_at.get(scope["path"], self._max_bytes)
            body = await _read(Headers(scope=scope), receive, max_bytes)
            if body is None:
                return  # the caller has gone
            if body:
                _check_headers(Headers(scope=scope))
                max_values = MAX_BATCH_VALUES if scope["path"] in self._max_bytes_at else MAX_VALUES
                parsed = await self._offload(len(body), partial(check_json, body, max_values))
                scope[_READ] = _Body(parsed, len(body), self._offload)
        except Refused as refused:
            await refused.response()(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)


async def _read(headers: Headers, receive: Receive, max_bytes: int) -> bytes | None:
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise _too_large(max_bytes)
    chunks, size = list[bytes](), 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                chunk: bytes = message.get("body", b"")
                size += len(chunk)
                if size > max_bytes:
                    raise _too_large(max_bytes)
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        raise Refused(TOO_SLOW, headers={"Connection": "close"}) from None


def _too_large(max_bytes: int) -> Refused:
    message = f"The body is larger than {max_bytes} bytes."
    return Refused(TOO_LARGE, message, headers={"Connection": "close"})


def _replay(body: bytes, receive: Receive) -> Receive:
    told = False

    async def replayed() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _check_headers(headers: Headers) -> None:
    media_type, *parameters = (part.strip().lower() for part in headers.get("content-type", "").split(";"))
    if media_type != "application/json":
        raise Refused(UNSUPPORTED, field="Content-Type", headers={"Accept": "application/json"})
    for parameter in parameters:
        name, _equals, value = parameter.partition("=")
        if name == "charset" and value.strip('"') not in ("utf-8", "utf8"):
            raise Refused(UNSUPPORTED, "The charset must be utf-8.", field="Content-Type")
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        message = "The body must not be compressed."
        raise Refused(UNSUPPORTED, message, field="Content-Encoding", headers={"Accept-Encoding": "identity"})


def check_json(body: bytes, max_values: int = MAX_VALUES) -> Any:
    """Return the value of a body; refuse what is not strict JSON; see :mod:`ops_core.strict_json`.

    Raises:
        Refused: ``field`` is the dotted path of the place, where there is one.
    """
    try:
        return parse(body, max_values=max_values)
    except NotStrict as error:
        if error.place:
            raise Refused(MALFORMED_BODY, f"{error.place}: {error.why}.", field=error.place) from None
        raise Refused(MALFORMED_BODY, f"The body {error.why}.") from None


@dataclass(frozen=True, slots=True)
class _Body:
    """What :class:`Bodies` has read, for the route."""

    parsed: Any
    size: int
    offload: Offload


class BodyRoute(APIRoute):
    """A route whose body is validated where :class:`Bodies` has parsed it: beside the event loop, and once."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As FastAPI has it; what it validates then is already of the right type."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle
        annotation: Any = self.body_field.field_info.annotation
        adapter = TypeAdapter[Any](annotation)

        async def validated(request: Request) -> Response:
            body: _Body | None = request.scope.get(_READ)
            if body is not None:
                request._json = await body.offload(  # noqa: SLF001  (where Starlette keeps what it has parsed)
                    body.size, partial(_validated, adapter, body.parsed)
                )
            return await handle(request)

        return validated


def _validated(adapter: TypeAdapter[Any], parsed: Any) -> Any:
    try:
        return adapter.validate_python(parsed)
    except ValidationError as error:
        errors = [{**item, "loc": ("body", *item["loc"])} for item in error.errors()]
        raise RequestValidationError(errors) from None
