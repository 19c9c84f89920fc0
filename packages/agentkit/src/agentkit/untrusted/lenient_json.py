"""JSON as language models write it: with single quotes, trailing commas, Python's words, line breaks in strings.

Everything here takes time linear in the text and answers ``None`` where it finds nothing; nothing raises, however deep
the nesting. Whatever is found can be stored: it is finite, at most :data:`MAX_DEPTH` deep, and valid Unicode.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from agentkit.messages import JsonValue

MAX_DEPTH = 64
"""No tool takes deeper arguments, and a stored step must be readable without deep recursion."""

_SPACE = re.compile(r"\s*+")
_STRING = re.compile(
    r'"""((?:[^"\\]|\\.|"(?!""))*+)"""'
    r"|'''((?:[^'\\]|\\.|'(?!''))*+)'''"
    r'|"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
    r"|'([^'\\]*+(?:\\.[^'\\]*+)*+)'",
    re.DOTALL,
)
_WORD = re.compile(r"""[^\s,:=()\[\]{}"']++""")
_NAME = re.compile(r"[A-Za-z_]\w*+")
_KEYWORD = re.compile(r"([A-Za-z_]\w*+)\s*+[=:]")
_ESCAPE = re.compile(r'\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)|"', re.DOTALL)
_BLOCK = re.compile(r"(?:`{3,}|~{3,})[\w+-]*+\s*+(?P<value>[{\[\"'\d])")
_BRACE = re.compile(r"(?P<value>\{)")  # prose has brackets of its own, around numbers for one
_PYTHON_WORDS = {"True": True, "False": False, "None": None}
_CLOSING = {"{": "}", "[": "]", "(": ")"}


MAX_FAILURES = 8
"""Each attempt to read a value may look at the whole text: a fixed number keeps that linear."""


class _NotJson(ValueError):
    """This is no value, not even leniently."""


def _refuse(constant: str) -> NoReturn:
    raise _NotJson(constant)  # NaN and Infinity cannot be stored


_STRICT = json.JSONDecoder(strict=False, parse_constant=_refuse)


def value_at(text: str, start: int = 0) -> tuple[JsonValue, int] | None:
    """The value that begins at ``start`` (after white space) and where it ends; what follows it does not matter."""
    start = _skip(text, start)
    try:
        if text.startswith(('"""', "'''"), start):
            raise _NotJson
        value, end = _STRICT.raw_decode(text, start)
    except (ValueError, RecursionError):
        reader = _Reader(text, start)
        try:
            value, end = reader.value(), reader.position
        except (ValueError, RecursionError):
            return None
    return (value, end) if _can_be_stored(value) else None


def whole_value(text: str) -> tuple[JsonValue] | None:
    """The value that the text consists of, in a tuple of its own since it may be ``None``."""
    found = value_at(text)
    return None if found is None or _skip(text, found[1]) < len(text) else (found[0],)


def only_value(text: str) -> tuple[JsonValue] | None:
    """The one JSON value in a text, in a tuple of its own: alone, in a block of code, or an object in prose.

    ``None`` where there is none, or more than one.
    """
    text = text.strip("\ufeff \t\r\n")
    whole = whole_value(text)
    if whole is not None:
        return whole
    for opening in (_BLOCK, _BRACE):
        values: list[JsonValue] = []
        at = failures = 0
        while failures < MAX_FAILURES and (begin := opening.search(text, at)) is not None:
            found = value_at(text, begin.start("value"))
            if found is None:
                failures += 1
                at = begin.end()
            else:
                values.append(found[0])
                at = found[1]
        if values:
            return (values[0],) if all(value == values[0] for value in values) else None
    return None


def call_arguments(text: str) -> tuple[list[JsonValue], dict[str, JsonValue]] | None:
    """What stands between the brackets of a call such as ``f(1, "two", three=3)``: by position, by name."""
    reader = _Reader(text, _skip(text, 0))
    by_position: list[JsonValue] = []
    by_name: dict[str, JsonValue] = {}
    try:
        while reader.position < len(text):
            name = _KEYWORD.match(text, reader.position)
            if name is not None:
                reader.move(name.end())
                by_name[name[1]] = reader.value()
            elif by_name:
                return None
            else:
                by_position.append(reader.value())
            reader.move(reader.position)
            if reader.position < len(text):
                reader.expect(",")
    except (ValueError, RecursionError):
        return None
    return (by_position, by_name) if _can_be_stored([by_position, by_name]) else None


class _Reader:
    """Reads Python's and JavaScript's literals as if they were JSON."""

    def __init__(self, text: str, position: int) -> None:
        self.text = text
        self.position = position

    def value(self, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            raise _NotJson
        first = self.text[self.position : self.position + 1]
        if first in ('"', "'"):
            return self._string()
        if first == "{":
            return self._members(depth)
        if first in ("[", "("):
            return self._items(_CLOSING[first], depth)
        return self._word()

    def move(self, position: int) -> None:
        """Go to ``position`` and over the white space there."""
        self.position = _skip(self.text, position)

    def expect(self, sign: str) -> None:
        """Go over ``sign``, which must stand here."""
        if not self.text.startswith(sign, self.position):
            raise _NotJson
        self.move(self.position + 1)

    def _members(self, depth: int) -> dict[str, JsonValue]:
        members: dict[str, JsonValue] = {}
        self.expect("{")
        while not self._closed("}"):
            key = self._key()
            self.move(self.position)
            self.expect(":")
            members[key] = self.value(depth + 1)
            self._separated("}")
        return members

    def _items(self, closing: str, depth: int) -> list[JsonValue]:
        items: list[JsonValue] = []
        self.move(self.position + 1)
        while not self._closed(closing):
            items.append(self.value(depth + 1))
            self._separated(closing)
        return items

    def _closed(self, closing: str) -> bool:
        if not self.text.startswith(closing, self.position):
            return False
        self.position += 1
        return True

    def _separated(self, closing: str) -> None:
        self.move(self.position)
        if not self.text.startswith(closing, self.position):
            self.expect(",")

    def _key(self) -> str:
        name = _NAME.match(self.text, self.position)
        if name is None:
            return self._string()
        self.position = name.end()
        return name[0]

    def _string(self) -> str:
        found = _STRING.match(self.text, self.position)
        if found is None:
            raise _NotJson
        self.position = found.end()
        inner = found[found.lastindex or 0]
        string: str = json.loads(f'"{_ESCAPE.sub(_as_json_escape, inner)}"', strict=False)
        return string

    def _word(self) -> JsonValue:
        found = _WORD.match(self.text, self.position)
        if found is None:
            raise _NotJson
        self.position = found.end()
        if found[0] in _PYTHON_WORDS:
            return _PYTHON_WORDS[found[0]]
        word: JsonValue = json.loads(found[0], parse_constant=_refuse)
        return word


def _as_json_escape(found: re.Match[str]) -> str:
    escaped = found[1]
    if escaped is None:  # a bare double quote in a single-quoted string
        return '\\"'
    if escaped == "'":
        return "'"
    if escaped[0] == "x" and len(escaped) == 3:
        return f"\\u00{escaped[1:]}"
    if escaped in '"\\/bfnrt' or (escaped[0] == "u" and len(escaped) == 5):
        return f"\\{escaped}"
    return f"\\\\{escaped}"  # JSON knows no such escape: \d in a pattern means itself


def _skip(text: str, start: int) -> int:
    space = _SPACE.match(text, start)
    return space.end() if space is not None else start


def _can_be_stored(value: Any) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.keys()  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
                below += item.values()  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            elif isinstance(item, list):
                below += item
            elif not _is_sound(item):
                return False
        level = below
    return not level


def _is_sound(item: str | float | None) -> bool:
    if isinstance(item, float):
        return math.isfinite(item)
    return not isinstance(item, str) or is_unicode(item)


def is_unicode(text: str) -> bool:
    """Whether the text can be encoded: it holds no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
