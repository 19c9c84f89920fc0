r"""Invisible characters, and those that reverse the order of a text: the one table of them.

A description that hides instructions from its reviewer is written with these. Where a definition has one it is
refused; wherever a text is shown to people it is written as an escape, such as ``\uXXXX``. What models are given stays
as it is, but for invisible letters (:func:`legible`).

The table is Unicode's ``Default_Ignorable_Code_Point``, with what else has no shape: control characters, separators of
lines and paragraphs, marks of annotations, the blank of Braille, an empty note head, halves of characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

_ALWAYS = (
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters but tab and the ends of lines
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u2800"
    "\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\U00016fe4\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"  # tags (invisible letters) and variations
    "\ud800-\udfff"  # halves of characters
)
_JOINERS, _SELECTORS = "\u200c\u200d", "\ufe0e\ufe0f"
_SHAPED = f"[^\x00-\x7f{_ALWAYS}{_JOINERS}{_SELECTORS}]"
_BEFORE_A_JOINER = f"[^\x00-\x7f{_ALWAYS}{_JOINERS}\ufe0e]"
_BEFORE_A_SELECTOR = (
    f"[^\x00-\x22\x24-\x29\x2b-\x2f\x3a-\x7f{_ALWAYS}{_JOINERS}{_SELECTORS}]"  # or a key: 0-9 # *
)

HIDDEN = re.compile(
    f"[{_ALWAYS}]"
    # joiners have their place within some scripts and between pictures, selectors behind a picture: one at a time
    f"|(?<!{_BEFORE_A_JOINER})[{_JOINERS}]|[{_JOINERS}](?!{_SHAPED})|(?<!{_BEFORE_A_SELECTOR})[{_SELECTORS}]"
)
"""A character that hides. Joiners and selectors are none where languages and pictures need them."""

UNSEEN = re.compile(f"[{_ALWAYS}{_JOINERS}{_SELECTORS}]")
"""A character that is not seen, also where it has its place."""

_TAGS = re.compile(
    "(?P<flag>\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f)|[\U000e0000-\U000e007f]+"
)  # the flags of England, Scotland, Wales and other regions are written with tags


def hidden_in(value: Any) -> str | None:
    """The first :data:`HIDDEN` character in a text, or in keys and texts of JSON, as ``U+XXXX``; ``None`` for none."""
    if isinstance(value, str):
        first = HIDDEN.search(value)
        return None if first is None else f"U+{ord(first[0]):04X}"
    inner: Sequence[Any] = ()
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        inner = [*fields.keys(), *fields.values()]
    elif isinstance(value, list | tuple):
        inner = cast("Sequence[Any]", value)
    return next((found for each in inner if (found := hidden_in(each)) is not None), None)


def visible(value: Any) -> Any:
    """``value`` for people: every :data:`HIDDEN` character is written as an escape."""
    return _with_texts(value, lambda text: HIDDEN.sub(_escaped, text))


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
        fields = cast("Mapping[object, object]", value)
        return {_with_texts(name, change): _with_texts(field, change) for name, field in fields.items()}
    if isinstance(value, list | tuple):
        return [_with_texts(each, change) for each in cast("Sequence[Any]", value)]
    return value


def _escaped_all(text: str) -> str:
    return "".join(f"\\U{ord(letter):08x}" for letter in text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
