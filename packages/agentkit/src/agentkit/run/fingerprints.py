"""Fingerprints of what a run is made of, and of what its model is asked: recorded for a later comparison.

Only digests, names and versions: none of it can be read back. Two fingerprints are equal where what they are of is.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from operator import attrgetter, is_
from re import Pattern
from typing import Any, cast

from agentkit.folds import Fold
from agentkit.messages import JsonObject, Message, ModelRequest, ToolSpec, UserMessage

DIGITS = 16

_NOT_ASKED = frozenset({"messages", "tools", "max_tokens"})
"""Of a request: told by themselves, or a matter of the money that was left."""


_ASKED = tuple(one.name for one in fields(ModelRequest) if one.name not in _NOT_ASKED)
_asked = attrgetter(*_ASKED)


def fingerprint(value: object) -> str:
    """The same for the same value in every process; objects that are no data count by the name of their class."""
    try:
        text = _encode(value)
    except TypeError:  # of keys that are no texts
        text = _encode(_plain(value))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _plain(value: Any) -> Any:
    """``value`` with keys that are texts."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in cast("Mapping[object, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in cast("Sequence[object]", value)]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return _plain(_as_data(value))


def _as_data(value: Any) -> Any:
    """What JSON cannot express, as data; called by the encoder for each such value."""
    kind: type[Any] = type(value)  # pyright: ignore[reportUnknownVariableType]
    if is_dataclass(kind):
        return [kind.__qualname__, *({name: getattr(value, name)} for name in _shown_fields(kind))]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, Any]", value))
    if isinstance(value, AbstractSet):
        return sorted((_plain(each) for each in cast("AbstractSet[object]", value)), key=repr)
    if isinstance(value, Sequence):
        return list(cast("Sequence[object]", value))
    if isinstance(value, Pattern):
        return cast("Pattern[str]", value).pattern
    return getattr(value, "__qualname__", kind.__qualname__)


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_as_data).encode


@cache
def _shown_fields(kind: type[Any]) -> tuple[str, ...]:
    return tuple(one.name for one in fields(kind) if one.repr)


def fingerprint_of_tool(spec: ToolSpec) -> str:
    """Of what a person is shown of a tool who approves a call of it: name, description, schema and effect."""
    return fingerprint([spec.name, spec.description, spec.parameters, spec.effect])


def parts_of_tool(spec: ToolSpec) -> JsonObject:
    """A tool by its parts."""
    terms = [spec.timeout_seconds, spec.approval, spec.reaches_out, spec.parallel]
    return {
        "effect": str(spec.effect),
        "schema": fingerprint(spec.parameters),
        "description": fingerprint(spec.description),
        "terms": fingerprint(terms),
    }


def versions(agentkit: str) -> JsonObject:
    """What carries the run."""
    return {"agentkit": agentkit, "python": ".".join(map(str, sys.version_info[:3]))}


def changes(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    """The parts in which two declarations differ, for example ``tools.pay.schema``."""
    found: list[str] = []
    for name in sorted({*before, *now}):
        one, other, place = before.get(name), now.get(name), f"{where}{name}"
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            inside = cast("Mapping[str, Any]", one), cast("Mapping[str, Any]", other)
            found += changes(*inside, where=f"{place}.")
        elif one != other:
            found.append(place)
    return found


class ConstantParts:
    """Fingerprints of what the requests of an agent have in common: instructions, settings, schema and tools.

    They are computed again where one of these changes, and not in each run.
    """

    def __init__(self) -> None:
        self._tools: tuple[tuple[ToolSpec, ...], str] = ((), "")
        self._rest: tuple[object, str] = ((), "")

    def fingerprints(self, request: ModelRequest, of_tool: Callable[[ToolSpec], str]) -> tuple[str, str]:
        """Of everything but messages, tools and the most tokens of the reply; and of the tools.

        Args:
            request: to a model.
            of_tool: the fingerprint of a tool.
        """
        given, of_tools = self._tools
        if len(request.tools) != len(given) or not all(map(is_, request.tools, given)):
            of_tools = fingerprint(list(map(of_tool, request.tools)))
            self._tools = (request.tools, of_tools)
        rest = _asked(request)  # instructions and schemas may be long
        before, of_rest = self._rest
        if rest != before:
            of_rest = fingerprint(dict(zip(_ASKED, rest, strict=True)))
            self._rest = (rest, of_rest)
        return of_rest, of_tools


class Requests:
    """The fingerprints of the requests of one run; what was in the request before is not looked at again.

    Args:
        constant: fingerprints that the runs of an agent share.
        of_tool: the fingerprint of a tool.
    """

    def __init__(
        self,
        constant: ConstantParts | None = None,
        of_tool: Callable[[ToolSpec], str] = fingerprint_of_tool,
    ) -> None:
        self._of_tool = of_tool
        self._constant = ConstantParts() if constant is None else constant
        self._messages: Fold[Message, str] = Fold("", _with_message)

    def fingerprint(self, request: ModelRequest) -> str:
        """Of everything that a model is told, but for the most tokens of its reply."""
        rest, tools = self._constant.fingerprints(request, self._of_tool)
        messages = self._messages.over(tuple(request.messages))
        # as fingerprint([rest, tools, messages]): digits need no escapes
        return hashlib.sha256(f'["{rest}","{tools}","{messages}"]'.encode()).hexdigest()[:DIGITS]


def _with_message(before: str, message: Message) -> str:
    """As ``fingerprint([before, message])``, which the input of a run comes to in a third of the time."""
    if type(message) is not UserMessage or message.attachments:
        return fingerprint([before, message])
    text = f'["{before}",["UserMessage",{{"text":{_encode(message.text)}}},{{"attachments":[]}}]]'
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
