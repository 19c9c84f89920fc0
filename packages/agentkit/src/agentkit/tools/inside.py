"""A tool on the other side of a sandbox: found by its name, called with JSON."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from agentkit.errors import ToolError
from agentkit.messages import JsonObject, JsonValue
from agentkit.ports import ToolContext
from agentkit.sandbox.confined.calling import report
from agentkit.schema import to_json_value
from agentkit.tools.functions import Tool


@cache
def found(name: str) -> Tool:
    """The tool at ``package.module:name``.

    Raises:
        ImportError, AttributeError: there is nothing of this name.
    """
    module, _colon, attributes = name.partition(":")
    there: Any = importlib.import_module(module)
    for attribute in attributes.split("."):
        there = getattr(there, attribute)
    return there if isinstance(there, Tool) else Tool(there)


def warm(name: str) -> None:
    """Load a tool, with what it takes to read its arguments, so that its calls need not."""
    _ = found(name).spec


def call(tool: str, arguments: JsonObject, context: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Call a tool; under ``value`` what it returned, or under ``error`` what it wants the model to know."""
    made = found(tool)
    try:
        given = made.prepared(arguments, ToolContext(deps=None, report=report, **context))
        result = made.function(**given)
        if inspect.isawaitable(result):
            result = asyncio.run(_awaited(result))
    except ToolError as error:
        return {"error": str(error)}
    return {"value": to_json_value(result)}


async def _awaited(result: Any) -> Any:
    return await result
