"""Durations as they are typed."""

from __future__ import annotations

import re

from ops_core.errors import InvalidRequest

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
"""Seconds."""

_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?[smhd])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def seconds_in(text: str, option: str) -> float:
    """The seconds of a duration such as ``90s``, ``45m``, ``12h``, ``30d`` or ``1h30m``.

    Raises:
        InvalidRequest: it is none; ``field`` names the option.
    """
    if len(text) > 100 or not text.isascii() or not _DURATION.fullmatch(text):
        message = f"--{option} takes a number and a unit: 30d, 12h, 45m or 90s"
        raise InvalidRequest(message, field=option.replace("-", "_"))
    return sum(float(number) * UNITS[unit] for number, unit in _PART.findall(text))
