"""JSON schemas that somebody else has written: looked at, and never run.

A pattern or a nest of references in such a schema could keep a validator, and with it every run of this process, busy
for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from agentkit.errors import BadArguments
from agentkit.messages import JsonObject, JsonValue

_MOST_TOLD = 8


def check_arguments(name: str, schema: JsonObject, arguments: JsonObject) -> None:
    """What can be seen of a call's arguments without running the schema: whoever is called checks the rest.

    ``null`` may stand for what is not required: many models write it for what they leave out.

    Args:
        name: of the tool.
        schema: of an object.
        arguments: of the call.

    Raises:
        BadArguments: one is missing, unknown, or of another type; the message names it.
    """
    required = _texts(schema.get("required"))
    problems = [f"{each}: it is required" for each in required if each not in arguments]
    properties = schema.get("properties")
    known = cast("Mapping[str, Any]", properties) if isinstance(properties, Mapping) else dict[str, Any]()
    if schema.get("additionalProperties") is False and "patternProperties" not in schema:
        problems += [f"{each}: there is no such argument" for each in arguments if each not in known]
    problems += [
        f"{each}: it must be of type {' or '.join(wanted)}"
        for each, value in arguments.items()
        if (value is not None or each in required)
        and (wanted := _types(known.get(each)))
        and not any(_is(value, type_) for type_ in wanted)
    ]
    if problems:
        raise BadArguments(f"{name}: bad arguments: {'; '.join(problems[:_MOST_TOLD])}")


def depth(value: Any, most: int, most_values: int | None = None) -> int:
    """How deep JSON is nested; looked at no deeper than ``most``, which is then exceeded by one.

    Args:
        value: JSON, or what a reader of YAML has made: there one list may stand in many places, or within itself.
        most: levels.
        most_values: where there are more, ``most`` counts as exceeded, too.
    """
    deep, level, seen = 0, [value], 0
    while level and deep <= most:
        deep += 1
        inner: list[Any] = []
        for each in level:
            if isinstance(each, Mapping):
                inner += cast("Mapping[str, Any]", each).values()
            elif isinstance(each, list | tuple):
                inner += cast("Sequence[Any]", each)
            if most_values is not None and seen + len(inner) > most_values:
                return most + 1
        seen += len(inner)
        level = inner
    return deep


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list | tuple):
        return []
    return [each for each in cast("Sequence[Any]", value) if isinstance(each, str)]


def _types(schema: Any) -> list[str]:
    if not isinstance(schema, Mapping):
        return []
    wanted = cast("Mapping[str, Any]", schema).get("type")
    return [wanted] if isinstance(wanted, str) else _texts(wanted)


def _is(value: JsonValue, wanted: str) -> bool:
    match wanted:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return not isinstance(value, bool) and (
                isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            )
        case "number":
            return not isinstance(value, bool) and isinstance(value, int | float)
        case "array":
            return isinstance(value, list | tuple)
        case "object":
            return isinstance(value, Mapping)
        case "null":
            return value is None
        case _:
            return True
