"""Typed output by a tool that takes it, for wires and models that have no better way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentkit.messages import (
    JsonObject,
    JsonValue,
    ModelReply,
    ModelRequest,
    Part,
    StopReason,
    Text,
    ToolCall,
)
from agentkit.models.adapter.json import as_object, dump_json, load_json

OUTPUT_TOOL = "final_output"
ABOUT = "Gives the final answer. Call it once, when you are done."


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputTool:
    """How an output is asked for.

    Attributes:
        schema: of the tool's parameters.
        wrapped: the tool takes the output as its only argument, since parameters are always an object.
        name: what the tool is called.
    """

    schema: JsonObject
    wrapped: bool = False
    name: str = OUTPUT_TOOL

    def unwrapped(self, arguments: JsonObject) -> JsonValue:
        """The output in the arguments of the tool."""
        return arguments.get("output", dict(arguments)) if self.wrapped else arguments


def output_tool(schema: JsonObject, taken: Iterable[str] = ()) -> OutputTool:
    """The tool for an output of ``schema``.

    Args:
        schema: of the output.
        taken: names of the agent's own tools, of which this is none.
    """
    names, name, number = set(taken), OUTPUT_TOOL, 1
    while name in names:
        number += 1
        name = f"{OUTPUT_TOOL}_{number}"
    if schema.get("type") == "object":
        return OutputTool(schema=schema, name=name)
    inner: dict[str, Any] = {name: value for name, value in schema.items() if name != "$defs"}
    wrapper: dict[str, Any] = {"type": "object", "properties": {"output": inner}, "required": ["output"]}
    if "$defs" in schema:
        wrapper["$defs"] = schema["$defs"]
    return OutputTool(schema=wrapper, wrapped=True, name=name)


def is_wrapped(request: ModelRequest) -> bool:
    """Whether the wire takes the output that is asked for as a property only: its root must be an object."""
    return request.output_schema is not None and output_tool(request.output_schema).wrapped


def unwrapped(reply: ModelReply, request: ModelRequest) -> ModelReply:
    """``reply`` with the output itself as its text, where it was asked for as a property."""
    texts = [part for part in reply.parts if isinstance(part, Text)]
    if not texts or reply.tool_calls or not is_wrapped(request):
        return reply
    try:
        found = as_object(load_json(reply.text))
    except ValueError:
        return reply
    if set(found) != {"output"}:
        return reply
    kept: list[Part] = [part for part in reply.parts if not isinstance(part, Text)]
    whole = Text(text=dump_json(found["output"]), data=texts[-1].data)
    return replace(reply, parts=(*kept, whole))


def answered(parts: Sequence[Part], reason: StopReason, output: OutputTool) -> tuple[list[Part], StopReason]:
    """The call that gives the output, as the text that is the output. Calls of true tools come first."""
    answers = [part for part in parts if isinstance(part, ToolCall) and part.name == output.name]
    others = [part for part in parts if part not in answers]
    if not answers or any(isinstance(part, ToolCall) for part in others):
        return others, reason
    first = answers[0]
    text = first.invalid if first.invalid is not None else dump_json(output.unwrapped(first.arguments))
    kept: list[Part] = [part for part in others if not isinstance(part, Text)]
    return [*kept, Text(text=text)], StopReason.END if reason is StopReason.TOOL_CALLS else reason
