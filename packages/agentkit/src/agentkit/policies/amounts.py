"""Checks of plain values: within bounds, or one of a few."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass

from agentkit.errors import UsageError
from agentkit.messages import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """A number is within bounds. It must be a number in JSON: a text that a tool would read as one is refused.

    Attributes:
        least: not smaller; ``None`` for no bound.
        most: not greater; ``None`` for no bound.

    Raises:
        UsageError: there is no bound, or no number satisfies them.
    """

    least: float | None = None
    most: float | None = None

    def __post_init__(self) -> None:
        bounds = [bound for bound in (self.least, self.most) if bound is not None]
        if not bounds or any(math.isnan(bound) for bound in bounds) or bounds[0] > bounds[-1]:
            message = "a rule about an amount needs a least or a most value, the least not above the most"
            raise UsageError(message)

    def problem(self, value: JsonValue) -> str | None:
        """What is wrong with a value."""
        if isinstance(value, bool) or not isinstance(value, int | float) or _is_no_number(value):
            return "must be a number"
        if self.least is not None and value < self.least:
            return f"must be at least {self.least:g}"
        if self.most is not None and value > self.most:
            return f"must be at most {self.most:g}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOf:
    """A value is one of a few. ``1``, ``1.0``, ``true`` and ``"1"`` are four different values.

    Attributes:
        values: these.

    Raises:
        UsageError: there are none.
    """

    values: Collection[JsonValue]

    def __post_init__(self) -> None:
        if isinstance(self.values, str) or not self.values:
            message = "a rule about values needs a list of them"
            raise UsageError(message)

    def problem(self, value: JsonValue) -> str | None:
        """What is wrong with a value."""
        if _text(value) in {_text(allowed) for allowed in self.values}:
            return None
        return f"must be one of {', '.join(_text(allowed) for allowed in self.values)}"


def _is_no_number(value: int | float) -> bool:
    return not isinstance(value, int) and not math.isfinite(value)  # an int may be too large to be a float


def _text(value: JsonValue) -> str:
    return json.dumps(value, sort_keys=True)
