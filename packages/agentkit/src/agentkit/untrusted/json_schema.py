"""Untrusted JSON schemas: inspected, and never run.

A pattern or a nest of references in such a schema could keep a validator, and with it every run of this process, busy
for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from agentkit.errors import BadArguments
from agentkit.messages import JsonObject, JsonValue

_MAX_TOLD = 8
_MAX_SHOWN = 40
_MAX_LOOKS = 20_000


def check_arguments(name: str, schema: JsonObject, arguments: JsonObject) -> None:
    """What can be seen of a call's arguments without running the schema: whoever is called checks the rest.

    Types, what is required, what there is not, and lists of allowed values are looked at, also within objects and
    lists; patterns, references and alternatives are not. ``null`` may stand for what is not required: many models
    write it for what they leave out.

    Args:
        name: of the tool.
        schema: of an object.
        arguments: of the call.

    Raises:
        BadArguments: one is missing, unknown, of another type or not among the allowed values; the message names it.
    """
    look = _Look()
    look.at_object("", schema, arguments)
    if look.problems:
        raise BadArguments(f"{name}: bad arguments: {'; '.join(look.problems[:_MAX_TOLD])}")


class _Look:
    """One look at each part of a value, with an end: the schema may be made to take long, and so may the value."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._left = _MAX_LOOKS

    def _at(self, where: str, schema: Any, value: JsonValue) -> None:
        self._left -= 1
        if not isinstance(schema, Mapping) or self._left < 0 or len(self.problems) >= _MAX_TOLD:
            return
        told = cast("Mapping[str, Any]", schema)
        if "$ref" in told:  # in some drafts nothing counts beside it
            return
        wanted = _types(told)
        if wanted and not any(_is(value, type_) for type_ in wanted):
            self.problems.append(f"{where}: it must be of type {' or '.join(wanted)}")
            return
        allowed = told.get("enum")
        if isinstance(allowed, list | tuple):
            self._allowed(where, cast("Sequence[JsonValue]", allowed), value)
        if isinstance(value, Mapping):
            self.at_object(f"{where}.", told, value)
        elif isinstance(value, list | tuple) and isinstance(told.get("items"), Mapping):
            for index, each in enumerate(value):
                if self._left < 0:
                    return
                self._at(f"{where}.{index}", told["items"], each)

    def at_object(self, where: str, schema: Mapping[str, Any], value: JsonObject) -> None:
        """Look at an object; ``where`` is put before the names of its fields."""
        required = _texts(schema.get("required"))
        self.problems += [f"{where}{each}: it is required" for each in required if each not in value]
        properties = schema.get("properties")
        known = cast("Mapping[str, Any]", properties) if isinstance(properties, Mapping) else dict[str, Any]()
        if schema.get("additionalProperties") is False and "patternProperties" not in schema:
            self.problems += [
                f"{where}{each}: there is no such argument" for each in value if each not in known
            ]
        for each, inner in value.items():
            if each in known and (inner is not None or each in required):
                self._at(f"{where}{each}", known[each], inner)

    def _allowed(self, where: str, allowed: Sequence[JsonValue], value: JsonValue) -> None:
        self._left -= len(allowed)
        plain = value is None or isinstance(value, str | bool | int | float)
        if self._left < 0 or not plain:
            return
        if value not in allowed:
            shown = ", ".join(str(each)[:_MAX_SHOWN] for each in allowed[:_MAX_TOLD])
            more = " …" if len(allowed) > _MAX_TOLD else ""
            self.problems.append(f"{where}: it must be one of {shown}{more}")


def depth(value: Any, most: int, max_values: int | None = None) -> int:
    """How deep JSON is nested; looked at no deeper than ``most``, which is then exceeded by one.

    Args:
        value: JSON, or what a reader of YAML has made: there one list may stand in many places, or within itself.
        most: levels.
        max_values: where there are more, ``most`` counts as exceeded, too.
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
            if max_values is not None and seen + len(inner) > max_values:
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
