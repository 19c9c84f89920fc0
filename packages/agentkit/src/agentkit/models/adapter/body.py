"""The ``body`` of an endpoint: further fields of each request, in the provider's own words.

What the adapter writes itself is not among them, and is refused by name: a field that replaced it would take an agent
its tools, its conversation or its budget without a word. Tools that the provider runs are added to the agent's own; a
field that a request may set, such as ``temperature``, is the default of those that do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

from agentkit.errors import UsageError
from agentkit.messages import JsonObject

Wire: TypeAlias = Literal["chat", "responses", "anthropic", "google", "embeddings", "google-embeddings"]

_MODEL = "the model is a part of its name, PROVIDER:NAME"
_SAID = "the conversation is the run's own"
_STREAM = "a reply is streamed where somebody watches the run"
_INSTRUCTIONS = "give the agent its instructions"
_OUTPUT = "give the agent an output type"
_STORED = "the whole conversation is sent with each request"
_ONE = "a run takes one reply"
_TEXTS = "the texts are those of the memory"
_OWN_ENDPOINT = "embeddings know no such field; declare an endpoint of their own for them"

_REFUSED: Mapping[Wire, Mapping[str, str]] = {
    "chat": {
        "model": _MODEL,
        "messages": _SAID,
        "stream": _STREAM,
        "response_format": _OUTPUT,
        "n": _ONE,
        "functions": "declare tools",
        "function_call": "declare tools",
    },
    "responses": {
        "model": _MODEL,
        "input": _SAID,
        "instructions": _INSTRUCTIONS,
        "stream": _STREAM,
        "previous_response_id": _STORED,
        "conversation": _STORED,
        "background": "a reply is waited for",
        "text.format": _OUTPUT,
    },
    "anthropic": {
        "model": _MODEL,
        "messages": _SAID,
        "system": _INSTRUCTIONS,
        "stream": _STREAM,
        "output_format": _OUTPUT,
        "output_config.format": _OUTPUT,
    },
    "google": {
        "model": _MODEL,
        "contents": _SAID,
        "systemInstruction": _INSTRUCTIONS,
        "cachedContent": _STORED,
        "generationConfig.responseSchema": _OUTPUT,
        "generationConfig.responseJsonSchema": _OUTPUT,
        "generationConfig.responseMimeType": _OUTPUT,
        "generationConfig.candidateCount": _ONE,
    },
    "embeddings": {
        "model": _MODEL,
        "input": _TEXTS,
        "encoding_format": "vectors are read as numbers",
        "tools": _OWN_ENDPOINT,
        "messages": _OWN_ENDPOINT,
        "stream": _OWN_ENDPOINT,
    },
    "google-embeddings": {
        "model": _MODEL,
        "requests": _TEXTS,
        "content": _TEXTS,
        "contents": _OWN_ENDPOINT,
        "tools": _OWN_ENDPOINT,
    },
}

_ANSWERED_BY_THE_CLIENT: Mapping[Wire, re.Pattern[str]] = {
    "chat": re.compile("function|custom|builtin_function"),
    "responses": re.compile("function|custom|computer.*|local_shell|shell|apply_patch"),
    "anthropic": re.compile("custom|computer_.*|bash_.*|text_editor_.*|memory_.*"),
    "google": re.compile("functionDeclarations|computerUse"),
}
"""Tools whose calls somebody on this side would have to answer."""

_JOINED = frozenset({"tools", "include"})
_BOUNDS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens")


def checked_body(wire: Wire, body: JsonObject) -> JsonObject:
    """``body``, where each of its fields can be sent beside what the adapter writes.

    Raises:
        UsageError: one cannot; the text names it, and what to do.
    """
    for place, remedy in _REFUSED[wire].items():
        if _has(body, place.split(".")):
            raise UsageError(f"body: {place} is written by the adapter and cannot be set there; {remedy}")
    tools = body.get("tools")
    if tools is None:
        return body
    if not isinstance(tools, list | tuple):
        raise UsageError("body: tools is a list of tools that the provider runs")
    for tool in cast("Sequence[object]", tools):
        for kind in _kinds(wire, tool):
            if _ANSWERED_BY_THE_CLIENT[wire].fullmatch(_camel(kind) if wire == "google" else kind):
                raise UsageError(
                    f"body: tools holds {kind[:40]!r}, which the provider does not run itself: declare it as a tool "
                    "of the agent"
                )
    return body


def _has(body: Mapping[str, Any], path: Sequence[str]) -> bool:
    for name, value in body.items():
        if _camel(name) == _camel(path[0]):
            if len(path) == 1:
                return True
            return isinstance(value, Mapping) and _has(cast("Mapping[str, Any]", value), path[1:])
    return False


def _kinds(wire: Wire, tool: object) -> Iterable[str]:
    if not isinstance(tool, Mapping):
        raise UsageError("body: each of tools is an object")
    fields = cast("Mapping[str, object]", tool)
    return fields if wire == "google" else [str(fields.get("type", "custom"))]


def _camel(name: str) -> str:
    return re.sub("_([a-z])", lambda found: found[1].upper(), name)


def merged(written: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """A request: what the adapter writes, and the fields of the endpoint beside it.

    Lists of tools are joined, objects are merged, and of two bounds of the reply the smaller one counts; in all else
    the request goes before the endpoint.
    """
    request = dict(written)
    for name, value in body.items():
        ours: Any = written.get(name)
        if name not in written:
            request[name] = value
        elif name in _JOINED:
            request[name] = [*ours, *(each for each in value if each not in ours)]
        elif isinstance(ours, Mapping) and isinstance(value, Mapping):
            request[name] = merged(cast("Mapping[str, Any]", ours), cast("Mapping[str, Any]", value))
        elif name in _BOUNDS and isinstance(ours, int) and isinstance(value, int) and value > 0:
            request[name] = min(ours, value)
    return request
