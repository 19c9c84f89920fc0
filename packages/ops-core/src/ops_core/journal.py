"""A run's journal on the platform's store: every append carries the lease."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from agentkit.codec import kind_of
from agentkit.transcript import Finished, Recorded, Step
from ops_core.errors import SpendingReached
from ops_core.ports import Store
from ops_core.task import Lease
from ops_core.terms import Spending
from ops_core.till import Till


class Changed(Protocol):
    """Somebody who wants to know when something was written about a task."""

    def __call__(self, task_id: str, *, status: bool) -> None:
        """Something was written; ``status`` says whether the task's status may have changed."""
        ...


class TaskJournal:
    """The steps of one task, written under one lease.

    The run's last step and the task's terminal status are one transaction: see :meth:`append`.

    Args:
        store: where the task is.
        lease: the worker's claim; every write is refused with LeaseLost once it is lost.
        changed: told the task's id after each step, and whether its status changed, for whoever watches here.
        recorded: told the kind of each step that was recorded.
        ending: called before the step that ends the task is written.
        known: all its steps, where the claim has brought them, so that there is nothing to load.
        spending: what tenants may spend in a day.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        changed: Changed,
        *,
        recorded: Callable[[str], None] | None = None,
        ending: Callable[[], None] | None = None,
        known: Sequence[Recorded] | None = None,
        spending: Spending | None = None,
    ) -> None:
        self._till = Till(Spending() if spending is None else spending, lease.tenant)
        self._store = store
        self._lease = lease
        self._changed = changed
        self._recorded = recorded
        self._ending = ending
        self._known = known

    async def load(self) -> Sequence[Recorded]:
        """All steps recorded so far."""
        if self._known is not None:
            return self._known
        steps = await self._store.steps(self._lease.tenant, self._lease.task_id)
        self._till.loaded(steps)
        return steps

    async def _append(self, steps: Sequence[Step]) -> Sequence[Recorded]:
        charge = self._till.charge(steps)
        if charge is None:
            return await self._store.append_all(self._lease, steps)
        try:
            recorded = await self._store.append_all(self._lease, steps, charge)
        except SpendingReached as error:
            raise self._till.refusal(error) from None
        self._till.recorded(recorded)
        return recorded

    async def append(self, step: Step) -> Recorded:
        """Record a step; a :class:`~agentkit.transcript.Finished` ends the task in the same transaction.

        Raises:
            LeaseLost: another worker owns the task; nothing was written.
            StoreUnavailable: the database refused.
        """
        (recorded,) = await self.append_all((step,))
        return recorded

    async def append_all(self, steps: Sequence[Step]) -> Sequence[Recorded]:
        """Record steps in one transaction: all of them or none.

        Raises:
            LeaseLost, StoreUnavailable: as :meth:`append`.
            DayLimitReached: the call of a model that the step announces does not fit into what the tenant may spend.
        """
        self._known = None
        is_last = any(isinstance(step, Finished) for step in steps)
        if self._ending is not None and is_last:
            self._ending()
        recorded = await self._append(steps)
        if self._recorded is not None:
            for step in steps:
                self._recorded(kind_of(step))
        self._changed(self._lease.task_id, status=is_last)
        return recorded
