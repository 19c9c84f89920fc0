"""The built-in tools for dates and text."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.errors import ToolError
from agentkit.messages import Effect
from agentkit.tools.builtin.everyday import everyday_tools

from .builtin_tools import everyday  # type: ignore[import-not-found]


def test_the_everyday_tools_change_nothing_and_describe_themselves():
    tools = everyday_tools()
    assert [tool.name for tool in tools] == [
        *(
            "calculator",
            "today",
            "now",
            "days_between",
            "add_days",
            "weekday",
            "text_statistics",
            "count_occurrences",
        ),
        *("list_files", "read_text", "file_statistics", "find_in_files"),
    ]
    for tool in tools:
        assert tool.spec.effect is Effect.PURE
        assert tool.spec.description
        for parameter in tool.spec.parameters["properties"].values():
            assert parameter.get("description"), (tool.name, parameter)


# --- dates --------------------------------------------------------------------------------------------------------


def test_dates_are_counted_by_the_calendar():
    assert everyday("days_between", start="2024-02-28", end="2024-03-01") == 2
    assert everyday("days_between", start="2024-03-01", end="2024-02-28") == -2
    assert everyday("add_days", date="2025-01-01", days=90) == "2025-04-01"
    assert everyday("add_days", date="2024-03-01", days=-1) == "2024-02-29"
    assert everyday("weekday", date="1969-07-20") == "Sunday"


def test_today_and_now_know_time_zones():
    before = everyday("now")
    assert before.endswith("+00:00")
    assert everyday("today") in {before[:10], everyday("now")[:10]}
    try:
        local = everyday("now", timezone="Asia/Tokyo")
    except ToolError:
        assert sys.platform == "win32"  # no time zone database
    else:
        assert local.endswith("+09:00")


@pytest.mark.parametrize(
    "name, arguments, words",
    [
        ("weekday", {"date": "2023-02-29"}, "date: must be a date"),
        ("weekday", {"date": "tomorrow"}, "date: must be a date"),
        ("days_between", {"start": "2024-01-01", "end": ""}, "end: must be a date"),
        ("days_between", {"start": "2024-01-01T10:00", "end": "2024-01-01"}, "start: must be a date"),
        ("add_days", {"date": "9999-12-31", "days": 1}, "years"),
        ("add_days", {"date": "2024-01-01", "days": 10**12}, "years"),
        ("now", {"timezone": "Middle/Earth"}, "timezone"),
        ("now", {"timezone": "../../etc/passwd"}, "timezone"),
        ("now", {"timezone": "Europe"}, "timezone"),
        ("now", {"timezone": ""}, "timezone"),
        ("today", {"timezone": "\0"}, "timezone"),
    ],
)
def test_dates_that_are_none_are_refused(name, arguments, words):
    with pytest.raises(ToolError, match=words):
        everyday(name, **arguments)


# --- text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, characters, words, lines, sentences",
    [
        ("", 0, 0, 0, 0),
        ("one", 3, 1, 1, 1),
        ("One. Two! Three?", 16, 3, 1, 3),
        ("a b\nc\n", 6, 3, 2, 1),
        ("\n\n", 2, 0, 2, 0),
        ("Version 3.14 is out... Really?!", 31, 5, 1, 2),
        ("naïve café 🙂", 12, 3, 1, 1),
    ],
)
def test_text_statistics(text, characters, words, lines, sentences):
    assert everyday("text_statistics", text=text) == {
        "characters": characters,
        "words": words,
        "lines": lines,
        "sentences": sentences,
    }


def test_occurrences_are_counted_literally():
    assert everyday("count_occurrences", text="A cat, a category.", wanted="cat") == 2
    assert everyday("count_occurrences", text="A cat, a category.", wanted="cat", whole_words=True) == 1
    assert everyday("count_occurrences", text="Cat cat", wanted="cat", ignore_case=False) == 1
    assert everyday("count_occurrences", text="a.b axb (", wanted="a.b") == 1
    assert everyday("count_occurrences", text="aaaa", wanted="aa") == 2
    with pytest.raises(ToolError, match="empty"):
        everyday("count_occurrences", text="x", wanted="")


@given(st.text(), st.text(min_size=1, max_size=2))
def test_occurrences_agree_with_python(text, wanted):
    from agentkit.tools.builtin.text import literal

    found = literal(wanted, whole_words=False, ignore_case=False).findall(text)
    assert len(found) == text.count(wanted)


@pytest.mark.timeout(30)  # taken for sentences one by one, it would be read for minutes
def test_a_long_row_of_dots_is_read():
    everyday("text_statistics", text="." * 1_000_000 + "x")
