"""ReAct calls: the text behind ``Action:`` and ``Action Input:``, parsed into a tool call."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from agentkit.messages import JsonObject, JsonValue, Text, ToolCall, ToolSpec
from agentkit.planning.conversation import as_text
from agentkit.untrusted.lenient_json import call_arguments, value_at, whole_value

Specs: TypeAlias = Mapping[str, ToolSpec]
Blob: TypeAlias = Sequence[Mapping[str, JsonValue]]
"""Actions as JSON objects, their keys in lower case."""


@dataclass(frozen=True, slots=True)
class Unclear:
    """An action that cannot be understood, and why, as the end of a sentence."""

    problem: str


@dataclass(frozen=True, slots=True)
class NoAction:
    """The model says that nothing is to be done: ``Action: None``."""


Action: TypeAlias = ToolCall | Text | NoAction | Unclear
"""A call, the final answer written as an action, nothing, or a problem."""

_CALLEE = re.compile(r"[`*\"'<\[]*+(?P<name>\w[\w.:/-]{0,63}+)(?P<after>[`*\"'>]*+[ \t]*+)")
_INLINE_INPUT = re.compile(r"[ \t,;.]*+(?:action|tool)[ _-]?input[ \t]*+[::]", re.IGNORECASE)
_OPENING_FENCE = re.compile(r"(?:`{3,}|~{3,})[\w+-]*+[ \t]*+\r?\n?")
_CLOSING_FENCE = re.compile(r"\n[ \t]*+(?:```|~~~)")
_PLAUSIBLE_NAME = re.compile(r"[\w.:/-]{1,64}")
_NAME_KEYS = ("action", "tool", "tool_name", "action_name", "name", "function")
_INPUT_KEYS = ("action_input", "tool_input", "input", "arguments", "args", "parameters", "params")
_NOTHING = frozenset({"", "none", "null", "n/a", "no input"})
_NOTHING_AT_ALL = frozenset({'""', "''", "[]", "()", "-"})
_NO_TOOL = frozenset(
    {"none", "n/a", "na", "nothing", "no action", "no action needed", "no tool", "no tool needed", "-"}
)
_NO_TOOL_SINCE = re.compile(
    r"(?:none|n/a|no (?:action|tool)s?)(?: (?:is |are )?(?:needed|required|necessary))?\s*[(\[,;.:\u2014\u2013-].*",
    re.IGNORECASE,
)
_WRAPPERS = (
    "tool_call",
    "tool_calls",
    "function_call",
    "function_calls",
    "tool_use",
    "action",
    "actions",
    "call",
    "calls",
)
_ANSWERING = frozenset({"finish", "final answer", "final_answer", "finalanswer"})


def actions_of(head: str | Blob, given: str | None, specs: Specs) -> list[Action]:
    """What is wanted by the text behind ``Action:`` (or the objects there) and by the input given for it, if any."""
    if not isinstance(head, str):
        return [_from_object(item, given, specs) for item in head]
    name, inline = _callee(_without_fence(head.strip()).strip("*").strip(), specs)
    if name is None:
        return [_unnamed(specs)]
    if _is_no_tool(name, specs):
        said = (inline or "").strip() if given is None else ""
        is_said = said and said.lower() not in _NOTHING and said[0] not in "{[(`~"
        return [Text(text=said) if is_said else NoAction()]
    return [_action(name, given if given is not None else inline, specs)]


def blob_of(value: JsonValue, specs: Specs) -> Blob | None:
    """The actions that a JSON value describes; ``None`` where it is something else."""
    value = _unwrapped(value)
    items: Any = value if isinstance(value, list) else [value]
    blob: list[Mapping[str, JsonValue]] = []
    for item in items:
        if not isinstance(item, dict):
            return None
        fields = cast("dict[str, JsonValue]", item)
        if isinstance(inner := fields.get("function"), dict):
            fields = inner
        lowered = {key.lower().replace(" ", "_"): field for key, field in fields.items()}
        name = _first_of(lowered, _NAME_KEYS)
        if not isinstance(name, str):
            return None
        if not ("action" in lowered or _has(lowered, _INPUT_KEYS) or name in specs):
            return None
        blob.append(lowered)
    return blob or None


def _unwrapped(value: JsonValue) -> JsonValue:
    """What stands in ``{"tool_call": {…}}`` or ``{"tool_calls": [{…}]}``."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if key.lower() in _WRAPPERS and isinstance(inner, dict | list):
            return cast("JsonValue", inner)
    return value


