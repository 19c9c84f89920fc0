"""Numbers in words."""

from __future__ import annotations

from agentkit.models.offline.tokens import Cursor, Kind

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve "
    "thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_NUMBERS = {
    **{word: value for value, word in enumerate(_SMALL.split())},
    **{word: 10 * value for value, word in enumerate(_TENS.split(), start=2)},
}
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}


def number(cursor: Cursor) -> str | None:
    """A number in digits or in words (``twenty-one``, ``5 million``), as digits."""
    token = cursor.take(Kind.NUMBER)
    digits = token.text if token is not None else cursor.attempt(lambda: _small(cursor))
    while digits is not None and digits.isdigit() and (scale := cursor.accept(*_SCALES)):
        digits = f"{digits}{str(_SCALES[scale])[1:]}"
    return digits


def _small(cursor: Cursor) -> str | None:
    token = cursor.take(Kind.WORD)
    if token is None:
        return None
    tens, dash, ones = token.low.partition("-")
    if tens not in _NUMBERS:
        return None
    if not dash:
        following = cursor.attempt(lambda: _ones(cursor)) if _NUMBERS[tens] >= 20 else None
        return str(_NUMBERS[tens] + (following or 0))
    known = _NUMBERS[tens] >= 20 and 0 < _NUMBERS.get(ones, 0) < 10
    return str(_NUMBERS[tens] + _NUMBERS[ones]) if known else None


def _ones(cursor: Cursor) -> int | None:
    token = cursor.take(Kind.WORD)
    value = _NUMBERS.get(token.low, 0) if token is not None else 0
    return value if 0 < value < 10 else None
