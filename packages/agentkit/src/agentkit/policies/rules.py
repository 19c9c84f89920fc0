"""Rules about one argument of some tools, and checks of plain values."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Literal, Protocol, cast

from agentkit.errors import UsageError
from agentkit.messages import JsonObject, JsonValue


class Check(Protocol):
    """Looks at one value of an argument."""

    def problem(self, value: JsonValue) -> str | None:
        """What is wrong with it, in words that follow the argument's name; ``None`` where nothing is."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """An argument must pass a check.

    Attributes:
        tools: their names, or patterns (``*`` and ``?``).
        argument: its name; ``options.path`` is one inside of another, ``urls.*`` each item of a list or object.
        check: :class:`Inside`, :class:`Hosts`, :class:`Between`, :class:`OneOf`, or one of your own.
        otherwise: what becomes of a call that does not pass.
        optional: a call without the argument passes; otherwise it does not.
        reason: told instead of what the check says.

    Raises:
        UsageError: the tools or the argument are not named, or a sum is to be made of what may be missing.
    """

    tools: Collection[str]
    argument: str
    check: Check
    otherwise: Literal["deny", "ask"] = "deny"
    optional: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        if self.adds_up and self.optional:
            message = "a rule about a sum needs the argument in each call: it cannot be optional"
            raise UsageError(message)
        if isinstance(self.tools, str) or not self.tools:
            message = "a rule needs a list of tools"
            raise UsageError(message)
        if not all(self.argument.split(".")):
            message = f"a rule about {self.argument!r} names no argument"
            raise UsageError(message)

    def concerns(self, tool: str) -> bool:
        """Whether it says anything about calls of this tool."""
        return any(fnmatchcase(tool, pattern) for pattern in self.tools)

    @property
    def adds_up(self) -> bool:
        """Whether it matters which calls were made before."""
        return isinstance(self.check, Between) and self.check.most_per_run is not None

    def problem(self, arguments: JsonObject, earlier: Iterable[JsonObject] = ()) -> str | None:
        """Why a call does not pass; ``None`` where it does.

        Args:
            arguments: of the call.
            earlier: those of all calls before it that this rule concerns, where it adds up.
        """
        found = list(_values(arguments, self.argument.split(".")))
        if not found and not self.optional:
            found = [_MISSING]
        for value in found:
            wrong = value.what if isinstance(value, _Wrong) else self.check.problem(value)
            if wrong is not None:
                return self.reason or f"{self.argument} {wrong}"
        if isinstance(self.check, Between):
            wrong = self.check.problem_of_sum(_plain(found), self._values_of(earlier))
            return None if wrong is None else self.reason or f"{self.argument} {wrong}"
        return None

    def _values_of(self, several: Iterable[JsonObject]) -> Iterator[JsonValue]:
        for arguments in several:
            yield from _plain(_values(arguments, self.argument.split(".")))


@dataclass(frozen=True, slots=True)
class _Wrong:
    what: str


_MISSING = _Wrong("must be given")
_SPELLED = _Wrong("must be spelled as the tool does")


def _values(value: JsonValue, names: list[str]) -> Iterator[JsonValue | _Wrong]:
    """What stands at this place; nothing where it is not there."""
    if not names:
        yield value
        return
    name, *rest = names
    if name == "*" and isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _values(item, rest)
    elif isinstance(value, dict):
        given = cast("JsonObject", value)
        if any(_same(other, name) for other in given if other != name):
            yield _SPELLED  # a tool that is lax about names would take it for the one that is looked at
        if name in given:
            yield from _values(given[name], rest)
    else:
        yield _MISSING


def _plain(found: Iterable[JsonValue | _Wrong]) -> Iterator[JsonValue]:
    return (None if isinstance(value, _Wrong) else value for value in found)


def _same(one: str, other: str) -> bool:
    return _bare(one) == _bare(other)


def _bare(name: str) -> str:
    """``filePath``, ``file_path`` and ``file-path `` are one name for many a tool."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", name)).casefold()


_MAX_SHOWN = Fraction(10**300)


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
            "nobody knows how much it is" if None in before else f"it is {float(min(known, _MAX_SHOWN)):g}"
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