def calls_a_tool(line: str, specs: Specs) -> bool:
    """Whether the text behind ``Action:`` is a call of a tool that exists, and not prose that begins with its name."""
    found = _CALLEE.match(line)
    if found is None or _known(found["name"].rstrip(".:"), specs) not in specs:
        return False
    rest = line[found.end() :].strip()
    return not rest or rest[0] in "([{" or _INLINE_INPUT.match(rest) is not None


def _from_object(item: Mapping[str, JsonValue], given: str | None, specs: Specs) -> Action:
    name = _known(str(_first_of(item, _NAME_KEYS)), specs)
    if (
        name not in specs
        and name.lower() not in _ANSWERING | _NO_TOOL
        and not _PLAUSIBLE_NAME.fullmatch(name)
    ):
        return _unnamed(specs)
    if not _has(item, _INPUT_KEYS):
        return _action(name, given, specs)
    return _action(name, as_text(_first_of(item, _INPUT_KEYS)), specs)


def _unnamed(specs: Specs) -> Unclear:
    names = ", ".join(specs) or "none"
    return Unclear(
        f"its `Action:` does not name a tool (write one name and nothing else; there are: {names})"
    )


def _first_of(item: Mapping[str, JsonValue], keys: Sequence[str]) -> JsonValue:
    return next((item[key] for key in keys if key in item), None)


def _has(item: Mapping[str, JsonValue], keys: Sequence[str]) -> bool:
    return any(key in item for key in keys)


def _known(name: str, specs: Specs) -> str:
    """The tool's own spelling, where the model's differs in case only."""
    name = name.strip()
    if name in specs:
        return name
    alike = [known for known in specs if known.lower() == name.lower()]
    return alike[0] if len(alike) == 1 else name


def _callee(head: str, specs: Specs) -> tuple[str | None, str | None]:
    """The name, and the input that stands beside it or below it without a label."""
    line, _, below = head.partition("\n")
    if _NO_TOOL_SINCE.fullmatch(line.strip(" \t\r`*\"'<>[]")) and line.strip() not in specs:
        return "none", below
    bare = line.strip(" \t\r`*\"'<>[]().").rstrip(":;,")
    if bare.lower() in _ANSWERING | _NO_TOOL or bare in specs:
        return _known(bare, specs), below if bare.lower() in _NO_TOOL else _unlabelled(below)
    found = _CALLEE.match(head)
    if found is None:
        return None, None
    name = _known(found["name"].rstrip(".:"), specs)
    rest = head[found.end() :]
    for opening, closing in ("()", "[]"):
        if rest.startswith(opening) and closing in rest:
            return name, rest[1 : rest.rindex(closing)]
    inline = _INLINE_INPUT.match(rest)
    if inline is not None:
        return name, rest[inline.end() :]
    if rest.startswith("{"):
        return name, rest
    if name in specs or bare == found["name"].rstrip(".:"):
        return name, _unlabelled(below)
    return None, None


def _is_no_tool(name: str, specs: Specs) -> bool:
    return name not in specs and name.lower() in _NO_TOOL


def _unlabelled(below: str) -> str | None:
    return below if below.lstrip().startswith(("{", "```", "~~~")) else None


