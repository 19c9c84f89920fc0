"""Contract of a store: results that a worker reports after it has lost its lease."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentkit.errors import RunError
from agentkit.messages import Text, ToolCall
from agentkit.transcript.steps import (
    ApprovalAsked,
    ApprovalGiven,
    ModelReplied,
    Settlement,
    ToolReturned,
    ToolStarted,
)
from ops_core.ports import ApprovalFilter, Store
from ops_core.task import MAX_LATE_SHOWN, Claimed, LateResult, Lease, TaskStatus
from ops_core.testing.store_contract.examples import (
    ASKED,
    BEGUN,
    CALLED,
    CANCELLED,
    COMPLETED,
    LEASE_SECONDS,
    NO_ID,
    OTHER_TENANT,
    RETURNED,
    STARTED,
    TENANT,
    MovableClock,
    claim,
    claimed,
    current,
    steps_of,
)


async def lost_in_a_call(store: Store, clock: MovableClock) -> Claimed:
    """A task whose worker was lost in a call, as it had claimed it; it is due."""
    one = await claimed(store, STARTED, CALLED, BEGUN)
    clock.advance(LEASE_SECONDS + 1)
    await store.sweep()
    assert (await current(store, one.task)).status is TaskStatus.PENDING
    return one


async def asked_about(store: Store) -> Claimed:
    """The task that was due waits for an answer about the call."""
    (again,) = await claim(store, owner="worker-2")
    await store.append(again.lease, ASKED)
    await store.wait(again.lease, 4)
    return again


async def late_of(store: Store, task_id: str) -> Sequence[LateResult]:
    return (await store.get(TENANT, task_id)).late_results


class LateResultsContract:
    """What :meth:`~ops_core.ports.Store.attach` promises."""

    async def test_a_late_result_is_told_with_the_question(self, store: Store, clock: MovableClock) -> None:
        lost = await lost_in_a_call(store, clock)
        await asked_about(store)
        steps = await steps_of(store, lost.task)
        before = await current(store, lost.task)
        assert await store.attach(lost.lease, RETURNED)
        after = await current(store, lost.task)
        (late,) = after.late_results
        assert (late.call_id, late.tool, late.worker) == ("call_1", "count", lost.lease.owner)
        assert (late.epoch, late.failed, late.shown) == (lost.lease.epoch, False, "[1,2,3]")
        (approval,) = after.approvals
        assert approval.late_results == (late,)
        (listed,) = await store.approvals(TENANT, ApprovalFilter())
        assert listed == approval
        assert await store.late_result(TENANT, lost.task.id, "call_1") == RETURNED
        # it is no step and changes nothing of the run
        assert await steps_of(store, lost.task) == steps
        assert (after.status, after.epoch, after.updated_at) == (
            before.status,
            before.epoch,
            before.updated_at,
        )

    async def test_a_late_result_may_come_before_the_question(
        self, store: Store, clock: MovableClock
    ) -> None:
        lost = await lost_in_a_call(store, clock)
        assert await store.attach(lost.lease, RETURNED)
        await asked_about(store)
        (approval,) = (await current(store, lost.task)).approvals
        assert [late.shown for late in approval.late_results] == ["[1,2,3]"]

    async def test_a_late_failure_is_kept_as_one(self, store: Store, clock: MovableClock) -> None:
        lost = await lost_in_a_call(store, clock)
        failed = replace(RETURNED, output=None, error=RunError(code="tool_error", message="no \x00 money"))
        assert await store.attach(lost.lease, failed)
        (late,) = await late_of(store, lost.task.id)
        assert (late.failed, late.shown) == (True, "no \x00 money")
        assert await store.late_result(TENANT, lost.task.id, "call_1") == failed

    async def test_only_a_call_that_was_begun_under_the_lease_has_one(
        self, store: Store, clock: MovableClock
    ) -> None:
        lost = await lost_in_a_call(store, clock)
        again = await asked_about(store)
        for lease, returned in (
            (lost.lease, replace(RETURNED, call_id="call_2")),
            (again.lease, RETURNED),
            (replace(lost.lease, epoch=9), RETURNED),
            (replace(lost.lease, task_id=NO_ID), RETURNED),
            (replace(lost.lease, tenant=OTHER_TENANT), RETURNED),
        ):
            assert not await store.attach(lease, returned)
        assert await late_of(store, lost.task.id) == ()
        assert await store.late_result(TENANT, lost.task.id, "call_1") is None

    async def test_what_was_reported_first_stays(self, store: Store, clock: MovableClock) -> None:
        lost = await lost_in_a_call(store, clock)
        assert await store.attach(lost.lease, RETURNED)
        assert await store.attach(lost.lease, replace(RETURNED, output="something else"))
        assert [late.shown for late in await late_of(store, lost.task.id)] == ["[1,2,3]"]

    async def test_each_worker_that_was_lost_reports_its_own(self, store: Store, clock: MovableClock) -> None:
        first = await lost_in_a_call(store, clock)
        again = await asked_about(store)
        await store.answer(TENANT, first.task.id, ApprovalGiven(approval_id="call_1.1", approved=True), 4)
        (second,) = await claim(store, owner="worker-3")
        await store.append(second.lease, BEGUN)
        clock.advance(LEASE_SECONDS + 1)
        await store.sweep()
        assert await store.attach(second.lease, replace(RETURNED, output="second"))
        clock.advance(1)
        assert await store.attach(first.lease, replace(RETURNED, output="first"))
        assert again.lease.epoch < second.lease.epoch
        assert [late.shown for late in await late_of(store, first.task.id)] == ['"second"', '"first"']
        newest = await store.late_result(TENANT, first.task.id, "call_1")
        assert newest is not None
        assert newest.output == "first"

    async def test_a_late_result_outlives_the_answer_and_the_end(
        self, store: Store, clock: MovableClock
    ) -> None:
        lost = await lost_in_a_call(store, clock)
        await asked_about(store)
        known = ApprovalGiven(approval_id="call_1.1", approved=False, settlement=Settlement(output="known"))
        await store.answer(TENANT, lost.task.id, known, 4)
        (again,) = await claim(store)
        await store.append(again.lease, COMPLETED)
        steps = await steps_of(store, lost.task)
        assert await store.attach(lost.lease, RETURNED)
        task = await current(store, lost.task)
        assert (task.status, len(task.late_results)) == (TaskStatus.COMPLETED, 1)
        assert await steps_of(store, lost.task) == steps

    async def test_a_retry_takes_late_results_along(self, store: Store, clock: MovableClock) -> None:
        lost = await lost_in_a_call(store, clock)
        await store.cancel(TENANT, lost.task.id)
        assert (await steps_of(store, lost.task))[-1] == CANCELLED
        assert await store.attach(lost.lease, RETURNED)
        retried = (await store.retry(TENANT, lost.task.id)).task
        assert len(await late_of(store, retried.id)) == 1

    async def test_of_a_retried_task_the_last_one_has_it(self, store: Store, clock: MovableClock) -> None:
        lost = await lost_in_a_call(store, clock)
        await store.cancel(TENANT, lost.task.id)
        retried = (await store.retry(TENANT, lost.task.id)).task
        await store.cancel(TENANT, retried.id)
        last = (await store.retry(TENANT, retried.id)).task
        assert await store.attach(lost.lease, RETURNED)
        assert [len(await late_of(store, each.id)) for each in (lost.task, retried, last)] == [0, 0, 1]

    async def test_long_results_are_shown_in_part_and_kept_whole(
        self, store: Store, clock: MovableClock
    ) -> None:
        lost = await lost_in_a_call(store, clock)
        long = replace(RETURNED, output="x" * 1_000_000)
        assert await store.attach(lost.lease, long)
        (late,) = await late_of(store, lost.task.id)
        assert len(late.shown) == MAX_LATE_SHOWN
        assert await store.late_result(TENANT, lost.task.id, "call_1") == long

    async def test_ids_of_calls_may_be_anything(self, store: Store, clock: MovableClock) -> None:
        strange = "a\x00é" + "b" * 5000
        one = await claimed(
            store,
            STARTED,
            ModelReplied(parts=(Text(text="go"), ToolCall(id=strange, name="count"))),
            ToolStarted(call_id=strange, tool="count"),
        )
        clock.advance(LEASE_SECONDS + 1)
        await store.sweep()
        (again,) = await claim(store)
        asked = ApprovalAsked(approval_id="1", call_id=strange, tool="count", arguments={}, reason="why not")
        await store.append(again.lease, asked)
        await store.wait(again.lease, 4)
        returned = ToolReturned(call_id=strange, tool="count", output="é")
        assert await store.attach(one.lease, returned)
        (approval,) = (await current(store, one.task)).approvals
        assert len(approval.late_results) == 1
        assert await store.late_result(TENANT, one.task.id, strange) == returned

    async def test_purging_a_task_deletes_its_late_results(self, store: Store, clock: MovableClock) -> None:
        lost = await lost_in_a_call(store, clock)
        assert await store.attach(lost.lease, RETURNED)
        await store.cancel(TENANT, lost.task.id)
        clock.advance(10)
        assert await store.purge(1) == 1
        assert not await store.attach(
            Lease(tenant=TENANT, task_id=lost.task.id, owner="x", epoch=lost.lease.epoch), RETURNED
        )
