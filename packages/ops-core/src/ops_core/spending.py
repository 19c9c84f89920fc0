"""Spending ledger: how the steps of a run change what it leaves unsettled, and what its tenant spends.

Pure, but for the reservation that is open.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal

from agentkit.errors import LimitReached
from agentkit.messages import Usage
from agentkit.money import nanos
from agentkit.transcript.steps import (
    Embedded,
    Finished,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    NestedSpent,
    Recorded,
    Step,
    Summarised,
    Transcript,
)
from ops_core.errors import ConfigError, SpendingReached

_SETTLING = (ModelReplied, ModelFailed, Embedded, Summarised, Finished)

SETTLING_SECONDS = 3.0
"""A run that would fit if others gave back what they have only reserved comes again after so long."""


class DayLimitReached(LimitReached):
    """The tenant may not spend more today.

    Attributes:
        retry_after: seconds after which the run is to come again; ``None`` where it fails.
    """

    code = "day_limit_reached"

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.transient = retry_after is not None


class SpendingLedger:
    """Of one run under one lease.

    A call that an earlier lease has announced last was cut with it: nobody knows what it has cost, and the next step
    that is recorded spends all that was reserved for it. So does the end of a run in the middle of a call.

    Args:
        spending: what tenants may spend.
        tenant: whose run it is.
    """

    def __init__(self, spending: Spending, tenant: str) -> None:
        self._limit = spending.limit(tenant)
        self._waits = spending.when_reached == "wait"
        self._open: dict[
            str, Reservation
        ] = {}  # by the run inside a tool that makes the call; empty for this one

    def restore(self, steps: Transcript) -> None:
        """These steps are all that were recorded, and no call is under way."""
        self._open.clear()
        for one in steps:
            self._note(one)

    def charge(self, steps: Sequence[Step]) -> Charge | None:
        """What recording these steps changes; ``None`` for nothing."""
        for step in steps:
            match step:
                case ModelAsked(run=run, withdrawn=True):
                    return self._settled(Usage(cost_usd=0.0), run)
                case ModelAsked(reserved_usd=reserved, run=run):
                    return self._reserved(nanos(reserved), run)
                case NestedSpent(usage=used, run=run):
                    return self._settled(used, run)
                case ModelReplied(usage=used) | ModelFailed(usage=used) | Embedded(usage=used):
                    return self._settled(used)
                case Summarised(usage=used, model=model):
                    return self._settled(used if model else None)
                case Finished():
                    return self._settled(None)
                case _:
                    pass
        return None

    def _reserved(self, amount: int, run: str) -> Charge:
        if self._limit is None:
            return Charge(unsettled=amount)
        lost = self._settled(None, run) or Charge()
        return replace(lost, reserve=amount, limit=self._limit, unsettled=amount)

    def _settled(self, used: Usage | None, run: str = "") -> Charge | None:
        """A cost that nobody knows counts with all that was reserved."""
        reserved = self._open.get(run)
        if reserved is None:
            return None
        known = None if used is None else used.cost_usd
        settled = 0 if known is None else -reserved.amount
        if self._limit is None:
            return Charge(unsettled=settled)
        spent = reserved.amount if known is None else nanos(known)
        return Charge(settled=reserved, spent=spent, unsettled=settled)

    def commit(self, steps: Sequence[Recorded]) -> None:
        """These steps are recorded."""
        for one in steps:
            self._note(one)

    def _note(self, one: Recorded) -> None:
        match one.step:
            case NestedSpent(run=run) | ModelAsked(run=run, withdrawn=True):
                self._open.pop(run, None)
            case ModelAsked(run=run) as asked:
                self._open[run] = _reservation(one, asked)
            case step if isinstance(step, _SETTLING):
                self._open.pop("", None)
            case _:
                pass

    def refusal(self, error: SpendingReached) -> DayLimitReached:
        """The same, for the run: it comes again soon, or on the next day, or fails."""
        if error.for_now:
            return DayLimitReached(str(error), retry_after=SETTLING_SECONDS)
        wait = until_tomorrow(time.time()) if self._waits else None
        return DayLimitReached(str(error), retry_after=wait)


def _reservation(recorded: Recorded, asked: ModelAsked) -> Reservation:
    return Reservation(day=day_of(recorded.at), amount=nanos(asked.reserved_usd))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What was reserved for a call of a model.

    Attributes:
        day: whose; in days since 1970, UTC.
        amount: nano-dollars.
    """

    day: int
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What steps change in what their tenant spends, and what their task leaves unsettled; all money in nano-dollars.

    Attributes:
        reserve: the call that is about to be made may cost so much; ``None`` where there is none.
        limit: the tenant's for the day; ``None`` for no limit.
        settled: what was reserved for the call that has ended, and is given back.
        spent: what that call has cost, or may have.
        unsettled: so much more was reserved by the task for calls whose cost nobody knows (yet); less, where negative.
    """

    reserve: int | None = None
    limit: int | None = None
    settled: Reservation | None = None
    spent: int = 0
    unsettled: int = 0

    @property
    def of_tenant(self) -> bool:
        """The tenant's day changes, not only the task."""
        return self.reserve is not None or self.settled is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What was spent in a day, in nano-dollars; known of tenants whose spending is limited.

    Attributes:
        day: in days since 1970, UTC.
        reserved: for calls under way, and for calls that were cut and whose tasks have not gone on.
        spent: by calls that have ended, or were cut.
    """

    day: int
    reserved: int
    spent: int


_DAY = 86_400


def day_of(moment: float) -> int:
    """Days since 1970, UTC, at a moment in seconds since then."""
    return int(moment // _DAY)


def until_tomorrow(moment: float) -> float:
    """Seconds to the next midnight, UTC."""
    return (day_of(moment) + 1) * _DAY - moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What tenants may spend in a day, which begins at midnight UTC. ``None`` means no limit.

    Attributes:
        usd_per_day: of each tenant that is not named.
        tenants: of these.
        when_reached: a run that a call would take beyond the limit fails; or it waits for the next day.
    """

    usd_per_day: float | None = None
    tenants: Mapping[str, float] = field(default_factory=dict[str, float])
    when_reached: Literal["fail", "wait"] = "fail"

    def __post_init__(self) -> None:
        for name, value in (("usd_per_day", self.usd_per_day), *self.tenants.items()):
            if value is not None and not 0 < value < inf:
                message = f"spending: {name} must be positive and finite, not {value!r}"
                raise ConfigError(message, field="spending")

    @property
    def is_limited(self) -> bool:
        """Somebody's spending is."""
        return self.usd_per_day is not None or bool(self.tenants)

    def limit(self, tenant: str) -> int | None:
        """Nano-dollars that a tenant may spend in a day."""
        found = self.tenants.get(tenant, self.usd_per_day)
        return None if found is None else nanos(found)