def _action(name: str, given: str | None, specs: Specs) -> Action:
    spec = specs.get(name)
    if _is_no_tool(name, specs):
        return NoAction()
    if spec is None and name.lower() in _ANSWERING:
        return Text(text=_answer(given or ""))
    raw = (given or "").strip()
    body = _without_fence(raw)
    if body.lower() in _NOTHING or (body in _NOTHING_AT_ALL and not _names(spec, "properties")):
        return _without_input(name, spec)
    arguments = _arguments(body, spec)
    if arguments is None:
        return ToolCall(id="", name=name, invalid=raw)
    return ToolCall(id="", name=name, arguments=arguments)


def _answer(given: str) -> str:
    """``Finish["done"]`` says done; a JSON answer stays JSON."""
    whole = whole_value(given)
    return whole[0] if whole is not None and isinstance(whole[0], str) else given


def _without_input(name: str, spec: ToolSpec | None) -> Action:
    required = _names(spec, "required")
    if not required:
        return ToolCall(id="", name=name)
    return Unclear(
        f"its action `{name}` has no `Action Input:`; the tool needs a JSON object with {', '.join(required)}"
    )


def _arguments(body: str, spec: ToolSpec | None) -> JsonObject | None:
    """The arguments that a non-empty input stands for; ``None`` where it is neither an object nor understood."""
    if body.startswith("{"):
        found = value_at(body)
        return found[0] if found is not None and isinstance(found[0], Mapping) else None
    called = call_arguments(body)
    only = _only_parameter(spec)
    if called is not None and (only is None or _is_plainly_a_call(*called)):
        fitted = _fitted(*called, _names(spec, "properties"))
        if fitted is not None:
            return fitted
    return None if only is None else {only: _value_for(only, body, spec)}


def _is_plainly_a_call(by_position: Sequence[JsonValue], by_name: JsonObject) -> bool:
    """``"cats", 3`` or ``query="cats"``, and not a text that happens to hold a comma."""
    return bool(by_name) or (len(by_position) > 1 and isinstance(by_position[0], str))


def _fitted(
    by_position: Sequence[JsonValue], by_name: JsonObject, properties: Sequence[str]
) -> JsonObject | None:
    if len(by_position) > len(properties) or not set(properties[len(by_position) :]).issuperset(by_name):
        return None
    return {**dict(zip(properties, by_position, strict=False)), **by_name}


def _value_for(parameter: str, body: str, spec: ToolSpec | None) -> JsonValue:
    """A bare input as the type that the only parameter wants."""
    whole = whole_value(body)
    if whole is None:
        return body
    kind = _object(_object(spec.parameters if spec else None, "properties"), parameter).get("type", "string")
    wants_text = kind == "string" or (isinstance(kind, list) and "string" in kind)
    return body if wants_text and not isinstance(whole[0], str) else whole[0]


def _only_parameter(spec: ToolSpec | None) -> str | None:
    required, properties = _names(spec, "required"), _names(spec, "properties")
    candidates = required or properties
    return candidates[0] if len(candidates) == 1 else None


def _names(spec: ToolSpec | None, key: str) -> list[str]:
    value: Any = None if spec is None else spec.parameters.get(key)
    return [name for name in value if isinstance(name, str)] if isinstance(value, Sequence | Mapping) else []  # pyright: ignore[reportUnknownVariableType]


def _object(value: Any, key: str) -> Mapping[str, Any]:
    inner = value.get(key) if isinstance(value, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return inner if isinstance(inner, Mapping) else {}  # pyright: ignore[reportUnknownVariableType]


def _without_fence(raw: str) -> str:
    """The inside of a code block; text after the block does not count."""
    opening = _OPENING_FENCE.match(raw)
    if opening is None:
        return raw.strip("`").strip() if raw.startswith("`") and raw.endswith("`") else raw
    closing = _CLOSING_FENCE.search(raw, max(0, opening.end() - 1))
    if closing is not None:
        return raw[opening.end() : closing.start()].strip()
    return raw[opening.end() :].rstrip("`~").strip()
