"""What a server says about its tools: read, checked, and put into the form of a :class:`ToolSpec`. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

from agentkit.errors import BadArguments
from agentkit.mcp.characters import hidden_in
from agentkit.mcp.servers import McpServer
from agentkit.messages import JsonObject, JsonValue, ToolSpec

MOST_TOOLS = 1000
MOST_DEFINITION = 100_000
"""Characters of JSON of one definition."""
MOST_DESCRIPTION = 10_000
MOST_DEPTH = 40

_NAME = re.compile(r"[A-Za-z0-9_./-]{1,128}")
_MOST_NAME = 64


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
        if len(self.description) > MOST_DESCRIPTION:
            return f"its description has more than {MOST_DESCRIPTION} characters"
        if _depth(self.as_json()) > MOST_DEPTH:
            return f"its schema is nested more than {MOST_DEPTH} deep"
        if len(self._canonical) > MOST_DEFINITION:
            return f"its definition has more than {MOST_DEFINITION} characters"
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
        )

    def check(self, arguments: JsonObject) -> None:
        """What can be seen of the arguments without running the server's schema; the server checks the rest.

        A schema is data of somebody else: a pattern or a nest of references in it could keep a validator, and with it
        every run of this process, busy for ever.

        Raises:
            BadArguments: one is missing, unknown, or of another type; the message names it.
        """
        problems = [f"{name}: it is required" for name in _texts(self.parameters.get("required"))]
        problems = [problem for problem in problems if problem.partition(":")[0] not in arguments]
        properties = self.parameters.get("properties")
        known = cast("Mapping[str, Any]", properties) if isinstance(properties, Mapping) else dict[str, Any]()
        if (
            self.parameters.get("additionalProperties") is False
            and "patternProperties" not in self.parameters
        ):
            problems += [f"{name}: there is no such argument" for name in arguments if name not in known]
        problems += [
            f"{name}: it must be of type {' or '.join(wanted)}"
            for name, value in arguments.items()
            if (wanted := _types(known.get(name))) and not any(_is(value, each) for each in wanted)
        ]
        if problems:
            raise BadArguments(f"{self.name}: bad arguments: {'; '.join(problems[:8])}")


def shown_name(server: str, tool: str) -> str:
    """``server__tool``, changed where a model could not call it that: it stays recognisable, and unique."""
    name = f"{server}__{re.sub(r'[^A-Za-z0-9_-]', '_', tool)}"
    if len(name) <= _MOST_NAME and name == f"{server}__{tool}":
        return name
    mark = hashlib.sha256(tool.encode()).hexdigest()[:8]
    return f"{name[: _MOST_NAME - 9]}_{mark}"


def twice(definitions: Sequence[Definition]) -> frozenset[str]:
    """Names that a server has given to more than one tool: it cannot be told which of them is called."""
    return frozenset(name for name, count in Counter(each.name for each in definitions).items() if count > 1)


def _depth(value: Any) -> int:
    """How deep JSON is nested, looked at no deeper than is allowed."""
    deep, level = 0, [value]
    while level and deep <= MOST_DEPTH:
        deep += 1
        inner: list[Any] = []
        for each in level:
            if isinstance(each, Mapping):
                inner += cast("Mapping[str, Any]", each).values()
            elif isinstance(each, list | tuple):
                inner += cast("Sequence[Any]", each)
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
