"""Typed output at Anthropic: by the wire itself where the schema allows it, else by a tool that takes the output.

The wire takes closed objects only, no recursion and few constraints. Constraints that it does not know are put to the
model in words; the run checks the output in any case.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

from agentkit.messages import JsonObject

_KNOWN = frozenset({"type", "enum", "const", "title", "description", "$ref", "default"})
_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)
_UNTOLD = frozenset(
    {*{"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"}}
    | {*{"pattern", "minItems", "maxItems", "uniqueItems", "format"}}
)


def native_schema(schema: JsonObject) -> JsonObject | None:
    """``schema`` in the words of the wire; ``None`` where it has none."""
    return _native(json.dumps(schema))


@lru_cache(maxsize=64)
def _native(text: str) -> JsonObject | None:
    schema: dict[str, Any] = json.loads(text)
    if schema.get("type") != "object":
        return None
    try:
        return _closed(schema, schema.get("$defs", {}), ())
    except _Inexpressible:
        return None


class _Inexpressible(Exception):
    """The wire has no word for this schema."""


def _closed(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], inside: tuple[str, ...]
) -> dict[str, Any]:
    """``schema`` in the words of the wire.

    Raises:
        _Inexpressible: there are none.
    """
    closed: dict[str, Any] = {}
    untold: dict[str, Any] = {}
    for name, value in schema.items():
        if name in _KNOWN or (name == "format" and value in _FORMATS):
            closed[name] = value
        elif name in _UNTOLD:
            untold[name] = value
        elif name in {"anyOf", "oneOf"}:
            closed["anyOf"] = [_closed(each, definitions, inside) for each in value]
        elif name == "items":
            closed["items"] = _closed(value, definitions, inside)
        elif name in {"properties", "$defs"}:
            closed[name] = {key: _closed(each, definitions, inside) for key, each in value.items()}
        elif name == "required":
            closed[name] = value
        elif name not in {"additionalProperties", "discriminator"}:
            raise _Inexpressible
    _check(schema, definitions, inside)
    if schema.get("type") == "object":
        closed["additionalProperties"] = False
    if untold:
        closed["description"] = f"{schema.get('description', '')} {json.dumps(untold)}".strip()
    return closed


def _check(schema: Mapping[str, Any], definitions: Mapping[str, Any], inside: tuple[str, ...]) -> None:
    open_object = schema.get("type") == "object" and (
        schema.get("additionalProperties", False) is not False or not schema.get("properties")
    )
    says_something = schema.keys() & {"type", "enum", "const", "$ref", "anyOf", "oneOf"}
    if open_object or not says_something or (schema.get("type") == "array" and "items" not in schema):
        raise _Inexpressible
    if (ref := schema.get("$ref")) is not None:
        name = str(ref).removeprefix("#/$defs/")
        if name in inside or name not in definitions:
            raise _Inexpressible
        _closed(cast("Mapping[str, Any]", definitions[name]), definitions, (*inside, name))
