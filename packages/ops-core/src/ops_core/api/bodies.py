"""What a request's body may be: bounded, of the right type, and JSON that everybody reads in the same way."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ops_core.api.errors import MALFORMED_BODY, TOO_LARGE, TOO_SLOW, UNSUPPORTED, Refused
from ops_core.wire import is_unicode

MAX_DEPTH = 64
"""Objects and lists may be nested so deep."""

MAX_DIGITS = 1000
"""A whole number may have so many digits."""

BODY_SECONDS = 30.0
"""A body has to arrive within this time."""

_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})


class Bodies:
    """Reads the whole body and checks it before anything else sees the request.

    Args:
        app: what comes next.
        max_bytes: a larger body is refused, by the bytes that arrive, whatever the headers say.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _WITHOUT_BODY:
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(Headers(scope=scope), receive)
            if body is None:
                return  # the caller has gone
            if body:
                _check_headers(Headers(scope=scope))
                check_json(body)
        except Refused as refused:
            await refused.response()(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > self._max_bytes:
            raise self._too_large()
        chunks, size = list[bytes](), 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunk: bytes = message.get("body", b"")
                    size += len(chunk)
                    if size > self._max_bytes:
                        raise self._too_large()
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            raise Refused(TOO_SLOW, headers={"Connection": "close"}) from None

    def _too_large(self) -> Refused:
        message = f"The body is larger than {self._max_bytes} bytes."
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


@dataclass(frozen=True, slots=True)
class _Flaw:
    """Stands where the parser found something that is not allowed; ``name`` is a key below that place."""

    why: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value stands: its name or number, below another place."""

    name: str | int
    below: _Place | None
    depth: int

    def path(self) -> str:
        parts, place = list[str](), self if self.depth else None
        while place is not None and place.depth:
            parts.append(str(place.name))
            place = place.below
        return ".".join(reversed(parts))


def check_json(body: bytes) -> None:
    """Refuse what is not strict JSON: NaN and Infinity, a name twice in one object, half a surrogate pair, numbers
    beyond all bounds, nesting deeper than :data:`MAX_DEPTH`.

    Raises:
        Refused: ``field`` is the dotted path of the place, where there is one.
    """
    try:
        parsed: Any = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=lambda name: _Flaw(f"{name} is not JSON"),
            parse_float=_float,
            parse_int=lambda digits: (
                int(digits) if len(digits) <= MAX_DIGITS else _Flaw("has too many digits")
            ),
        )
    except UnicodeDecodeError as error:
        raise Refused(MALFORMED_BODY, f"The body is not UTF-8 (at byte {error.start}).") from None
    except json.JSONDecodeError as error:
        message = f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        raise Refused(MALFORMED_BODY, message) from None
    except RecursionError:
        raise Refused(MALFORMED_BODY, f"The body is nested deeper than {MAX_DEPTH} levels.") from None
    found = _first_flaw(parsed)
    if found is not None:
        place, why = found
        raise Refused(MALFORMED_BODY, f"{place or 'The body'}: {why}.", field=place or None)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Flaw:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    seen = set[str]()
    for name, _value in pairs:
        if name in seen:
            return _Flaw("is there twice", name)
        seen.add(name)
    raise AssertionError


def _float(text: str) -> float | _Flaw:
    number = float(text)
    return number if math.isfinite(number) else _Flaw("is too large a number")


def _first_flaw(parsed: Any) -> tuple[str, str] | None:
    """The place and the reason. With a list of its own instead of recursion: the depth is the caller's choice."""
    todo: list[tuple[Any, _Place]] = [(parsed, _Place("", None, 0))]
    while todo:
        value, place = todo.pop()
        match value:
            case _Flaw(why, name):
                return (place if name is None else _Place(name, place, place.depth + 1)).path(), why
            case str() if not is_unicode(value):
                return place.path(), "holds half a surrogate pair"
            case dict() | list() if place.depth >= MAX_DEPTH:
                return place.path(), f"is nested deeper than {MAX_DEPTH} levels"
            case _:
                pass
        for key, item in _items(value):
            inner = _Place(key, place, place.depth + 1)
            if isinstance(key, str) and not is_unicode(key):
                return inner.path(), "has a name with half a surrogate pair"
            todo.append((item, inner))
    return None


def _items(value: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value).items()
    if isinstance(value, list):
        return enumerate(cast("Iterable[Any]", value))
    return ()
