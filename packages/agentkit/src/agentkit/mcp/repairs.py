"""Repairs of messages that are valid but for a detail, so that their content is not lost. Pure.

This module imports the SDK's types; it is imported when a connection is opened.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from mcp_types import INTERNAL_ERROR, ContentBlock, Tool
from pydantic import TypeAdapter, ValidationError

log = logging.getLogger("agentkit.mcp")

_NULLABLE = ("structuredContent", "isError", "_meta", "nextCursor")
_MAX_WORDS = 2000
_BLOCKS: TypeAdapter[Any] = TypeAdapter(ContentBlock)


def repaired(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with an id, an error and a result as the SDK reads them.

    Args:
        message: a JSON object with a field ``jsonrpc``.
    """
    made = dict(message)
    if made.get("jsonrpc") == 2:
        made["jsonrpc"] = "2.0"
    if isinstance(made.get("id"), float) and made["id"].is_integer():
        made["id"] = int(made["id"])
    if isinstance(result := made.get("result"), dict):
        made["result"] = _result(cast("Mapping[str, Any]", result))
        made.pop("error", None) if made.get("error", 0) is None else None
    elif isinstance(made.get("error"), dict | str):
        made["error"] = _error(made["error"])
    return made


def _error(error: Any) -> dict[str, Any]:
    """An error keeps its reason, wherever it stands."""
    found = cast("dict[str, Any]", {"message": error} if isinstance(error, str) else dict(error))
    code = found.get("code")
    if isinstance(code, bool) or not isinstance(code, int):
        found["code"] = INTERNAL_ERROR
    words = found.get("message")
    if not isinstance(words, str) or not words.strip():
        told = words or found.get("data") or (code if isinstance(code, str) else None)
        told = code if told is None else told
        found["message"] = (
            "an error that it does not explain"
            if told is None
            else json.dumps(told, ensure_ascii=False)[:_MAX_WORDS]
        )
    return found


def _result(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result without fields that are null, with a ``content`` that can be read, and with the tools that can."""
    made = {name: value for name, value in result.items() if value is not None or name not in _NULLABLE}
    is_of_a_call = "structuredContent" in result or "isError" in result or result.get("content", 0) is None
    if is_of_a_call and made.get("content") is None:
        made["content"] = []
    content = made.get("content")
    if isinstance(content, str):
        made["content"] = [{"type": "text", "text": content}]
    elif isinstance(content, list):
        made["content"] = [_block(block) for block in _items(content)]
    if "structuredContent" in made and not isinstance(made["structuredContent"], dict):
        made["structuredContent"] = {"result": made["structuredContent"]}
    if "tools" in made:
        made["tools"] = _tools(made["tools"])
    if "protocolVersion" in made:
        made |= _introduction(made)
    if "nextCursor" in made and not isinstance(made["nextCursor"], str):
        made["nextCursor"] = str(made["nextCursor"])
    return made


def _introduction(result: Mapping[str, Any]) -> dict[str, Any]:
    """What a server says of itself in ``initialize``; what it leaves out changes nothing here."""
    info, capabilities = result.get("serverInfo"), result.get("capabilities")
    named = cast("dict[str, Any]", info) if isinstance(info, dict) else {}
    able = cast("dict[str, Any]", capabilities) if isinstance(capabilities, dict) else {}
    words = {
        field: named[field] if isinstance(named.get(field), str) else "" for field in ("name", "version")
    }
    return {
        "serverInfo": {**named, **words},
        "capabilities": {
            name: _objects_in(value) if name == "experimental" else value
            for name, value in able.items()
            if isinstance(value, dict)
        },
    }


def _objects_in(value: Any) -> dict[str, Any]:
    return {name: each for name, each in cast("dict[str, Any]", value).items() if isinstance(each, dict)}


def _items(value: Any) -> Iterable[Any]:
    """The items of a list; none of what is no list."""
    return cast("Iterable[Any]", value) if isinstance(value, list) else ()


def _block(block: Any) -> Any:
    """A part of a result; one of a kind that is not known here as a text, in JSON."""
    try:
        _BLOCKS.validate_python(block, by_name=False)
    except ValidationError:
        text = block if isinstance(block, str) else json.dumps(block, ensure_ascii=False)
        return {"type": "text", "text": text}
    return block


def _tools(tools: Any) -> Sequence[Any]:
    """The tools that can be read: one that cannot is left out, and spoils none of the others."""
    found: list[Any] = []
    for told in _items(tools):
        each = _with_types(told)
        try:
            Tool.model_validate(each, by_name=False)
        except ValidationError as error:
            fields = ", ".join(sorted({str(one["loc"][0]) for one in error.errors() if one["loc"]}))
            log.warning(
                "a tool of an MCP server cannot be read, and is left out: %s", fields or "it is no object"
            )
        else:
            found.append(each)
    return found


def _with_types(tool: Any) -> Any:
    """A tool whose schemas say that they are those of objects: arguments and structured results are nothing else."""
    if not isinstance(tool, dict):
        return tool
    made = dict(cast("Mapping[str, Any]", tool))
    for name in ("inputSchema", "outputSchema"):
        schema = made.get(name)
        if isinstance(schema, dict) and "type" not in schema:
            made[name] = {"type": "object", **cast("dict[str, Any]", schema)}
    return made
