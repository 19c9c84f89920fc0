"""Agents offered as tools, and the arguments of a call. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from agentkit.messages import JsonObject, JsonValue
from ops_core.config.catalog import Catalog
from ops_core.config.mcp import Offer

GOAL: JsonObject = {
    "type": "object",
    "properties": {"goal": {"type": "string", "description": "What the agent is to do."}},
    "required": ["goal"],
    "additionalProperties": False,
}
"""What an agent takes for which nothing else is declared."""


class Offers:
    """The agents of a catalog, by the names of their tools.

    Args:
        catalog: all of them are offered, where it declares nothing else.
    """

    def __init__(self, catalog: Catalog) -> None:
        declared = catalog.serve.agents
        names = [name for name in catalog.names if declared is None or name in declared]
        self.by_tool: dict[str, tuple[str, Offer]] = {}
        for name in names:
            offer = Offer() if declared is None else declared[name]
            described = offer.description or f"Have the agent {name} do something, and get what comes of it."
            tool = re.sub(r"[^A-Za-z0-9_./-]", "_", name)[:128]
            self.by_tool.setdefault(tool, (name, offer.model_copy(update={"description": described})))


def schema_of(offer: Offer) -> JsonObject:
    """JSON schema of the arguments."""
    return GOAL if offer.input is None else cast("JsonObject", offer.input)


def input_of(offer: Offer, arguments: Mapping[str, Any]) -> JsonValue:
    """The input of the task: the goal alone, or the arguments as they are."""
    return cast("JsonValue", arguments["goal"] if offer.input is None else dict(arguments))


def missing_in(offer: Offer, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schemas of arguments that are required, are not given, and can be asked a person for; empty for none."""
    schema = schema_of(offer)
    properties = cast("Mapping[str, Any]", schema.get("properties") or {})
    required = cast("Sequence[str]", schema.get("required") or ())
    absent = [name for name in required if name not in arguments]
    asked: dict[str, Mapping[str, Any]] = {name: properties.get(name) or dict[str, Any]() for name in absent}
    simple = {"string", "number", "integer", "boolean"}
    return asked if all(each.get("type") in simple for each in asked.values()) else {}
