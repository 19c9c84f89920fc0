"""JSON as models write it."""

import json

import pytest
from hypothesis import given

from agentkit.messages import (
    JsonValue,
)
from agentkit.untrusted.lenient_json import call_arguments, value_at, whole_value

from .planning_texts import json_values  # type: ignore[import-not-found]


@given(json_values)
def test_strict_json_is_read_as_it_is(value: JsonValue) -> None:
    assert whole_value(json.dumps(value)) == (value,)


@given(json_values.filter(lambda value: "\\u" not in repr(value) and "\\U" not in repr(value)))
def test_python_literals_are_read(value: JsonValue) -> None:
    assert whole_value(repr(value)) == (value,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "[1",
        "{,}",
        "[,]",
        "{1: 2}",
        "{'a' 1}",
        "[1 2]",
        "'x",
        "NaN",
        "[Infinity]",
        "-1e999",
        "hello",
        "f(1)",
    ],
)
def test_what_is_no_value_is_none(text: str) -> None:
    assert whole_value(text) is None


def test_what_follows_a_value_does_not_matter() -> None:
    assert value_at(" {'a': 1} and so on") == ({"a": 1}, 9)
    assert whole_value("{'a': 1} and so on") is None


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", ([], {})),
        ("1, 'two'", ([1, "two"], {})),
        ("1, b=2,", ([1], {"b": 2})),
        ('q: "x", n = [1]', ([], {"q": "x", "n": [1]})),
        ("a=1, 2", None),
        ("cats, dogs", None),
        ("1 2", None),
        ("a=", None),
        ("a=NaN", None),
    ],
)
def test_call_arguments(text: str, expected: object) -> None:
    assert call_arguments(text) == expected
