"""JSON of which only the outline is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from agentkit.messages import JsonObject, JsonValue


def members(value: object) -> JsonObject:
    """The members of an object; none where it is no object."""
    return cast("JsonObject", value) if isinstance(value, Mapping) else {}


def items(value: JsonValue) -> Sequence[JsonValue]:
    """The items of an array; none where it is no array."""
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def is_number(value: JsonValue) -> bool:
    """A number, and neither ``true`` nor ``false``."""
    return isinstance(value, int | float) and not isinstance(value, bool)
