"""Contract of a store: purge of tasks that ended long ago."""

from __future__ import annotations

from ops_core.bulk import Count
from ops_core.errors import TaskNotFound
from ops_core.ports import Store, TaskFilter
from ops_core.task import Task
from ops_core.testing.store_contract.examples import (
    COMPLETED,
    OTHER_TENANT,
    REPLIED,
    STARTED,
    TENANT,
    MovableClock,
    claim,
    claimed,
    current,
    raises,
    steps_of,
    submitted,
)


class PurgingContract:
    """What :meth:`~ops_core.ports.Store.purge` promises."""

    async def test_what_ended_long_ago_is_gone_with_all_that_belongs_to_it(
        self, store: Store, clock: MovableClock
    ) -> None:
        old = await claimed(store, STARTED, REPLIED, labels={"team": "blue"}, idempotency_key="once")
        await store.append(old.lease, COMPLETED)
        clock.advance(100)
        young = await claimed(store, STARTED, labels={"team": "blue"})
        await store.append(young.lease, COMPLETED)
        assert await store.purge(100.5) == 0
        assert await store.purgeable(100.5) == Count(tasks=0)
        clock.advance(1)
        ended = (await current(store, old.task)).finished_at
        assert await store.purgeable(100.5) == Count(tasks=1, oldest_at=ended, newest_at=ended)
        assert (await current(store, old.task)).id == old.task.id
        assert await store.purge(100.5) == 1
        assert await store.purgeable(100.5) == Count(tasks=0)
        assert not await store.shrink()  # little is free
        with raises(TaskNotFound):
            await store.get(TENANT, old.task.id)
        with raises(TaskNotFound):
            await store.steps(TENANT, old.task.id)
        found = await store.list(TENANT, TaskFilter(label="team=blue"))
        assert [task.id for task in found] == [young.task.id]
        assert await steps_of(store, young.task) == [STARTED, COMPLETED]
        again = await submitted(store, idempotency_key="once")
        assert again.id != old.task.id

    async def test_what_has_not_ended_stays_however_old_it_is(
        self, store: Store, clock: MovableClock
    ) -> None:
        running = await claimed(store, STARTED)
        pending = await submitted(store)
        clock.advance(1e6)
        assert await store.purge(0.0) == 0
        for task in (running.task, pending):
            assert (await current(store, task)).id == task.id

    async def test_the_oldest_go_first_and_no_more_than_asked_for(
        self, store: Store, clock: MovableClock
    ) -> None:
        ended: list[Task] = []
        for tenant in (TENANT, OTHER_TENANT, TENANT):
            await submitted(store, tenant=tenant)
            (one,) = await claim(store)
            await store.append(one.lease, COMPLETED)
            ended.append(one.task)
            clock.advance(10)
        assert await store.purge(5.0, limit=2) == 2
        assert (await current(store, ended[2])).id == ended[2].id
        assert await store.purge(5.0, limit=2) == 1
        assert await store.purge(5.0, limit=2) == 0
