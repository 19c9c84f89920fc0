r"""Characters that a person does not see, or that turn the order of what is read around.

A description that hides instructions from whoever approves it is written with these. Where a definition has one it is
refused; in what a server returns it is made visible, as ``\uXXXX``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

_UNSAFE = re.compile(
    "["
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters but tab and the ends of lines
    # invisible, or turning the order
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d"
    "\ufeff\uffa0\ufff0-\ufffb"
    "\U000e0000-\U000e0fff"  # tags (invisible letters) and variations
    "\ud800-\udfff"  # halves of characters
    "]"
    # joiners have their place in some scripts and between pictures, and nowhere after a plain letter
    "|(?:(?<=[\x00-\x7f])|^)[\u200c\u200d]"
)
_TAGS = re.compile(
    "(?P<flag>\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f)|[\U000e0000-\U000e007f]+"
)  # the flags of England, Scotland, Wales and other regions are written with tags


def hidden_in(value: Any) -> str | None:
    """The first such character in a text, or in the keys and texts of JSON, as ``U+XXXX``; ``None`` for none."""
    if isinstance(value, str):
        first = _UNSAFE.search(value)
        return None if first is None else f"U+{ord(first[0]):04X}"
    inner: Sequence[Any] = ()
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        inner = [*fields.keys(), *fields.values()]
    elif isinstance(value, list | tuple):
        inner = cast("Sequence[Any]", value)
    return next((found for each in inner if (found := hidden_in(each)) is not None), None)


def visible(value: Any) -> Any:
    """``value`` for people: every such character is written as an escape."""
    return _with_texts(value, lambda text: _UNSAFE.sub(_escaped, text))


def legible(value: Any) -> Any:
    """``value`` for models: as it is, but for invisible letters that belong to no flag; a model reads those.

    Whatever else people do not see has its use in files and languages: byte order marks, joiners, marks of direction.
    """
    return _with_texts(value, _without_smuggled)


def _without_smuggled(text: str) -> str:
    if text.isascii():
        return text
    return _TAGS.sub(lambda found: found[0] if found["flag"] else _escaped_all(found[0]), text)


def _with_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        return {change(name): _with_texts(field, change) for name, field in fields.items()}
    if isinstance(value, list | tuple):
        return [_with_texts(each, change) for each in cast("Sequence[Any]", value)]
    return value


def _escaped_all(text: str) -> str:
    return "".join(f"\\U{ord(letter):08x}" for letter in text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
