"""Tool definitions of a server: parsed, checked, and converted to a :class:`ToolSpec`. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from agentkit.mcp.servers import McpServer
from agentkit.messages import JsonObject, JsonValue, ToolSpec
from agentkit.untrusted.json_schema import check_arguments, depth
from agentkit.untrusted.text import hidden_in

MAX_TOOLS = 1000
MAX_DEFINITION = 100_000
"""Characters of JSON of one definition."""
MAX_DESCRIPTION = 10_000
MAX_DEPTH = 40

_NAME = re.compile(r"[A-Za-z0-9_./-]{1,128}")
_MAX_NAME = 64


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A tool as its server defines it.

    Attributes:
        name: the server's name for it.
        description: for the model.
        parameters: JSON schema of the arguments.
        output: JSON schema of the structured output, where there is one.
        title: for people.
        annotations: what the server says about itself: never believed, but part of what is approved.
    """

    name: str
    description: str = ""
    parameters: JsonObject = field(default_factory=dict[str, JsonValue])
    output: JsonObject | None = None
    title: str = ""
    annotations: JsonObject = field(default_factory=dict[str, JsonValue])

    @staticmethod
    def of(told: Mapping[str, Any]) -> Definition:
        """From a tool as it stands in an answer to ``tools/list``, or in :meth:`as_json`."""
        return Definition(
            name=told["name"],
            description=told.get("description") or "",
            parameters=told.get("inputSchema") or {},
            output=told.get("outputSchema"),
            title=told.get("title") or "",
            annotations=told.get("annotations") or {},
        )

    def as_json(self) -> JsonObject:
        """All of it, in the words of the protocol; what is empty is left out."""
        whole: dict[str, JsonValue] = {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": self.parameters,
            "outputSchema": self.output,
            "annotations": self.annotations,
        }
        return {name: value for name, value in whole.items() if value}

    @cached_property
    def digest(self) -> str:
        """Of all of it: two definitions have the same one if they are the same."""
        return "sha256:" + hashlib.sha256(self._canonical.encode()).hexdigest()

    @cached_property
    def problem(self) -> str | None:
        """Why it cannot be used, or ``None``."""
        if not _NAME.fullmatch(self.name):
            return "its name is not made of letters, digits and _ . / - or is longer than 128"
        if len(self.description) > MAX_DESCRIPTION:
            return f"its description has more than {MAX_DESCRIPTION} characters"
        if depth(self.as_json(), MAX_DEPTH) > MAX_DEPTH:
            return f"its schema is nested more than {MAX_DEPTH} deep"
        if len(self._canonical) > MAX_DEFINITION:
            return f"its definition has more than {MAX_DEFINITION} characters"
        if (found := hidden_in(self.as_json())) is not None:
            return f"it holds the invisible character {found}"
        if self.parameters.get("type") != "object":
            return "the schema of its arguments is not that of an object"
        return None

    @cached_property
    def _canonical(self) -> str:
        return json.dumps(self.as_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    def spec(self, server: McpServer) -> ToolSpec:
        """The tool as a model and a policy see it."""
        return ToolSpec(
            name=shown_name(server.name, self.name),
            description=self.description or self.title,
            parameters=self.parameters,
            effect=server.effect_of(self.name),
            timeout_seconds=server.call_seconds,
            reaches_out=server.reaches_out,
        )

    def check(self, arguments: JsonObject) -> None:
        """What can be seen of the arguments without running the server's schema; the server checks the rest.

        Raises:
            BadArguments: as :func:`agentkit.untrusted.json_schema.check_arguments`.
        """
        check_arguments(self.name, self.parameters, arguments)


def shown_name(server: str, tool: str) -> str:
    """``server__tool``, changed where a model could not call it that: it stays recognisable, and unique."""
    name = f"{server}__{re.sub(r'[^A-Za-z0-9_-]', '_', tool)}"
    if len(name) <= _MAX_NAME and name == f"{server}__{tool}":
        return name
    mark = hashlib.sha256(tool.encode()).hexdigest()[:8]
    return f"{name[: _MAX_NAME - 9]}_{mark}"


def twice(definitions: Sequence[Definition]) -> frozenset[str]:
    """Names that a server has given to more than one tool: it cannot be told which of them is called."""
    return frozenset(name for name, count in Counter(each.name for each in definitions).items() if count > 1)
