"""Deltas of a reply that did not come in pieces, as of a server that does not stream."""

from __future__ import annotations

from collections.abc import Sequence

from agentkit.messages import Part, Reasoning, ReasoningDelta, Text, TextDelta
from agentkit.ports import OnDelta


def retell(parts: Sequence[Part], on_delta: OnDelta) -> None:
    """Show the text and the reasoning of a reply as if each had come in one piece."""
    for part in parts:
        if isinstance(part, Text):
            on_delta(TextDelta(text=part.text))
        elif isinstance(part, Reasoning) and part.text:
            on_delta(ReasoningDelta(text=part.text))
