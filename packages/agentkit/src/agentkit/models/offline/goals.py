"""Goals in English, translated to the calls that they ask for. What is not understood wholly is not understood."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from agentkit.models.offline import arithmetic, dates, sources
from agentkit.models.offline.calls import Call
from agentkit.models.offline.tokens import Cursor, TooLong, tokenize

_MAX_QUOTE = 80
_BETWEEN = (
    *(".", ",", ";", "!", "?", ":", "=", "&"),
    *(
        "and",
        "then",
        "finally",
        "next",
        "after that",
        "afterwards",
        "also",
        "now",
        "first",
        "second",
        "please",
        "thanks",
    ),
    *(
        "thank you",
        "can you",
        "could you",
        "would you",
        "i want to know",
        "i would like to know",
        "i'd like to know",
    ),
    *("tell me", "let me know", "to me", "for me"),
)
_ASKING = (
    *(
        "what is",
        "what's",
        "what are",
        "what was",
        "calculate",
        "compute",
        "evaluate",
        "how much is",
        "how much are",
    ),
    *("work out", "find", "determine", "give me", "get", "solve", "what do you get if you", "take"),
)
_REPORT = re.compile(
    r"\s*(?:(?:and|then|finally|,)\s+)*(?:report|return|print|give|tell|show|answer with|reply with)\s+"
    r"(?:me\s+)?(?:with\s+)?(?:just\s+|only\s+)?(?:the\s+)?(?:final\s+)?(?:result|answer|outcome|product|sum|number|total)s?\s*[.!]*\s*$",
    re.IGNORECASE,
)
_FACTORIAL = re.compile(r"\d\s*!(?!\s*$)|^\s*(?:what|how)\b.*\d!\s*$", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal that is understood.

    Attributes:
        parts: what each part of it comes down to, in its order; a later one may need an earlier one.
    """

    parts: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class NotUnderstood:
    """A goal that is not understood.

    Attributes:
        rest: where understanding ended, as it stands in the goal; may be shortened, and empty.
    """

    rest: str = ""


def understand(text: str) -> Goal | NotUnderstood:
    """What ``text`` asks for."""
    goal = _REPORT.sub("", text)
    if _FACTORIAL.search(goal):
        return NotUnderstood("!")
    try:
        cursor = Cursor(tokenize(goal))
    except TooLong:
        return NotUnderstood()
    parts: list[Call] = []
    cursor.skip(*_BETWEEN)
    while not cursor.at_end:
        found = _part(cursor, parts)
        if found is None:
            break
        parts += found
        cursor.skip(*_BETWEEN)
    if parts and cursor.at_end:
        return Goal(tuple(parts))
    token = cursor.next
    return NotUnderstood(_shortened(goal[token.begin :]) if token is not None else "")


def _part(cursor: Cursor, parts: Sequence[Call]) -> list[Call] | None:
    """One part of a goal: the first reading that fits and ends where a part may end."""
    readings = (
        lambda: arithmetic.command(cursor, parts),
        lambda: sources.listing(cursor),
        lambda: sources.reading(cursor),
        lambda: sources.search(cursor),
        lambda: dates.question(cursor, parts),
        lambda: _counts(cursor),
        lambda: _quantity(cursor, parts),
    )
    for reading in readings:
        found = cursor.attempt(partial(_ended, cursor, reading))
        if found is not None:
            return found
    return None


def _ended(cursor: Cursor, reading: Callable[[], list[Call] | None]) -> list[Call] | None:
    """What ``reading`` finds, if a part of a goal may end there."""
    found = reading()
    return found if cursor.at_end or cursor.sees(*_BETWEEN) else None


def _counts(cursor: Cursor) -> list[Call] | None:
    cursor.skip("what is", "what's", "what are", "give me", "find")
    return sources.counts(cursor)


def _quantity(cursor: Cursor, parts: Sequence[Call]) -> list[Call] | None:
    cursor.skip(*_ASKING)
    found = arithmetic.Arithmetic(cursor, parts).quantity()
    return None if found is None else [found.as_call()]


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_QUOTE else f"{line[:_MAX_QUOTE]}…"
