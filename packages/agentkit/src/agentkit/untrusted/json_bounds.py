"""Bounds of untrusted JSON: its cost depends on its values, not on its bytes."""

from __future__ import annotations

import re

MAX_VALUES = 100_000
"""Number of values in a result: as many numbers, texts, lists and fields of objects."""

_TEXTS = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_STARTS = (b",", b"[", b"{")


def has_more_values(data: bytes, most: int = MAX_VALUES) -> bool:
    """Whether JSON holds more values than ``most``. Reads it once, and makes nothing of it."""
    if sum(map(data.count, _STARTS)) <= most:  # what stands in texts is counted, too
        return False
    outside = _TEXTS.sub(b"", data)
    return sum(map(outside.count, _STARTS)) > most
