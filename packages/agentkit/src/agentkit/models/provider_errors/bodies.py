"""The error in a provider's answer, in whichever form it comes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from agentkit.models.adapter.json import as_list, as_object, as_text, load_json

_WORDS = (
    "message",
    "msg",
    "detail",
    "error_message",
    "errorMessage",
    "Message",
    "status_msg",
    "title",
    "description",
)


def error_object(body: object) -> Mapping[str, Any]:
    """The error in a body or in an event that may also hold a reply; empty where there is none."""
    found = as_object(body)
    error = found.get("error")
    if isinstance(error, str) and error:
        return {**{name: found[name] for name in ("code", "type") if name in found}, "message": error}
    if found.get("object") == "error":  # vLLM
        return found
    if found.get("success") is False and (errors := as_list(found.get("errors"))):  # Cloudflare
        return _object(errors[0])
    base = as_object(found.get("base_resp"))  # MiniMax
    if base.get("status_code"):
        return {"code": f"base_{base['status_code']}", "message": as_text(base.get("status_msg"))}
    for choice in map(as_object, as_list(found.get("choices"))[:1]):  # OpenRouter
        if inner := as_object(choice.get("error")):
            return inner
    error = as_object(error)
    return error if any(error.values()) else {}  # some servers fill every field of a reply


_OF_A_REPLY = frozenset(
    {"choices", "output", "content", "response", "delta", "item", "part", "usage", "object"}
)
_OF_AN_ERROR = frozenset(
    {"code", "type", "status", "statusCode", "status_code", "error_code", "errno", "success"}
)


def bare_error(event: object) -> Mapping[str, Any]:
    """The error in an event of a stream that is nothing else, though it has no field ``error``; else empty.

    An event that only has a title or a description is of a gateway's own, and none.
    """
    found = as_object(event)
    said = [name for name in _WORDS if name not in {"title", "description"} and as_text(found.get(name))]
    is_error = _OF_AN_ERROR.intersection(found) or len(found) == 1
    if not said or not is_error or _OF_A_REPLY.intersection(found):
        return {}
    return {**found, "message": message_of(found)}


def refused_object(body: object, text: str = "") -> Mapping[str, Any]:
    """The error in the body of a response that is one: an object, a list, a field of some name, or plain text.

    Args:
        body: as JSON; ``None`` where it is none.
        text: as it came.
    """
    if isinstance(body, list):  # Gemini's OpenAI endpoint
        body = cast("Sequence[Any]", body)[0] if body else None
    if isinstance(body, str):
        return {"message": body}
    found = as_object(body)
    error = error_object(found)
    if error:
        return error
    for name in ("error", "errors", "fault", "detail", "details"):
        inner = found.get(name)
        if listed := list(_listed(inner)):
            return {**found, "message": "; ".join(listed)}
        if isinstance(inner, Mapping) and inner:
            return _object(cast("Mapping[str, Any]", inner))
    if found:
        return {**found, "message": message_of(found)}
    return _of_text(text.strip()) if body is None else {}


def _of_text(text: str) -> Mapping[str, Any]:
    """The error in a text; some servers answer a request for a stream with an event also where they refuse it."""
    line = next((each[5:] for each in text.splitlines() if each.startswith("data:")), "")
    try:
        return refused_object(load_json(line)) if line else {"message": text} if text else {}
    except ValueError:
        return {"message": text}


def message_of(error: Mapping[str, Any]) -> str:
    """What an error says in words; that of an upstream provider, which a gateway has put inside, comes with it."""
    words = next((each for each in map(_text, map(error.get, _WORDS)) if each), "")
    inner = error.get("error")
    if not words and inner is not None:
        words = _sentence(inner)
    metadata = as_object(error.get("metadata"))
    upstream = [_upstream(metadata.get(name)) for name in ("raw", "message") if metadata.get(name)]
    return ": ".join(dict.fromkeys(each for each in (words, *upstream) if each))


def _upstream(raw: object) -> str:
    if isinstance(raw, str):
        try:
            raw = load_json(raw)
        except ValueError:
            return str(raw)
    return message_of(refused_object(raw))


def _object(found: object) -> Mapping[str, Any]:
    return {**as_object(found), "message": _sentence(found)}


def _sentence(found: object) -> str:
    """One of the errors of a list: FastAPI says where it is."""
    if isinstance(found, str):
        return found
    error = as_object(found)
    where = ".".join(str(part) for part in as_list(error.get("loc")))
    said = message_of(error)
    return f"{where}: {said}" if where and said else said


def _text(value: object) -> str:
    return value if isinstance(value, str) else "; ".join(_listed(value))


def _listed(values: object) -> Iterator[str]:
    yield from (sentence for each in as_list(values)[:5] if (sentence := _sentence(each)))


def as_error_line(value: bytes) -> bytes:
    """The event that a line ``error: …`` in a stream stands for."""
    try:
        found: Any = load_json(value)
    except ValueError:
        found = value.decode(errors="replace")
    return json.dumps(found if "error" in as_object(found) else {"error": found}).encode()
