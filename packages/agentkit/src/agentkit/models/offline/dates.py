"""The phrases about dates, and the calls they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from agentkit.models.offline.calls import Argument, Call, Earlier, is_date
from agentkit.models.offline.tokens import Cursor, Kind
from agentkit.models.offline.words import number

Date: TypeAlias = str | Call | Earlier

_TODAY = Call("today")
_NEAR = {
    "the day after tomorrow": 2,
    "the day before yesterday": -2,
    "tomorrow": 1,
    "yesterday": -1,
}
_UNITS = {"day": 1, "days": 1, "week": 7, "weeks": 7}
_LATER = ("after", "from", "following")
_EARLIER = ("before", "prior to")
_WEEKDAY = ("day of the week", "weekday", "day of week", "week day")
_BE = (
    "will it be",
    "would it be",
    "is it",
    "was it",
    "will be",
    "would be",
    "is",
    "was",
    "does",
    "do",
    "did",
    "will",
)


def date(cursor: Cursor, results: Sequence[Call]) -> Date | None:
    """A date, a word for one, or a distance from one."""
    # mypy joins the members of the union to `object`.
    return cursor.nested(lambda: _date(cursor, results))  # type: ignore[return-value]


def _date(cursor: Cursor, results: Sequence[Call]) -> Date | None:
    cursor.skip("on", "the date")
    token = cursor.take(Kind.DATE)
    if token is not None:
        return token.text
    if near := cursor.accept(*_NEAR):
        return _later(_TODAY, _NEAR[near])
    if cursor.accept("today's date", "today", "now", "the current date"):
        return _TODAY
    latest = _latest(results)
    if latest is not None and cursor.accept("that date", "that day", "this date", "the result", "that", "it"):
        return latest
    return cursor.attempt(lambda: _distance(cursor, results))


def _latest(results: Sequence[Call]) -> Earlier | None:
    return Earlier(len(results) - 1) if results and is_date(results[-1]) else None


def _distance(cursor: Cursor, results: Sequence[Call]) -> Call | None:
    ahead = cursor.accept("in") is not None
    count = "1" if cursor.accept("a", "one") else number(cursor)
    unit = cursor.accept(*_UNITS)
    if count is None or unit is None or not count.isdigit() or len(count) > 9:
        return None
    days = int(count) * _UNITS[unit]
    if ahead:
        return _later(_TODAY, days)
    if cursor.accept("ago"):
        return _later(_TODAY, -days)
    direction = 1 if cursor.accept(*_LATER) else -1 if cursor.accept(*_EARLIER) else 0
    origin = date(cursor, results) if direction else None
    return _later(origin, direction * days) if origin is not None else None


def _later(origin: Date, days: int) -> Call:
    return Call("add_days", (("date", origin), ("days", days)))


def days_between(cursor: Cursor, results: Sequence[Call]) -> Call | None:
    """``how many days between A and B``, ``days until A``, ``days since A``."""
    return cursor.attempt(lambda: _days_between(cursor, results))


def _days_between(cursor: Cursor, results: Sequence[Call]) -> Call | None:
    cursor.skip("how many", "the", "count", "number of", "difference in")
    if not cursor.accept("days"):
        return None
    cursor.skip("are", "is", "were", "lie", "there", "left", "it", "have", "passed", "will", "be")
    between = cursor.accept("between", "from", "until", "till", "to", "since")
    ends: tuple[Argument | None, Argument | None]
    match between:
        case "between" | "from":
            start = date(cursor, results)
            middle = cursor.accept("and") if between == "between" else cursor.accept("to", "until", "till")
            ends = (start, date(cursor, results) if middle else None)
        case "until" | "till" | "to":
            ends = (_TODAY, date(cursor, results))
        case "since":
            ends = (date(cursor, results), _TODAY)
        case _:
            return None
    start, end = ends
    if start is None or end is None:
        return None
    return Call("days_between", (("start", start), ("end", end)))


def question(cursor: Cursor, results: Sequence[Call]) -> list[Call] | None:
    """A question whose answer is a date, a weekday or a time."""
    readings: Sequence[Callable[[Cursor, Sequence[Call]], Call | None]] = (
        _weekday,
        _time,
        _which_date,
    )
    for parse in readings:
        found = cursor.attempt(partial(parse, cursor, results))
        if found is not None:
            return [found]
    return None


def _weekday(cursor: Cursor, results: Sequence[Call]) -> Call | None:
    cursor.skip("on", "tell me", "find", "get", "determine")
    asked = cursor.accept("what", "which", "what's", "the")
    cursor.skip("is", "the")
    if cursor.accept(*_WEEKDAY):
        cursor.skip("of", "for", *_BE, "it", "that is", "on")
    elif asked not in {"what", "which"} or not cursor.accept("day") or not cursor.accept(*_BE):
        return None
    when = date(cursor, results) or _latest(results) or _TODAY
    cursor.skip("fall on", "fall", "be", "on", "it", "is", "was", "will")
    return Call("weekday", (("date", when),))


def _time(cursor: Cursor, results: Sequence[Call]) -> Call | None:  # noqa: ARG001  (as its neighbours)
    if not cursor.accept(
        "what time is it", "what is the time", "what's the time", "the current time", "the time"
    ):
        return None
    cursor.skip("now", "right now")
    zone = cursor.attempt(lambda: cursor.take(Kind.PATH) if cursor.accept("in") else None)
    if zone is None:
        cursor.skip("in utc")
        return Call("now")
    return Call("now", (("timezone", zone.text),))


def _which_date(cursor: Cursor, results: Sequence[Call]) -> Call | None:
    asked = cursor.accept("what is", "what's", "what", "which", "tell me", "give me")
    cursor.skip("the date of", "the date", "date", "day", *_BE, "it", "the")
    when = date(cursor, results) or (
        _TODAY if asked and cursor.accept("today's date", "current date") else None
    )
    cursor.skip("be", "is", "it")
    return when if isinstance(when, Call) else None
