"""Durations in configuration and settings: one reader for all of them.

A duration is a number of seconds, of which the clocks and databases below can keep count. Python takes ``true`` for 1,
a text for a number and 1e300 for a time that a timer can wait; each of these is refused here, where its field is named.
"""

from __future__ import annotations

from math import isfinite, isinf
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

MAX_SECONDS = 10 * 31_557_600.0
"""Ten years. No timer, lease or deadline needs more, and all of them can keep count of it."""

DAY = 86_400

_NUMBER = "must be a number of seconds, such as 30 or 0.5"


def read_seconds(value: Any) -> float:
    """The number of seconds in a value of a configuration file.

    Raises:
        ValueError: it is no number, or longer than :data:`MAX_SECONDS`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        what = f"the text {value!r:.40}" if isinstance(value, str) else f"{type(value).__name__}"
        message = f"{_NUMBER}, not {what}"
        raise ValueError(message)  # noqa: TRY004  (pydantic tells no other one)
    if isinstance(value, float) and not isfinite(value):
        message = f"{_NUMBER}, not {value}"
        raise ValueError(message)
    if value > MAX_SECONDS:
        message = f"must be at most {MAX_SECONDS:.0f} seconds (ten years)"
        raise ValueError(message)
    return float(max(value, -1))  # so that the bound below is named, also where a float could not hold it


def read_seconds_of_text(value: Any) -> float:
    """As :func:`read_seconds`, of a text from the environment or the command line."""
    if not isinstance(value, str):
        return read_seconds(value)
    try:
        number = float(value)
    except ValueError:
        message = f"{_NUMBER}, without a unit"
        raise ValueError(message) from None
    return read_seconds(number)


def read_days_of_text(value: Any) -> float:
    """The same for a number of days."""
    try:
        return read_seconds(float(value) * DAY if not isinstance(value, bool) else value) / DAY
    except (ValueError, TypeError, OverflowError):
        message = f"must be a number of days, without a unit, of at most {MAX_SECONDS / DAY:.0f}"
        raise ValueError(message) from None


def read_seconds_or_ever(value: Any) -> float:
    """As :func:`read_seconds`; ``inf`` for ever."""
    return value if isinstance(value, float) and isinf(value) and value > 0 else read_seconds(value)


Seconds = Annotated[float, Field(gt=0), BeforeValidator(read_seconds)]
SecondsOrZero = Annotated[float, Field(ge=0), BeforeValidator(read_seconds)]
SecondsOrEver = Annotated[float, Field(gt=0, allow_inf_nan=True), BeforeValidator(read_seconds_or_ever)]
SecondsOfText = Annotated[float, Field(gt=0), BeforeValidator(read_seconds_of_text)]
