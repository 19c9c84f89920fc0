"""The trace that work belongs to, carried from process to process as W3C Trace Context has it.

Works with OpenTelemetry where the process has imported it, and imports nothing itself.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE = re.compile(r"[\x20-\x7e\t]*")
_MOST_STATE = 512
_MOST_MEMBERS = 32


@dataclass(frozen=True, slots=True)
class Trace:
    """Who has begun what is now carried on.

    Attributes:
        parent: a ``traceparent`` of version 00.
        state: a ``tracestate`` of at most 512 characters; empty for none.
    """

    parent: str
    state: str = ""

    @classmethod
    def told(cls, parent: str | None, state: str | None = None) -> Self | None:
        """What two headers tell; ``None`` for nothing.

        As the specification has it: a malformed ``traceparent`` is as good as none, a later version is read as the
        first one, and a malformed ``tracestate`` is left out.
        """
        found = None if parent is None else _PARENT.fullmatch(parent.strip())
        if found is None:
            return None
        version, trace, span, flags, more = found.groups()
        if version == "ff" or (version == "00" and more) or not trace.strip("0") or not span.strip("0"):
            return None
        return cls(f"00-{trace}-{span}-{flags}", _state(state or ""))

    @classmethod
    def current(cls) -> Self | None:
        """That of the span in which this is called; ``None`` where there is none, or no OpenTelemetry."""
        trace: Any = sys.modules.get("opentelemetry.trace")
        if trace is None:
            return None
        of = trace.get_current_span().get_span_context()
        if not of.is_valid:
            return None
        return cls.told(
            f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags:02x}", of.trace_state.to_header()
        )

    @classmethod
    def of_text(cls, text: str | None) -> Self | None:
        """The trace of :attr:`text`."""
        parent, _space, state = (text or "").partition(" ")
        return cls.told(parent, state)

    @property
    def text(self) -> str:
        """In one line."""
        return f"{self.parent} {self.state}".rstrip()

    @property
    def id(self) -> str:
        """The trace's own, 32 hexadecimal digits."""
        return self.parent[3:35]

    @property
    def headers(self) -> Mapping[str, str]:
        """As it is sent on."""
        return {"traceparent": self.parent} | ({"tracestate": self.state} if self.state else {})

    def carried_on(self) -> AbstractContextManager[Any]:
        """Spans that begin in this context belong to the trace; without OpenTelemetry nothing happens."""
        trace: Any = sys.modules.get("opentelemetry.trace")
        if trace is None:
            return nullcontext()
        of = trace.SpanContext(
            trace_id=int(self.id, 16),
            span_id=int(self.parent[36:52], 16),
            is_remote=True,
            trace_flags=trace.TraceFlags(int(self.parent[53:], 16)),
            trace_state=trace.TraceState.from_header([self.state]) if self.state else None,
        )
        whose: AbstractContextManager[Any] = trace.use_span(
            trace.NonRecordingSpan(of), record_exception=False, set_status_on_exception=False
        )
        return whose


def annotate(attributes: Mapping[str, str | int]) -> None:
    """Add to the span in which this is called; without one, or without OpenTelemetry, nothing happens."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        trace.get_current_span().set_attributes(attributes)


def _state(told: str) -> str:
    members = [member.strip() for member in told.split(",") if member.strip()]
    state = ",".join(members)
    fits = len(state) <= _MOST_STATE and len(members) <= _MOST_MEMBERS and _STATE.fullmatch(state)
    return state if fits and all("=" in member for member in members) else ""
