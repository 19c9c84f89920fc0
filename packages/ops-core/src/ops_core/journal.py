"""A run's journal on the platform's store: every append carries the lease."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentkit.transcript import Finished, Recorded, Step
from ops_core.ports import Store
from ops_core.task import Lease


class TaskJournal:
    """The steps of one task, written under one lease.

    The run's last step and the task's terminal status are one transaction: see :meth:`append`.

    Args:
        store: where the task is.
        lease: the worker's claim; every write is refused with LeaseLost once it is lost.
        changed: told the task's id after each step, for whoever watches in this process.
    """

    def __init__(self, store: Store, lease: Lease, changed: Callable[[str], None]) -> None:
        self._store = store
        self._lease = lease
        self._changed = changed

    async def load(self) -> Sequence[Recorded]:
        """All steps recorded so far."""
        return await self._store.steps(self._lease.tenant, self._lease.task_id)

    async def append(self, step: Step) -> Recorded:
        """Record a step; a :class:`~agentkit.transcript.Finished` ends the task in the same transaction.

        Raises:
            LeaseLost: another worker owns the task; nothing was written.
            StoreUnavailable: the database refused.
        """
        if isinstance(step, Finished):
            recorded = await self._store.finish(self._lease, step)
        else:
            recorded = await self._store.append(self._lease, step)
        self._changed(self._lease.task_id)
        return recorded
