"""What the steps of one run change in what it leaves unsettled, and in what its tenant spends.

Pure, but for the reservation that is open.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

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
from ops_core.errors import SpendingReached
from ops_core.ports import Charge, Reservation
from ops_core.terms import Spending, day_of, until_tomorrow

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


class Till:
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

    def loaded(self, steps: Transcript) -> None:
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

    def recorded(self, steps: Sequence[Recorded]) -> None:
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
