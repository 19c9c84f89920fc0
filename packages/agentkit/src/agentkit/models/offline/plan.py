"""Plan of a goal: the parts that a conversation already answers, and the next call."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from agentkit.messages import (
    AssistantMessage,
    JsonObject,
    JsonValue,
    Message,
    ToolCall,
    ToolMessage,
    ToolSpec,
)
from agentkit.models.offline.calls import Argument, Call, Earlier, Joined, Piece, items, members

_TEXT_TOOLS = frozenset({"today", "now", "add_days", "weekday", "read_text"})
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}


@dataclass(frozen=True, slots=True)
class Known:
    """A call that is answered.

    Attributes:
        value: its result.
        output: all that the tool gave back.
        arguments: what the tool was called with.
    """

    value: JsonValue
    output: JsonValue
    arguments: JsonObject


@dataclass(frozen=True, slots=True)
class Failed:
    """A call that cannot be answered; ``reason`` is a sentence for people."""

    reason: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A call that can be answered once these were made; none where it waits for another call of the goal."""

    calls: tuple[ToolCall, ...]


_BLOCKED = Waiting(())


State: TypeAlias = Known | Failed | Waiting


class Ledger:
    """The tool calls of a conversation and their results.

    Args:
        messages: the conversation since the goal.
        tools: what is offered.
    """

    def __init__(self, messages: Sequence[Message], tools: Iterable[ToolSpec]) -> None:
        self._tools = {spec.name: spec for spec in tools}
        self._parts: list[State] = []
        results = {message.call_id: message for message in messages if isinstance(message, ToolMessage)}
        self._results: dict[str, ToolMessage | None] = {}
        for message in messages:
            parts = message.parts if isinstance(message, AssistantMessage) else ()
            for part in parts:
                if isinstance(part, ToolCall):
                    self._results[_key(part.name, part.arguments)] = results.get(part.id)

    def states(self, parts: Iterable[Call]) -> list[tuple[Call, State]]:
        """How far each part of a goal is, in their order; each is preceded by the calls that it waits for."""
        states: dict[Call, State] = {}
        for part in parts:
            for need in part.needs():
                states[need] = self._state(need)
            self._parts.append(self._state(part))
            states[part] = self._parts[-1]
        return list(states.items())

    def _state(self, call: Call) -> State:
        arguments: dict[str, JsonValue] = {}
        for name, argument in call.arguments:
            found = self._argument(argument)
            if not isinstance(found, Known):
                return _BLOCKED if isinstance(found, Waiting) else found
            arguments[name] = found.value
        return self._answer(call, arguments)

    def _argument(self, argument: Argument) -> State:
        match argument:
            case Call():
                return self._state(argument)
            case Joined(pieces=pieces):
                return self._joined(pieces)
            case Earlier(part=part):
                return self._parts[part]
            case _:
                return Known(argument, argument, {})

    def _joined(self, pieces: Sequence[Piece]) -> State:
        text: list[str] = []
        for piece in pieces:
            found = self._argument(piece)
            if not isinstance(found, Known):
                return found
            text.append(piece if isinstance(piece, str) else _in_expression(found.value))
        return Known("".join(text), None, {})

    def _answer(self, call: Call, arguments: JsonObject, *, retried: bool = False) -> State:
        key = _key(call.tool, arguments)
        if key not in self._results:
            problem = self._obstacle(call.tool, arguments)
            return (
                Failed(problem)
                if problem
                else Waiting((ToolCall(id="", name=call.tool, arguments=arguments),))
            )
        result = self._results[key]
        if result is None:
            return Failed(f"{call.tool} was called, but there is no result")
        if result.is_error:
            again = None if retried else self._elsewhere(call, arguments, result.content)
            return again or Failed(f"{call.tool} failed{_about(arguments)}: {result.content}")
        output = _output(call.tool, result.content)
        if call.field is None:
            return Known(output, output, arguments)
        if call.field not in members(output):
            return Failed(f"{call.tool} returned no {call.field}")
        return Known(members(output)[call.field], output, arguments)

    def _elsewhere(self, call: Call, arguments: JsonObject, problem: str) -> State | None:
        """A file that is not there may lie in another folder: looked for once, used if there is exactly one."""
        path = arguments.get("path")
        if (
            "no such file" not in problem.lower()
            or not isinstance(path, str)
            or "list_files" not in self._tools
        ):
            return None
        name = path.rsplit("/", maxsplit=1)[-1]
        wanted = glob.escape(name) + ("" if "." in name else ".*")
        listed = self._answer(Call("list_files", field="files"), {"pattern": f"**/{wanted}"}, retried=True)
        match listed:
            case Waiting():
                return listed
            case Known(value=[str() as found]) if found != path:
                return self._answer(call, {**arguments, "path": found}, retried=True)
            case _:
                return None

    def _obstacle(self, tool: str, arguments: JsonObject) -> str | None:
        """Why the tool cannot be called like this; ``None`` where it can."""
        spec = self._tools.get(tool)
        if spec is None:
            return f"this needs the tool {tool}, which is not offered here"
        properties = members(spec.parameters.get("properties"))
        missing = any(name not in arguments for name in items(spec.parameters.get("required")))
        if missing or not all(_fits(value, properties.get(name)) for name, value in arguments.items()):
            return f"the tool {tool} that is offered here takes other arguments than the one that is known by this name"
        return None


def _key(tool: str, arguments: JsonObject) -> str:
    return json.dumps([tool, arguments], sort_keys=True)


def _output(tool: str, content: str) -> JsonValue:
    """What the tool returned; a text stands in a message as it is, also where it looks like JSON."""
    if tool in _TEXT_TOOLS:
        return content
    try:
        output: JsonValue = json.loads(content)
    except ValueError:
        return content
    return output


def _in_expression(value: JsonValue) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"({text})" if text.startswith("-") else text


def _fits(value: JsonValue, schema: JsonValue) -> bool:
    if not isinstance(schema, Mapping):
        return False
    expected = members(schema).get("type")
    if not isinstance(expected, str) or expected not in _TYPES:
        return True
    return isinstance(value, _TYPES[expected]) and (isinstance(value, bool) == (expected == "boolean"))


def _about(arguments: JsonObject) -> str:
    """Which of several calls is meant, where it is about a file."""
    path = arguments.get("path", arguments.get("pattern"))
    return f" for {path}" if isinstance(path, str) else ""
