r"""Text that is safe to show: of models and tools, and of settings.

What models and tools write may hold terminal escapes (which can move the cursor, or fill the clipboard) and characters
that turn the order of what is read around. Such characters are shown as ``\uXXXX`` and never reach a terminal or a log.
The same form is valid inside JSON, so JSON lines are safe in the same way.
"""

from __future__ import annotations

import json
import re
from typing import Any

_UNSAFE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and newline
    # invisible, or turning the order
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f"  # tags: invisible letters
    "\ud800-\udfff"  # halves of characters
    "]"
)
_MARKS_UNSEEN = re.compile(
    # printable to Python, and yet nothing to look at: joiners, fillers, variation selectors
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_SPACES = re.compile("  +")  # how many, or how wide the rest of a line is, nobody sees
_json = json.JSONEncoder(ensure_ascii=False, default=str).encode


def visible(text: str) -> str:
    """``text`` with every character that a terminal would act on, or hide, written as an escape."""
    return _UNSAFE.sub(_escaped, text.replace("\r\n", "\n"))


def _escaped(found: re.Match[str]) -> str:
    return _escape(found[0])


def _escape(text: str) -> str:
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def unmistakable(value: Any) -> str:
    """``value`` as one line of JSON for somebody who decides about it: nothing in it is invisible.

    Stricter than :func:`json_line`: what honest text uses, too, such as the joiners in some emoji, is an escape here.
    """
    text = "".join(char if char.isprintable() else _escape(char) for char in _json(value))
    return _SPACES.sub(lambda found: " " + _escape(found[0][1:]), _MARKS_UNSEEN.sub(_escaped, text))


def one_line(text: str) -> str:
    """``text`` on one line, for a table or a headline."""
    return visible(" ".join(text.split()))


def without_secrets(value: str) -> str:
    """A setting as it may be shown: of an address, neither the password nor what follows a question mark."""
    if "://" not in value:
        return value
    return re.sub(r"\?.*", "?…", re.sub(r"(://)(?!/).*@", r"\1…@", value))  # a password may hold / and ?


def json_line(value: Any) -> str:
    """``value`` as one line of JSON that is safe to show."""
    return _UNSAFE.sub(_escaped, _json(value))
