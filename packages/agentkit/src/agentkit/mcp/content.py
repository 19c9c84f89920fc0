"""Content that a server returns, converted to the output of a tool. Pure.

Text stays text. An image and any other data become attachments (see :mod:`agentkit.attachments`), a resource an object
with its address. Texts are what the server sent, since an agent that edits files writes them back; only invisible
letters are written as escapes (:func:`agentkit.untrusted.text.legible`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from agentkit.attachments import KEY
from agentkit.messages import JsonValue
from agentkit.untrusted.text import legible, visible

MAX_ERROR = 8_000
"""Characters of the text of a failed call."""


def output_of(blocks: Sequence[Mapping[str, Any]], structured: Any) -> JsonValue:
    """The output of a call.

    Args:
        blocks: ``content`` of the result, in the words of the protocol.
        structured: its ``structuredContent``; ``None`` for none.
    """
    parts = [_part(block) for block in blocks]
    texts = [part for part in parts if isinstance(part, str)]
    said: JsonValue = "\n\n".join(texts) if len(texts) == len(parts) else parts
    if structured is None:
        return said
    plain = legible(structured)
    if len(texts) == len(parts) and (not texts or _repeats(texts, structured)):
        return cast("JsonValue", plain)
    return {"structured": plain, "content": said}


def error_of(blocks: Sequence[Mapping[str, Any]], structured: Any = None) -> str:
    """The reason of a failed call, for the model: its texts, what else it holds by name, and its structured output."""
    words = [_in_words(block) for block in blocks]
    if structured is not None and not _repeats([text for text in words if text], structured):
        words.append(
            structured if isinstance(structured, str) else json.dumps(structured, ensure_ascii=False)
        )
    text = legible("\n\n".join(words).strip()) or "the tool says that it failed, and not why"
    return text if len(text) <= MAX_ERROR else f"{text[:MAX_ERROR]} … (cut)"


def _in_words(block: Mapping[str, Any]) -> str:
    part = _part(block)
    if isinstance(part, str):
        return part
    match block.get("type"):
        case "resource" if isinstance(part, Mapping) and isinstance(part.get("text"), str):
            return str(part["text"])
        case "image" | "audio" | "resource":
            held = block.get("resource") or block
            return f"({visible(held.get('mimeType') or held.get('uri') or block['type'])})"
        case _:
            return json.dumps(part, ensure_ascii=False)


def contents_of(contents: Sequence[Mapping[str, Any]]) -> JsonValue:
    """The contents of a resource that was read."""
    parts = [_resource(each) for each in contents]
    only = parts[0] if len(parts) == 1 else None
    if isinstance(only, Mapping) and isinstance(only.get("text"), str):
        return only["text"]
    return parts


def _part(block: Mapping[str, Any]) -> JsonValue:
    match block.get("type"):
        case "text":
            return cast("str", legible(block.get("text", "")))
        case "image" | "audio":
            return _data(block)
        case "resource":
            return _resource(block.get("resource") or {})
        case _:  # a link to a resource, and what later revisions bring
            kept = {
                name: value for name, value in block.items() if name not in {"_meta", "annotations", "icons"}
            }
            return cast("JsonValue", legible(kept))


def _resource(resource: Mapping[str, Any]) -> Mapping[str, JsonValue]:
    told: dict[str, JsonValue] = {"uri": legible(resource.get("uri", ""))}
    if "text" in resource:
        told |= {
            "media_type": visible(resource.get("mimeType") or "text/plain"),
            "text": legible(resource["text"]),
        }
    else:
        told["content"] = _data({"data": resource.get("blob", ""), "mimeType": resource.get("mimeType")})
    return told


def _data(block: Mapping[str, Any]) -> Mapping[str, JsonValue]:
    media_type = str(block.get("mimeType") or "application/octet-stream").lower().partition(";")[0].strip()
    return {KEY: {"media_type": visible(media_type), "data": block.get("data", "")}}


def _repeats(texts: Sequence[str], structured: Any) -> bool:
    """The texts say in JSON, or as the only field, what the structured output says; many servers send both."""
    if isinstance(structured, Mapping) and list(cast("Mapping[str, Any]", structured)) == ["result"]:
        result = cast("Mapping[str, Any]", structured)["result"]
        if "\n\n".join(texts) == result:
            return True
    try:
        read = [json.loads(text) for text in texts]
    except (ValueError, RecursionError):
        return False
    if isinstance(structured, Mapping) and list(cast("Mapping[str, Any]", structured)) == ["result"]:
        result = cast("Mapping[str, Any]", structured)["result"]
        return read in ([result], result, [structured])
    return bool(read == [structured])
