"""Circuit breaker: a model whose calls fail one after the other is not called for a while. Pure.

::

    closed ──(too many failures in a row)─▶ open ──(its time is over)──▶ half open: one call is let through
       ▲                                      ▲                              │            │
       └────────────── it succeeds ───────────┼──────────────────────────────┘            │
                                              └───────── it fails: twice as long ─────────┘
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from agentkit.errors import UsageError


class CircuitState(StrEnum):
    """How a model stands."""

    CLOSED = "closed"
    """It is asked."""
    OPEN = "open"
    """Its last calls have failed; it is not asked."""
    HALF_OPEN = "half_open"
    """It may be asked once, to see whether it answers again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitSettings:
    """When a model is left alone, and for how long.

    Attributes:
        failures: after so many in a row.
        seconds: for so long, and twice as long each time that the call after it has failed, too.
        max_seconds: but no longer than this.
    """

    failures: int = 5
    seconds: float = 15.0
    max_seconds: float = 240.0

    def __post_init__(self) -> None:
        if self.failures < 1 or not 0 < self.seconds <= self.max_seconds < float("inf"):
            raise UsageError("breaking: failures must be at least 1, and 0 < seconds <= max_seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """What is remembered of a model's last calls. Times are of one clock that never goes back.

    Attributes:
        failures: in a row.
        rests: how often in a row it was left alone.
        until: when it may be asked again; ``None`` while it is asked.
        probing: one call was let through and has not ended.
    """

    failures: int = 0
    rests: int = 0
    until: float | None = None
    probing: bool = False

    def state(self, now: float) -> CircuitState:
        """How the model stands."""
        if self.until is None:
            return CircuitState.CLOSED
        return CircuitState.OPEN if now < self.until else CircuitState.HALF_OPEN

    def seconds_left(self, now: float, breaking: CircuitSettings) -> float | None:
        """Seconds until it is worth while to come again; ``None``: it may be asked now."""
        match self.state(now):
            case CircuitState.CLOSED:
                return None
            case CircuitState.OPEN:
                return (self.until or now) - now
            case CircuitState.HALF_OPEN:
                return breaking.seconds / 2 if self.probing else None

    def asked(self, now: float) -> Circuit:
        """A call was let through."""
        return replace(self, probing=True) if self.state(now) is CircuitState.HALF_OPEN else self

    def answered(self) -> Circuit:
        """A call got an answer, be it a refusal: the provider is there."""
        return Circuit()

    def abandoned(self) -> Circuit:
        """A call was given up by whoever made it, which says nothing about the provider."""
        return replace(self, probing=False)

    def failed(self, now: float, breaking: CircuitSettings) -> Circuit:
        """A call has failed."""
        if self.state(now) is CircuitState.OPEN:  # begun before it was opened
            return self
        failures = self.failures + 1
        if self.until is None and failures < breaking.failures:
            return replace(self, failures=failures)
        rest = min(breaking.max_seconds, breaking.seconds * 2.0 ** min(self.rests, 60))
        return Circuit(failures=failures, rests=self.rests + 1, until=now + rest)
