"""Typed output by a tool that takes it, for wires and models that have no better way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentkit.messages import JsonObject, JsonValue, Part, Reasoning, StopReason, Text, ToolCall
from agentkit.models.wire_json import dump_json

OUTPUT_TOOL = "final_output"
ABOUT = "Gives the final answer. Call it once, when you are done."


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputTool:
    """How an output is asked for.

    Attributes:
        schema: of the tool's parameters.
        wrapped: the tool takes the output as its only argument, since parameters are always an object.
    """

    schema: JsonObject
    wrapped: bool = False

    def unwrapped(self, arguments: JsonObject) -> JsonValue:
        """The output in the arguments of the tool."""
        return arguments.get("output", dict(arguments)) if self.wrapped else arguments


def output_tool(schema: JsonObject) -> OutputTool:
    """The tool for an output of ``schema``."""
    if schema.get("type") == "object":
        return OutputTool(schema=schema)
    inner: dict[str, Any] = {name: value for name, value in schema.items() if name != "$defs"}
    wrapper: dict[str, Any] = {"type": "object", "properties": {"output": inner}, "required": ["output"]}
    if "$defs" in schema:
        wrapper["$defs"] = schema["$defs"]
    return OutputTool(schema=wrapper, wrapped=True)


def answered(parts: Sequence[Part], reason: StopReason, output: OutputTool) -> tuple[list[Part], StopReason]:
    """The call that gives the output, as the text that is the output. Calls of true tools come first."""
    answers = [part for part in parts if isinstance(part, ToolCall) and part.name == OUTPUT_TOOL]
    others = [part for part in parts if part not in answers]
    if not answers or any(isinstance(part, ToolCall) for part in others):
        return others, reason
    first = answers[0]
    text = first.invalid if first.invalid is not None else dump_json(output.unwrapped(first.arguments))
    kept: list[Part] = [part for part in others if isinstance(part, Reasoning)]
    return [*kept, Text(text=text)], StopReason.END if reason is StopReason.TOOL_CALLS else reason
