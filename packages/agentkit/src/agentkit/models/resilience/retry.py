"""Retry decision for a failed call: make it again, call another model, or give up. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from agentkit.errors import (
    ContentRefused,
    ContextTooLong,
    ModelAuthError,
    ModelBadRequest,
    ModelBadResponse,
    ModelError,
    ModelMistaken,
    ModelOverloaded,
    ModelRateLimited,
    ModelResting,
    ModelTimeout,
    ModelUnreachable,
    UsageError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often a call that failed is made again before the run is put off, and how long is waited in between.

    The wait before a further call is random, between nothing and a bound that doubles ("full jitter"), so that runs
    that failed together do not come back together; what a provider asks for with Retry-After is waited in any case.

    Attributes:
        tries: calls of one model for one reply, the first one included. Calls that failed before the run was resumed
            count, but one is always made.
        first_seconds: the bound of the first wait.
        max_seconds: the bound never exceeds this.
        longest_wait: a wait that would be longer is not begun here: the run is put off, or another model asked.
    """

    tries: int = 3
    first_seconds: float = 0.5
    max_seconds: float = 8.0
    longest_wait: float = 20.0

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise UsageError(f"retries: tries must be at least 1, not {self.tries!r}")
        for name in ("first_seconds", "max_seconds", "longest_wait"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"retries: {name} must be zero or more, and finite")

    def wait(self, failed: int, chance: float, retry_after: float | None) -> float:
        """Seconds to wait after so many calls have failed.

        Args:
            failed: calls so far, from 1.
            chance: a random number in [0, 1].
            retry_after: seconds that the provider has asked for.
        """
        bound = min(self.max_seconds, self.first_seconds * 2.0 ** min(failed - 1, 60))
        return (retry_after or 0.0) + chance * bound


@dataclass(frozen=True, slots=True)
class Reaction:
    """What can help after an error.

    Attributes:
        retry: the same call, made again.
        fallback: another model.
        broken: it says that the provider does not work, and counts for its circuit breaker.
    """

    retry: bool
    fallback: bool
    broken: bool = False


REACTIONS: Mapping[type[ModelError], Reaction] = {
    ModelRateLimited: Reaction(retry=True, fallback=True),
    ModelResting: Reaction(retry=False, fallback=True),
    ModelOverloaded: Reaction(retry=True, fallback=True, broken=True),
    ModelTimeout: Reaction(retry=True, fallback=True, broken=True),
    ModelUnreachable: Reaction(retry=True, fallback=True, broken=True),
    ModelBadResponse: Reaction(retry=True, fallback=True, broken=True),
    # one that is no turn of a run: the model may do better
    ModelMistaken: Reaction(retry=True, fallback=True),
    # another provider has another key, and another model another window
    ModelAuthError: Reaction(retry=False, fallback=True),
    ContextTooLong: Reaction(retry=False, fallback=True),
    # a faulty request is faulty everywhere; and to look for a model that does not decline is not ours to decide
    ModelBadRequest: Reaction(retry=False, fallback=False),
    ContentRefused: Reaction(retry=False, fallback=False),
}
"""The whole policy; an error is treated as the nearest of its kinds is."""


def reaction_to(error: ModelError) -> Reaction:
    """What can help after ``error``."""
    for kind in type(error).__mro__:
        if kind in REACTIONS:
            return REACTIONS[kind]
    return Reaction(retry=error.transient, fallback=error.transient, broken=error.transient)


@dataclass(frozen=True, slots=True)
class Again:
    """The same model, after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class NextModel:
    """The next model of the chain, at once."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nothing more can be done now."""


Next: TypeAlias = Again | NextModel | GiveUp


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Where a turn stands after a failed call.

    Attributes:
        failed: calls of this model that have failed in this turn.
        tries: so many may be made.
        has_another: there is another model to ask.
        seconds_left: until the run's deadline; ``None`` for no limit.
    """

    failed: int
    tries: int
    has_another: bool
    seconds_left: float | None = None


def what_next(error: ModelError, situation: Situation, retries: Retries, chance: float) -> Next:
    """What to do after ``error``."""
    reaction = reaction_to(error)
    if reaction.retry and situation.failed < situation.tries:
        wait = retries.wait(situation.failed, chance, getattr(error, "retry_after", None))
        in_time = situation.seconds_left is None or wait < situation.seconds_left
        if wait <= retries.longest_wait and in_time:
            return Again(wait)
    return NextModel() if reaction.fallback and situation.has_another else GiveUp()


def most_hopeful(errors: Sequence[ModelError]) -> ModelError:
    """Of the errors of a whole chain the one to tell: the one after which resuming helps soonest, else the first."""
    transient = [error for error in errors if error.transient]
    if not transient:
        return errors[0]
    return min(transient, key=lambda error: getattr(error, "retry_after", None) or 0.0)
