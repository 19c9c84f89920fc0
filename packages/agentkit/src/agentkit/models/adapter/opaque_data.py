"""Opaque data of a provider: it goes back to the endpoint and model that wrote it, and to no other.

Signatures and encrypted reasoning can be read by the model that made them only, and other endpoints refuse the whole
request for a field that they do not know. So what an adapter keeps for its provider says who that is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from agentkit.messages import JsonObject, Opaque, Reasoning, Text, ToolCall

ISSUER = "issuer"


def issuer_of(name: str, base_url: str) -> str:
    """What stands for a model at an endpoint; two of one name at different addresses are different.

    Args:
        name: ``provider:name``.
        base_url: where it is; only a digest of it is kept.
    """
    return f"{name} {hashlib.sha256(base_url.encode()).hexdigest()[:12]}"


def own(part: Text | Reasoning | ToolCall | Opaque, issuer: str) -> Mapping[str, Any]:
    """The data of ``part``, where ``issuer`` wrote it, and nothing where another did.

    A part that does not say who wrote it was made by hand, for this request. Of an older transcript only the provider
    and the model that answered are known: the provider decides.
    """
    data = part.data or {}
    wrote = data.get(ISSUER)
    if not isinstance(wrote, str):
        return data
    if " " not in wrote:
        return data if wrote.partition(":")[0] == issuer.partition(":")[0] else {}
    return data if wrote == issuer else {}


def issued(issuer: str, **data: Any) -> JsonObject | None:
    """Data for the part of a reply; ``None`` where there is nothing to keep."""
    kept = {name: value for name, value in data.items() if value not in (None, "", [], {})}
    return {ISSUER: issuer, **kept} if kept else None


def opaque(data: JsonObject | None) -> Iterator[Opaque]:
    """The part that keeps ``data``; none where there is nothing to keep."""
    if data is not None:
        yield Opaque(data=data)
