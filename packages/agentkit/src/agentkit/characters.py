r"""Characters that a person does not see, or that turn the order of what is read around.

A description that hides instructions from whoever approves it is written with these. Where a definition has one it is
refused; in what a server returns it is made visible, as ``\uXXXX``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
    """``value`` with every such character written as an escape."""
    if isinstance(value, str):
        return _UNSAFE.sub(_escaped, value)
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        return {visible(name): visible(field) for name, field in fields.items()}
    if isinstance(value, list | tuple):
        return [visible(each) for each in cast("Sequence[Any]", value)]
    return value


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
