"""Journal of a run on the platform's store: every append carries the lease."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from agentkit.errors import ToolTimeout
from agentkit.transcript.codec import kind_of
from agentkit.transcript.steps import Finished, Recorded, Step, ToolReturned, ToolStarted, Unreadable
from ops_core.concurrency.jitter import spread
from ops_core.errors import LeaseLost, SpendingReached, StoreUnavailable, TaskUnreadable
from ops_core.ports import Appended, Store
from ops_core.spending import Spending, SpendingLedger
from ops_core.task import Lease

AGAIN_SECONDS = 1.0
"""After a step could not be written, so long until that is tried again."""

UNSAFE_PATIENCE_SECONDS = 600.0
"""So long the result of an unsafe call is kept and written again, also when the lease is over: nobody else knows it."""

log = logging.getLogger("ops_core.journal")


class Changed(Protocol):
    """Somebody who wants to know when something was written about a task."""

    def __call__(self, task_id: str, *, status: bool) -> None:
        """Something was written; ``status`` says whether the task's status may have changed."""
        ...


def refuse_unreadable(steps: Sequence[Recorded]) -> None:
    """Refuse steps of which one cannot be read: nobody can go on with what they do not understand.

    Raises:
        TaskUnreadable: names the step.
    """
    for recorded in steps:
        if isinstance(recorded.step, Unreadable):
            message = f"step {recorded.seq}: {recorded.step.problem}"
            raise TaskUnreadable(message)


class TaskJournal:
    """The steps of one task, written under one lease.

    The run's last step and the task's terminal status are one transaction: see :meth:`append`.

    Args:
        store: where the task is.
        lease: the worker's claim; every write is refused with LeaseLost once it is lost.
        changed: told the task's id after each step, and whether its status changed, for whoever watches here.
        recorded: told the kind of each step that was recorded.
        on_cancel: called before an append returns that found the task's cancellation requested, by whichever process.
        ending: called before the step that ends the task is written.
        known: all its steps, where the claim has brought them, so that there is nothing to load.
        patience_seconds: so long a step that the database refuses is kept and written again: about as long as the lease
            lasts. What has happened is not thrown away because a disk was full for a moment.
        spending: what tenants may spend in a day.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        changed: Changed,
        *,
        recorded: Callable[[str], None] | None = None,
        on_cancel: Callable[[], None] | None = None,
        ending: Callable[[], None] | None = None,
        known: Sequence[Recorded] | None = None,
        spending: Spending | None = None,
        patience_seconds: float = 0.0,
    ) -> None:
        self._patience = patience_seconds
        self._till = SpendingLedger(Spending() if spending is None else spending, lease.tenant)
        self._store = store
        self._lease = lease
        self._changed = changed
        self._recorded = recorded
        self._on_cancel = on_cancel
        self._ending = ending
        self._known = known
        self._begun: set[str] = set()  # unsafe calls
        self._writing: set[asyncio.Future[Sequence[Recorded]]] = set()

    async def load(self) -> Sequence[Recorded]:
        """All steps recorded so far.

        Raises:
            TaskUnreadable: one of them cannot be read.
        """
        if self._known is not None:
            return self._known
        steps = await self._store.steps(self._lease.tenant, self._lease.task_id)
        refuse_unreadable(steps)
        self._till.restore(steps)
        return steps

    async def _append(self, steps: Sequence[Step]) -> Sequence[Recorded]:
        appended = await self._append_charged(steps)
        if appended.cancel_requested and self._on_cancel is not None:
            self._on_cancel()
        return appended

    async def _append_charged(self, steps: Sequence[Step]) -> Appended:
        charge = self._till.charge(steps)
        if charge is None:
            return await self._store.append_all(self._lease, steps)
        try:
            recorded = await self._store.append_all(self._lease, steps, charge)
        except SpendingReached as error:
            raise self._till.refusal(error) from None
        self._till.commit(recorded)
        return recorded

    async def _append_patiently(self, steps: Sequence[Step], patience: float) -> Sequence[Recorded]:
        """Write, and write again where it is certain that nothing was written."""
        now = asyncio.get_running_loop().time
        until = now() + patience
        while True:
            try:
                return await self._append(steps)
            except StoreUnavailable as error:
                if error.is_uncertain or now() + AGAIN_SECONDS > until:
                    raise
                log.warning("a step is kept and written again: %s", error)
            await asyncio.sleep(spread(AGAIN_SECONDS))

    async def _append_or_attach(
        self, steps: Sequence[Step], ended: Sequence[ToolReturned]
    ) -> Sequence[Recorded]:
        """Record steps, or else keep what came of unsafe calls for the person who is asked about them.

        A call that ran out of time tells nothing of what came of it.
        """
        try:
            return await self._append_patiently(steps, max(self._patience, UNSAFE_PATIENCE_SECONDS))
        except LeaseLost:
            for returned in ended:
                if returned.error is None or returned.error.code != ToolTimeout.code:
                    await self._attach(returned)
            raise

    async def _attach(self, returned: ToolReturned) -> None:
        now = asyncio.get_running_loop().time
        until = now() + max(self._patience, UNSAFE_PATIENCE_SECONDS)
        while True:
            try:
                kept = await self._store.attach(self._lease, returned)
            except StoreUnavailable as error:
                if now() + AGAIN_SECONDS > until:
                    log.warning("what %s has returned is lost with the lease: %s", returned.tool, error)
                    return
            else:
                if kept:
                    log.warning(
                        "the lease was lost; what %s has returned is kept with the task", returned.tool
                    )
                    self._changed(self._lease.task_id, status=False)
                return
            await asyncio.sleep(spread(AGAIN_SECONDS))

    def _written(self, writing: asyncio.Future[Sequence[Recorded]]) -> None:
        self._writing.discard(writing)
        if not writing.cancelled():
            writing.exception()  # seen, where nobody waits for it any more

    async def append(self, step: Step) -> Recorded:
        """Record a step; a :class:`~agentkit.transcript.steps.Finished` ends the task in the same transaction.

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
        is_last = Finished in map(type, steps)
        if self._ending is not None and is_last:
            self._ending()
        ended = [step for step in steps if isinstance(step, ToolReturned) and step.call_id in self._begun]
        if ended:
            # goes on when the run is given up: the heartbeat may find that the lease is lost before this does
            writing = asyncio.ensure_future(self._append_or_attach(steps, ended))
            self._writing.add(writing)
            writing.add_done_callback(self._written)
            recorded = await asyncio.shield(writing)
        else:
            recorded = await self._append_patiently(steps, self._patience)
        self._begun.update(step.call_id for step in steps if isinstance(step, ToolStarted))
        if self._recorded is not None:
            for step in steps:
                self._recorded(kind_of(step))
        self._changed(self._lease.task_id, status=is_last)
        return recorded
