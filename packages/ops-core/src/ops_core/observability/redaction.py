r"""Redaction of text for display: of models and tools, and of settings.

What models and tools write may hold terminal escapes (which can move the cursor, or fill the clipboard) and characters
that turn the order of what is read around. Such characters (:mod:`agentkit.untrusted.text` has the table) are shown as
``\uXXXX`` and never reach a terminal or a log. The same form is valid inside JSON, so JSON lines are safe in the same
way.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from agentkit.untrusted.text import HIDDEN, UNSEEN

_SPACES = re.compile("  +")  # how many, or how wide the rest of a line is, nobody sees
_WORD = re.compile(r"\S+")
_LABELS = re.compile(r"([^\w]|_)")
_SCRIPTS = (
    "CYRILLIC",
    "GREEK",
    "ARMENIAN",
    "CHEROKEE",
    "COPTIC",
    "LISU",
    "DESERET",
    "OLD ITALIC",
    "CANADIAN",
)
"""Scripts with letters that look like Latin ones."""
_LATIN_LOOK_ALIKES = frozenset("ɑɡɩǀ")
_LOOK_ALIKES = frozenset(
    "аАВсСеЕһНіІјЈКӏМоОрРԛѕЅТуУѵԝхХԁ"  # Cyrillic
    "αΑΒϲϹΕΗιΙϳκΚΜΝνοΟρΡΤυΥχΧΖ"  # Greek
    "ооօԱսՍհոզցԛᎪᏴᏟᎬᎻᎫᎠᏚᏒᎢᏔ"  # Armenian, Cherokee
)  # fmt: skip
"""Letters of other scripts that nobody tells from a Latin one."""
_json = json.JSONEncoder(ensure_ascii=False, default=str).encode


def visible(text: str) -> str:
    """``text`` with every character that a terminal would act on, or hide, written as an escape."""
    return HIDDEN.sub(_escaped, text.replace("\r\n", "\n")).replace("\r", r"\u000d")


def _escaped(found: re.Match[str]) -> str:
    return _escape(found[0])


def _escape(text: str) -> str:
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def unmistakable(value: Any) -> str:
    """``value`` as one line of JSON for somebody who decides about it: nothing in it is invisible.

    Stricter than :func:`json_line`: what honest text uses, too, such as the joiners in some emoji, is an escape here.
    So are letters that look like Latin ones among Latin ones, as in ``аmazon.com`` with a Cyrillic first letter.
    """
    text = _WORD.sub(_marked, "".join(char if char.isprintable() else _escape(char) for char in _json(value)))
    return _SPACES.sub(lambda found: " " + _escape(found[0][1:]), UNSEEN.sub(_escaped, text))


def _marked(found: re.Match[str]) -> str:
    """A word with its look-alikes as escapes; one that is in one script all through is left as it is."""
    word = found[0]
    if word.isascii():
        return word
    has_latin = any(char.isascii() and char.isalpha() for char in word)
    return "".join(_marked_label(label, has_latin=has_latin) for label in _LABELS.split(word))


def _marked_label(label: str, *, has_latin: bool) -> str:
    letters = [char for char in label if char.isalpha()]
    is_mixed = any(map(str.isascii, letters))
    is_disguised = has_latin and all(char in _LOOK_ALIKES or char.isascii() for char in letters)
    return "".join(
        _escape(char) if _is_look_alike(char, is_mixed or is_disguised) else char for char in label
    )


def _is_look_alike(char: str, among_latin: bool) -> bool:
    if char.isascii() or not char.isalnum():
        return False
    if unicodedata.normalize("NFKC", char).isascii():  # wide, bold and other forms of the same letter
        return True
    return char in _LATIN_LOOK_ALIKES or (among_latin and unicodedata.name(char, "").startswith(_SCRIPTS))


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
    return HIDDEN.sub(_escaped, _json(value))
