"""What a server returns, as the output of a tool. Pure.

Text stays text. An image and any other data become attachments (see :mod:`agentkit.attachments`), a resource an object
with its address. Characters that nobody sees are made visible.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from agentkit.attachments import KEY
from agentkit.characters import visible
from agentkit.messages import JsonValue

MOST_ERROR = 8_000
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
    plain = visible(structured)
    if len(texts) == len(parts) and (not texts or _repeats(texts, structured)):
        return cast("JsonValue", plain)
    return {"structured": plain, "content": said}


def error_of(blocks: Sequence[Mapping[str, Any]]) -> str:
    """The text of a failed call, for the model."""
    texts = [part for block in blocks if isinstance(part := _part(block), str)]
    text = "\n\n".join(texts).strip() or "the tool says that it failed, and not why"
    return text if len(text) <= MOST_ERROR else f"{text[:MOST_ERROR]} … (cut)"


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
            return cast("str", visible(block.get("text", "")))
        case "image" | "audio":
            return _data(block)
        case "resource":
            return _resource(block.get("resource") or {})
        case _:  # a link to a resource, and what later revisions bring
            kept = {
                name: value for name, value in block.items() if name not in {"_meta", "annotations", "icons"}
            }
            return cast("JsonValue", visible(kept))


def _resource(resource: Mapping[str, Any]) -> Mapping[str, JsonValue]:
    told: dict[str, JsonValue] = {"uri": visible(resource.get("uri", ""))}
    if "text" in resource:
        told |= {
            "media_type": visible(resource.get("mimeType") or "text/plain"),
            "text": visible(resource["text"]),
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
