"""Strict JSON that every parser reads in the same way, on every surface."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

MAX_DEPTH = 64
"""Objects and lists may be nested so deep."""

MAX_DIGITS = 1000
"""A whole number may have so many digits."""

MAX_VALUES = 100_000
"""Number of values that a text may hold, those inside of others counted. Their number is what reading a text costs: a
mebibyte of zeros takes a thousand times as long as one long string."""

_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


class NotStrict(ValueError):
    """This is not strict JSON.

    Attributes:
        why: for people; a sentence without its subject.
        place: the dotted path of the value at fault; empty where it is the whole.
    """

    def __init__(self, why: str, place: str = "") -> None:
        super().__init__(f"{place} {why}".strip())
        self.why = why
        self.place = place


def parse(text: bytes, max_depth: int = MAX_DEPTH, max_values: int = MAX_VALUES) -> Any:
    """The value, unless there is NaN or Infinity, a name twice in one object, half a surrogate pair, a number beyond
    all bounds, nesting deeper than ``max_depth``, or more than ``max_values`` values.

    Raises:
        NotStrict: there is, or it is not JSON at all.
    """
    if _count_of_values(text, max_values) > max_values:
        message = f"holds more than {max_values} values"
        raise NotStrict(message)
    flaws = list[_Flaw]()

    def flawed(why: str, name: str | None = None) -> _Flaw:
        flaws.append(_Flaw(why, name))
        return flaws[-1]

    def an_object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Flaw:
        made = dict(pairs)
        return made if len(made) == len(pairs) else flawed("is there twice", _doubled(pairs))

    def a_float(text: str) -> float | _Flaw:
        number = float(text)
        return number if math.isfinite(number) else flawed("is too large a number")

    try:
        parsed: Any = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=an_object,
            parse_constant=lambda name: flawed(f"holds {name}, which is not JSON"),
            parse_float=a_float,
            parse_int=lambda digits: (
                int(digits) if len(digits) <= MAX_DIGITS else flawed("has too many digits")
            ),
        )
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 (at byte {error.start})"
        raise NotStrict(message) from None
    except json.JSONDecodeError as error:
        message = f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise NotStrict(message) from None
    except RecursionError:
        message = f"is nested deeper than {max_depth} levels"
        raise NotStrict(message) from None
    if flaws or _HALF.search(text) or _is_deeper(parsed, max_depth):
        _check(parsed, max_depth)
    return parsed


def _count_of_values(text: bytes, enough: int) -> int:
    """Return at least the number of values; exactly, where a quick count that includes strings exceeds ``enough``."""
    quick = _punctuation(text)
    return quick if quick <= enough else _punctuation(_STRINGS.sub(b"", text))


def _punctuation(text: bytes) -> int:
    return 1 + text.count(b",") + text.count(b"[") + text.count(b"{")


def _is_deeper(parsed: Any, max_depth: int) -> bool:
    """Level by level, the containers only: strings and numbers cost one look each."""
    level: list[Any] = [parsed] if isinstance(parsed, dict | list) else []
    for _depth in range(max_depth):
        if not level:
            return False
        level = [item for container in level for item in _inner(container) if isinstance(item, dict | list)]
    return bool(level)


def _inner(container: Any) -> Iterable[Any]:
    return cast("dict[str, Any]", container).values() if isinstance(container, dict) else container


def is_unicode(text: str) -> bool:
    """No halves of surrogate pairs, as JSON may hold them, and as a shell hands over what is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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


def _doubled(pairs: list[tuple[str, Any]]) -> str:
    seen = set[str]()
    for name, _value in pairs:
        if name in seen:
            return name
        seen.add(name)
    raise AssertionError


def _check(parsed: Any, max_depth: int) -> None:
    """Find the first flaw. With a list of its own instead of recursion: the depth is the caller's choice."""
    todo: list[tuple[Any, _Place]] = [(parsed, _Place("", None, 0))]
    while todo:
        value, place = todo.pop()
        match value:
            case _Flaw(why, name):
                flawed = place if name is None else _Place(name, place, place.depth + 1)
                raise NotStrict(why, flawed.path())
            case str() if not is_unicode(value):
                message = "holds half a surrogate pair"
                raise NotStrict(message, place.path())
            case dict() | list() if place.depth >= max_depth:
                message = f"is nested deeper than {max_depth} levels"
                raise NotStrict(message, place.path())
            case _:
                pass
        for key, item in _items(value):
            inner = _Place(key, place, place.depth + 1)
            if isinstance(key, str) and not is_unicode(key):
                message = "has a name with half a surrogate pair"
                raise NotStrict(message, inner.path())
            todo.append((item, inner))


def _items(value: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value).items()
    if isinstance(value, list):
        return enumerate(cast("Iterable[Any]", value))
    return ()
