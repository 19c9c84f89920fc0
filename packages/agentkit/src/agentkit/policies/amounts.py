"""Checks of plain values: within bounds, or one of a few."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fractions import Fraction

from agentkit.errors import UsageError
from agentkit.messages import JsonValue

_MOST_SHOWN = Fraction(10**300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """A number is within bounds. It must be a number in JSON: a text that a tool would read as one is refused.

    Attributes:
        least: not smaller; ``None`` for no bound.
        most: not greater; ``None`` for no bound.
        most_per_run: nor is the sum of all calls of a run that the rule is about; none may be negative then.

    Raises:
        UsageError: there is no bound, or no number satisfies them.
    """

    least: float | None = None
    most: float | None = None
    most_per_run: float | None = None

    def __post_init__(self) -> None:
        lowest = -math.inf if self.least is None else self.least
        given = [bound for bound in (self.least, self.most, self.most_per_run) if bound is not None]
        if not given or any(map(math.isnan, given)) or lowest > min(given):
            message = "a rule about an amount needs a least or a most value, the least not above the most"
            raise UsageError(message)
        if self.most_per_run is not None and not 0 < self.most_per_run < math.inf:
            message = "what all amounts of a run may add up to must be positive and finite"
            raise UsageError(message)

    def problem(self, value: JsonValue) -> str | None:
        """What is wrong with a value."""
        if isinstance(value, bool) or not isinstance(value, int | float) or _is_no_number(value):
            return "must be a number"
        if self.least is not None and value < self.least:
            return f"must be at least {self.least:g}"
        if self.most is not None and value > self.most:
            return f"must be at most {self.most:g}"
        if self.most_per_run is not None and value < 0:
            return "must not be negative"
        return None

    def problem_of_sum(self, values: Iterable[JsonValue], earlier: Iterable[JsonValue]) -> str | None:
        """What is wrong with the sum of all calls of a run.

        Args:
            values: those of a call, of which none is wrong by itself.
            earlier: those of the calls before it. Of one that is no amount nobody knows what was added.
        """
        if self.most_per_run is None:
            return None
        before = [_exact(value) for value in earlier]
        known = sum((value for value in before if value is not None), Fraction())
        more = sum((_exact(value) or Fraction() for value in values), Fraction())
        if None not in before and known + more <= Fraction(repr(float(self.most_per_run))):
            return None
        so_far = (
            "nobody knows how much it is" if None in before else f"it is {float(min(known, _MOST_SHOWN)):g}"
        )
        return f"must be at most {self.most_per_run:g} in all calls of a run together, and {so_far} so far"


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


def _exact(value: JsonValue) -> Fraction | None:
    """An amount as it is written, so that a tenth is a tenth; nothing for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or _is_no_number(value) or value < 0:
        return None
    return Fraction(value) if isinstance(value, int) else Fraction(repr(value))


def _is_no_number(value: int | float) -> bool:
    return not isinstance(value, int) and not math.isfinite(value)  # an int may be too large to be a float


def _text(value: JsonValue) -> str:
    return json.dumps(value, sort_keys=True)
