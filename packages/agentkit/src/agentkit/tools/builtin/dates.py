"""Dates for models: today, and sums with calendar days. Dates are ISO 8601, weekdays are English."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

from agentkit.errors import ToolError
from agentkit.tools.functions import tool

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@tool(effect="pure", sandbox="inprocess")
def today(timezone: str = "UTC") -> str:
    """Tell today's date, for example 2024-02-28.

    Args:
        timezone: UTC, or a name of the time zone database such as Europe/Berlin
    """
    return dt.datetime.now(_zone(timezone)).date().isoformat()


@tool(effect="pure", sandbox="inprocess")
def now(timezone: str = "UTC") -> str:
    """Tell the date and the time, for example 2024-02-28T17:30:05+01:00.

    Args:
        timezone: UTC, or a name of the time zone database such as Europe/Berlin
    """
    return dt.datetime.now(_zone(timezone)).isoformat(timespec="seconds")


@tool(effect="pure", sandbox="inprocess")
def days_between(start: str, end: str) -> int:
    """Count the days from one date to another; negative where the end comes first.

    Args:
        start: a date such as 2024-02-28
        end: a date such as 2024-03-01
    """
    return (_date("end", end) - _date("start", start)).days


@tool(effect="pure", sandbox="inprocess")
def add_days(date: str, days: int) -> str:
    """Tell the date a number of days after another.

    Args:
        date: a date such as 2024-02-28
        days: how many days later; negative for earlier
    """
    try:
        return (_date("date", date) + dt.timedelta(days=days)).isoformat()
    except OverflowError:
        raise ToolError("the result lies outside the years 1 to 9999") from None


@tool(effect="pure", sandbox="inprocess")
def weekday(date: str) -> str:
    """Tell which day of the week a date is, for example Wednesday.

    Args:
        date: a date such as 2024-02-28
    """
    return _WEEKDAYS[_date("date", date).weekday()]


def _date(parameter: str, text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text.strip())
    except ValueError:
        raise ToolError(
            f"{parameter}: must be a date of the calendar as YYYY-MM-DD, such as 2024-02-28"
        ) from None


def _zone(name: str) -> dt.tzinfo:
    if name.upper() == "UTC":
        return dt.UTC  # also where the machine has no time zone database
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # OSError: the name of a folder of the database
        raise ToolError(
            "timezone: must be UTC or a name such as Europe/Berlin that this machine knows"
        ) from None
