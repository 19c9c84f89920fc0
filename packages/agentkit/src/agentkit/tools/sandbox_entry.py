"""Entry of a tool inside a sandbox: found by its name, called with JSON."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any

from agentkit.machine_errors import root_of
from agentkit.messages import JsonObject, JsonValue
from agentkit.ports import ToolContext
from agentkit.sandbox.confined.function_call import describe_error, report
from agentkit.sandbox.confined.refusals import paths_of
from agentkit.tools.functions import Tool, as_tool
from agentkit.tools.results import is_pending, settle, to_envelope, to_result


@cache
def found(name: str) -> Tool:
    """The tool at ``package.module:name``.

    Raises:
        ImportError, AttributeError: there is nothing of this name.
    """
    return as_tool(_at(name))


def _at(name: str) -> Any:
    module, _colon, attributes = name.partition(":")
    there: Any = importlib.import_module(module)
    for attribute in attributes.split("."):
        there = getattr(there, attribute)
    return there


def _made(deps: str | None) -> Any:
    """The dependencies of the call, with the secrets and the rights that it has."""
    found = None if deps is None else _at(deps)
    return found() if callable(found) else found


def warm(name: str) -> None:
    """Load a tool, with what it takes to read its arguments, so that its calls need not."""
    _ = found(name).spec


def call(
    tool: str, arguments: JsonObject, context: Mapping[str, Any], deps: str | None = None
) -> dict[str, JsonValue]:
    """Call a tool; under ``value`` what it returned, or how it ended otherwise (see :func:`to_envelope`).

    Raises:
        MemoryError, OSError: a limit of the sandbox was reached.
    """
    name = tool.rpartition(":")[2]
    try:
        made = found(tool)
        name = made.name
        given = made.prepared(arguments, ToolContext(deps=_made(deps), report=report, **context))
        value = made.invoke(given)
        if is_pending(value):
            value = asyncio.run(settle(value))
        return {"value": to_result(name, value)}
    except BaseException as error:
        if describe_error(error)["kind"] != "error":
            raise
        root = root_of(error)
        if root is not None and describe_error(root)["kind"] == "machine":
            raise root from None
        return {**to_envelope(error, name), "paths": list(paths_of(error))}
