"""Contract of a store: verbs on many tasks at once."""

from __future__ import annotations

from ops_core.bulk import USUAL, BulkVerb, Count, Outcome, TaskSelection
from ops_core.ports import Store
from ops_core.task import InThread, TaskStatus
from ops_core.testing.store_contract.examples import (
    NO_ID,
    OTHER_TENANT,
    TENANT,
    MovableClock,
    brought_to,
    current,
    submitted,
)

CANCEL = TaskSelection(verb=BulkVerb.CANCEL, status=USUAL[BulkVerb.CANCEL])
RETRY = TaskSelection(verb=BulkVerb.RETRY, status=USUAL[BulkVerb.RETRY])


class BulkContract:
    """What :class:`~ops_core.ports.BulkStore` promises."""

    async def test_tasks_are_selected_by_all_that_is_given(self, store: Store, clock: MovableClock) -> None:
        old = await submitted(store, labels={"team": "blue"}, agent="a")
        clock.advance(100)
        await submitted(store, agent="a")
        for fields in ({"agent": "b"}, {"tenant": OTHER_TENANT, "agent": "a", "labels": {"team": "blue"}}):
            await submitted(store, **fields)
        only = TaskSelection(
            verb=BulkVerb.CANCEL, status=(TaskStatus.PENDING,), agent="a", label="team=blue", older_seconds=50
        )
        assert await store.select(TENANT, only, 10) == [old.id]
        assert await store.count(TENANT, only) == Count(
            tasks=1, oldest_at=old.created_at, newest_at=old.created_at
        )
        assert (await store.count(TENANT, CANCEL)).tasks == 3
        assert (await store.count(TENANT, RETRY)) == Count(tasks=0)

    async def test_the_newest_are_cancelled_first_and_the_oldest_retried_first(self, store: Store) -> None:
        ids = [(await submitted(store)).id for _ in range(4)]
        assert await store.select(TENANT, CANCEL, 3) == ids[:0:-1]
        after = TaskSelection(verb=BulkVerb.CANCEL, status=CANCEL.status, after=ids[1])
        assert await store.select(TENANT, after, 3) == ids[:1]
        await store.cancel_all(TENANT, ids)
        retry = TaskSelection(verb=BulkVerb.RETRY, status=(TaskStatus.CANCELLED,))
        assert await store.select(TENANT, retry, 3) == ids[:3]
        after = TaskSelection(verb=BulkVerb.RETRY, status=retry.status, after=ids[1])
        assert await store.select(TENANT, after, 3) == ids[2:]

    async def test_each_is_cancelled_or_says_why_not(self, store: Store) -> None:
        completed = await brought_to(store, TaskStatus.COMPLETED)
        waiting = await brought_to(store, TaskStatus.WAITING)
        asked = await brought_to(store, TaskStatus.RUNNING)
        await store.cancel(TENANT, asked.task.id)
        running = await brought_to(store, TaskStatus.RUNNING)
        pending = await submitted(store)
        foreign = await submitted(store, tenant=OTHER_TENANT)
        wanted = {
            completed.task.id: Outcome.ENDED,
            waiting.task.id: Outcome.CANCELLED,
            asked.task.id: Outcome.CANCELLING_BEFORE,
            running.task.id: Outcome.CANCELLING,
            pending.id: Outcome.CANCELLED,
            foreign.id: Outcome.GONE,
            NO_ID: Outcome.GONE,
        }
        assert await store.cancel_all(TENANT, [*wanted]) == wanted
        assert (await current(store, pending)).status is TaskStatus.CANCELLED
        assert (await current(store, waiting.task)).status is TaskStatus.CANCELLED
        assert (await current(store, running.task)).cancel_requested
        assert (await current(store, foreign)).status is TaskStatus.PENDING
        again = await store.cancel_all(TENANT, [running.task.id, pending.id])
        assert [*again.values()] == [Outcome.CANCELLING_BEFORE, Outcome.ENDED]

    async def test_each_is_retried_once_or_says_why_not(self, store: Store) -> None:
        failed = await brought_to(store, TaskStatus.FAILED)
        cancelled = await brought_to(store, TaskStatus.CANCELLED)
        completed = await brought_to(store, TaskStatus.COMPLETED)
        wanted = {
            failed.task.id: Outcome.RETRIED,
            completed.task.id: "transition_refused",
            NO_ID: Outcome.GONE,
            cancelled.task.id: Outcome.RETRIED,
        }
        assert await store.retry_all(TENANT, [*wanted]) == wanted
        assert await store.retry_all(OTHER_TENANT, [failed.task.id]) == {failed.task.id: Outcome.GONE}
        again = await store.retry_all(TENANT, [*wanted])
        assert again[failed.task.id] == again[cancelled.task.id] == Outcome.RETRIED_BEFORE
        successor = (await current(store, failed.task)).retried_as
        assert successor is not None
        assert (await store.get(TENANT, successor)).status is TaskStatus.PENDING

    async def test_a_busy_thread_keeps_its_own_tasks_out_only(self, store: Store) -> None:
        first = await submitted(store, thread=InThread(id="chat"))
        await store.cancel(TENANT, first.id)
        await submitted(store, thread=InThread(id="chat"))
        other = await submitted(store)
        await store.cancel(TENANT, other.id)
        outcomes = await store.retry_all(TENANT, [first.id, other.id], refuse_busy=True)
        assert outcomes == {first.id: "thread_busy", other.id: Outcome.RETRIED}
        assert (await current(store, first)).retried_as is None
