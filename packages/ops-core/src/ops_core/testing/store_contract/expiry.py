"""Contract of a store: tasks that are not started in time."""

from __future__ import annotations

from ops_core.ports import Store, TaskFilter
from ops_core.task import EXPIRED, InThread, TaskStatus, expired
from ops_core.testing.store_contract.examples import (
    STARTED,
    TENANT,
    MovableClock,
    claim,
    current,
    steps_of,
    submitted,
)


class ExpiringContract:
    """What ``expires_seconds`` of a new task promises."""

    async def test_a_task_that_was_not_started_in_time_never_is(
        self, store: Store, clock: MovableClock
    ) -> None:
        task = await submitted(store, expires_seconds=60.0)
        assert task.expires_at == task.created_at + 60
        assert (await current(store, task)).expires_at == task.expires_at
        clock.advance(60)
        assert await claim(store) == []  # also before anybody has swept
        clock.advance(1)
        assert (await store.sweep()).ended == (task.id,)
        ended = await current(store, task)
        assert ended.status is TaskStatus.FAILED
        assert ended.error is not None
        assert ended.error.code == EXPIRED
        assert ended.started_at is None
        assert await steps_of(store, task) == [expired()]
        assert [each.status for each in await store.list(TENANT, TaskFilter())] == [TaskStatus.FAILED]
        assert (await store.sweep()).ended == ()

    async def test_one_that_was_started_does_not_expire(self, store: Store, clock: MovableClock) -> None:
        await submitted(store, expires_seconds=60.0)
        clock.advance(59)
        (one,) = await claim(store)
        assert (one.task.deadline_at, one.task.expires_at, one.seconds_left) == (None, None, None)
        await store.release(one.lease)
        clock.advance(1000)
        assert (await store.sweep()).ended == ()
        (again,) = await claim(store)
        assert again.task.id == one.task.id

    async def test_its_time_to_end_begins_with_its_start(self, store: Store, clock: MovableClock) -> None:
        await submitted(store, expires_seconds=60.0, timeout_seconds=10.0)
        clock.advance(50)
        (one,) = await claim(store)
        assert one.seconds_left == 10
        await store.release(one.lease)
        clock.advance(11)
        assert (await store.sweep()).ended == (one.task.id,)
        error = (await current(store, one.task)).error
        assert error is not None
        assert error.code == "timeout"

    async def test_it_counts_from_the_moment_at_which_a_task_may_run(
        self, store: Store, clock: MovableClock
    ) -> None:
        moment = (await submitted(store)).created_at
        assert len(await claim(store)) == 1
        task = await submitted(store, run_at=moment + 100, expires_seconds=10.0)
        assert task.expires_at == moment + 110
        clock.advance(105)
        assert [one.task.id for one in await claim(store)] == [task.id]

    async def test_those_that_expired_hide_nothing_that_is_due(
        self, store: Store, clock: MovableClock
    ) -> None:
        for _ in range(3):
            await submitted(store, expires_seconds=5.0)
        clock.advance(6)
        task = await submitted(store)
        assert [one.task.id for one in await claim(store, slots=1)] == [task.id]
        swept = await store.sweep(limit=2)
        assert (len(swept.ended), swept.more) == (2, True)
        swept = await store.sweep(limit=2)
        assert (len(swept.ended), swept.more, swept.due) == (1, False, False)

    async def test_the_next_task_of_its_thread_has_its_turn(self, store: Store, clock: MovableClock) -> None:
        first = await submitted(store, thread=InThread(id="chat"), expires_seconds=5.0)
        third = await submitted(store, thread=InThread(id="chat"), expires_seconds=5.0)
        last = await submitted(store, thread=InThread(id="chat"))
        clock.advance(6)
        assert set((await store.sweep()).ended) == {first.id, third.id}
        assert [one.task.id for one in await claim(store)] == [last.id]

    async def test_a_retry_does_not_expire(self, store: Store, clock: MovableClock) -> None:
        task = await submitted(store, expires_seconds=5.0)
        clock.advance(6)
        await store.sweep()
        again = (await store.retry(TENANT, task.id)).task
        assert again.expires_at is None
        clock.advance(1000)
        assert (await store.sweep()).ended == ()
        (one,) = await claim(store)
        assert one.task.id == again.id
        assert STARTED not in await steps_of(store, task)
