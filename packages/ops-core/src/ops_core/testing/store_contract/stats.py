"""Contract of a store that says how full it is."""

from __future__ import annotations

from typing import Protocol

from ops_core.ports import Measured, Store
from ops_core.task import TaskStatus
from ops_core.testing.store_contract.examples import (
    LEASE_SECONDS,
    OTHER_TENANT,
    MovableClock,
    brought_to,
    claim,
    submitted,
)
from ops_core.testing.store_contract.workers import ActivityContract


class MeasuredStore(Store, Measured, Protocol):
    """Both."""


class MeasuringContract(ActivityContract):
    """What :meth:`~ops_core.ports.Measured.stats` promises."""

    async def test_an_empty_store_is_empty(self, store: MeasuredStore) -> None:
        stats = await store.stats()
        assert stats.tasks == {TaskStatus.PENDING: 0, TaskStatus.RUNNING: 0, TaskStatus.WAITING: 0}
        assert (stats.due, stats.oldest_due_seconds, stats.expired_leases, stats.workers) == (0, 0, 0, 0)

    async def test_what_has_not_ended_is_counted(self, store: MeasuredStore) -> None:
        for status in (TaskStatus.WAITING, TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED):
            await brought_to(store, status)
        for _ in range(3):
            await submitted(store)
        assert len(await claim(store, owner="one", slots=1)) == 1
        assert len(await claim(store, owner="other", slots=1)) == 1
        stats = await store.stats()
        assert stats.tasks == {TaskStatus.PENDING: 1, TaskStatus.RUNNING: 2, TaskStatus.WAITING: 1}
        assert (stats.due, stats.expired_leases, stats.workers) == (1, 0, 2)

    async def test_it_is_of_all_tenants(self, store: MeasuredStore) -> None:
        await submitted(store)
        await submitted(store, tenant=OTHER_TENANT)
        assert (await store.stats()).due == 2

    async def test_the_age_of_the_oldest_due_task_grows(
        self, store: MeasuredStore, clock: MovableClock
    ) -> None:
        before = (await store.stats()).moment
        await submitted(store, run_at=before + 100)
        stats = await store.stats()
        assert (stats.tasks[TaskStatus.PENDING], stats.due, stats.oldest_due_seconds) == (1, 0, 0)
        clock.advance(107)
        await submitted(store)
        stats = await store.stats()
        assert (stats.due, stats.oldest_due_seconds, stats.moment) == (2, 7, before + 107)

    async def test_a_lease_that_has_run_out_is_counted_until_it_is_swept(
        self, store: MeasuredStore, clock: MovableClock
    ) -> None:
        await brought_to(store, TaskStatus.RUNNING)
        clock.advance(LEASE_SECONDS + 1)
        assert (await store.stats()).expired_leases == 1
        await store.sweep()
        assert (await store.stats()).expired_leases == 0
