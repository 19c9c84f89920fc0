"""Text of models and tools, as a person reads it."""

from __future__ import annotations

import json
from typing import Any, cast

from agentkit.attachments import split_input
from ops_core.observability.redaction import json_line, one_line, unmistakable, visible, without_secrets

__all__ = [
    "as_call",
    "as_text",
    "input_as_text",
    "json_line",
    "one_line",
    "unmistakable",
    "visible",
    "without_secrets",
]


def as_text(value: Any) -> str:
    """A value as a person reads it: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def input_as_text(value: Any) -> str:
    """The input of a task as a person reads it: a mark stands for each attachment, which fills no screen."""
    return as_text(split_input(value)[0])


def as_call(tool: str, arguments: Any) -> str:
    """A tool call as one line: ``add(a=1, b=2)``. What somebody decides about is shown otherwise, as JSON."""
    if not isinstance(arguments, dict):
        return one_line(f"{tool}({as_text(arguments)})")
    fields = cast("dict[str, Any]", arguments)
    given = [f"{_name(name)}={json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return f"{one_line(tool)}({visible(', '.join(given))})"


def _name(name: str) -> str:
    """A name that could be read as something else stands in quotes."""
    return name if name.replace("-", "_").isidentifier() else json.dumps(name, ensure_ascii=False)
