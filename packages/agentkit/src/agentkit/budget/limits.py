"""Limits of a run. Usage is counted from the transcript, so limits hold across crashes and restarts."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

from agentkit.errors import LimitReached, UsageError
from agentkit.money import as_text, nanos
from agentkit.transcript.usage import RunningUsage

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """A budget for one run. ``None`` means no limit of this kind.

    Attributes:
        steps: recorded steps (a model reply and a tool result are one step each, an unsafe call is two; that a model
            is being asked, or has failed, or has made vectors for the memory, does not count).
        tokens: input and output tokens of all calls of models together, embeddings included.
        usd: what all calls of models, embeddings included, may cost together. A call is made only if its largest
            possible cost fits into what is left; a model whose price nobody knows is then refused. See
            ``docs/how-to/limit-costs.md``.
        seconds: time from the first step on, without the time in which the run waits for a person.
    """

    steps: int | None = 100
    tokens: int | None = None
    seconds: float | None = None
    usd: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "tokens", "seconds", "usd"):
            value = getattr(self, name)
            if value is not None and not 0 < value < inf:
                message = f"limits: {name} must be positive and finite, not {value!r}"
                raise UsageError(message)

    def tightened(self, other: Limits | None) -> Limits:
        """The smaller of the two for each kind of limit.

        Raises:
            UsageError: these are no limits.
        """
        if other is None:
            return self
        given: Any = other  # whoever does not check types may hand over a dict
        if not isinstance(given, Limits):
            message = f"limits must be Limits(…), not a {type(given).__name__}"
            raise UsageError(message)
        return Limits(
            steps=_smaller(self.steps, other.steps),
            tokens=_smaller(self.tokens, other.tokens),
            seconds=_smaller(self.seconds, other.seconds),
            usd=_smaller(self.usd, other.usd),
        )

    def seconds_left(self, tally: RunningUsage, since_last: float) -> float | None:
        """Seconds until the run must end; ``None`` for no limit, zero or less when it is over.

        Args:
            tally: of all steps so far.
            since_last: seconds since the last of them was recorded or loaded. Only differences of the journal's
                clock are used, so a host whose clock is wrong shortens or prolongs nothing.
        """
        return None if self.seconds is None else self.seconds - tally.seconds - since_last

    def nanos_left(self, tally: RunningUsage) -> int | None:
        """Nano-dollars that a call may still cost; ``None`` for no limit, zero or less when nothing is left."""
        return None if self.usd is None else nanos(self.usd) - tally.spent

    def check(self, tally: RunningUsage, more_steps: int = 0) -> None:
        """Refuse another turn when steps, tokens or money are used up.

        Args:
            tally: of all steps so far.
            more_steps: of runs inside the tools, which the steps do not tell of yet.

        Raises:
            LimitReached: the text says which limit, and how it stands.
        """
        counted = tally.steps - tally.asides + tally.nested_steps + more_steps
        if self.steps is not None and counted >= self.steps:
            message = f"the run has recorded {counted} of {self.steps} steps"
            raise LimitReached(message)
        if self.tokens is not None and tally.tokens.tokens >= self.tokens:
            message = f"the run has used {tally.tokens.tokens} of {self.tokens} tokens"
            raise LimitReached(message)
        if self.usd is not None and tally.spent >= nanos(self.usd):
            message = f"the run has spent {as_text(tally.spent)} of {as_text(nanos(self.usd))}"
            raise LimitReached(message)


def _smaller(one: Number | None, other: Number | None) -> Number | None:
    given = [limit for limit in (one, other) if limit is not None]
    return min(given) if given else None
