"""Look-up results: the effect of a call that was cut short.

A tool names its look-up with ``@tool(effect="unsafe", find=look_up)``. It is called with the idempotency key of the
call before a person is asked; its answers are JSON, so that it can run in a sandbox, as its tool does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from agentkit.messages import JsonObject, JsonValue

ABSENT: Final[JsonObject] = {"absent": True}
"""It is proven that the call took no effect: it may be made."""


def found(output: JsonValue) -> JsonObject:
    """Return the answer that the call took effect and returned ``output``."""
    return {"found": output}


@dataclass(frozen=True, slots=True)
class Lookup:
    """A look-up that was certain.

    Attributes:
        took_effect: the call did.
        output: what it returned, where it did.
    """

    took_effect: bool
    output: JsonValue = None


def lookup_of(answer: object) -> Lookup | None:
    """Read an answer; ``None`` for one that is not certain, as everything is that is no answer at all."""
    if not isinstance(answer, Mapping) or len(cast("Mapping[str, Any]", answer)) != 1:
        return None
    told = cast("Mapping[str, Any]", answer)
    if "found" in told:
        return Lookup(took_effect=True, output=told["found"])
    return Lookup(took_effect=False) if told.get("absent") is True else None
