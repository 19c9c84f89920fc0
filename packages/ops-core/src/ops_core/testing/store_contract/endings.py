"""Contract of a store: endings of tasks, and tasks of lost workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from agentkit.budget.limits import Limits
from agentkit.messages import Usage
from agentkit.transcript.steps import Finished, RunRetried, RunStarted, open_calls
from ops_core.errors import IdempotencyConflict, OpsError, TransitionRefused
from ops_core.ports import Store, SweepTerms
from ops_core.task import TaskStatus
from ops_core.testing.store_contract.examples import (
    AGENT,
    ASKED,
    BEGUN,
    CALLED,
    CANCELLED,
    COMPLETED,
    FAILED,
    GIVEN,
    LEASE_SECONDS,
    REPLIED,
    STARTED,
    TENANT,
    MovableClock,
    at_once,
    brought_to,
    claim,
    claimed,
    claimed_again,
    current,
    held_writes,
    raises,
    steps_of,
    submitted,
    uses_of_a_tenant,
)

TERMINAL = tuple(status for status in TaskStatus if status.terminal)


class FinishingContract:
    """What :meth:`~ops_core.ports.Store.finish` and ``cancel`` promise."""

    async def test_the_last_step_and_the_status_are_one(self, store: Store) -> None:
        for step in (COMPLETED, FAILED, CANCELLED):
            one = await claimed(store, STARTED)
            recorded = await store.append(one.lease, step)
            task = await current(store, one.task)
            assert (task.status, task.output, task.error) == (step.status, step.output, step.error)
            assert task.finished_at == task.updated_at == recorded.at
            assert (task.lease_owner, task.lease_until, task.run_after) == (None, None, None)
            assert await steps_of(store, task) == [STARTED, step]
            assert await claim(store) == []

    async def test_an_output_of_null_is_an_output(self, store: Store) -> None:
        one = await claimed(store)
        await store.append(one.lease, Finished(status="completed"))
        assert (await current(store, one.task)).status is TaskStatus.COMPLETED

    async def test_cancel_ends_what_no_worker_holds(self, store: Store) -> None:
        for status in (TaskStatus.PENDING, TaskStatus.WAITING):
            one = await brought_to(store, status)
            task = await store.cancel(TENANT, one.task.id)
            assert task == await current(store, one.task)
            assert (task.status, task.run_after) == (TaskStatus.CANCELLED, None)
            assert task.finished_at == task.updated_at
            assert await steps_of(store, task) == [STARTED, CALLED, ASKED, CANCELLED]
            assert await claim(store) == []

    async def test_cancel_of_a_task_that_never_ran_is_recorded_too(self, store: Store) -> None:
        task = await store.cancel(TENANT, (await submitted(store)).id)
        assert await steps_of(store, task) == [CANCELLED]

    async def test_cancel_asks_the_worker_of_a_running_task(self, store: Store) -> None:
        one = await claimed(store, STARTED)
        for _ in range(2):
            task = await store.cancel(TENANT, one.task.id)
            assert (task.status, task.cancel_requested) == (TaskStatus.RUNNING, True)
        await store.append(one.lease, REPLIED)
        await store.append(one.lease, CANCELLED)
        assert await steps_of(store, one.task) == [STARTED, REPLIED, CANCELLED]

    async def test_a_worker_reads_with_each_step_that_cancellation_is_requested(self, store: Store) -> None:
        one, other = await claimed(store, STARTED), await claimed(store, STARTED)
        assert not (await store.append_all(one.lease, [REPLIED])).cancel_requested
        await store.cancel(TENANT, one.task.id)
        appended = await asyncio.gather(
            *(store.append_all(each.lease, [REPLIED]) for each in (one, other, one, other))
        )
        assert [each.cancel_requested for each in appended] == [True, False, True, False]

    async def test_a_worker_that_lets_a_task_go_instead_of_cancelling_it_ends_it(self, store: Store) -> None:
        for way in ("wait", "release", "release for later"):
            one = await claimed(store, STARTED)
            await store.cancel(TENANT, one.task.id)
            await held_writes(store, one.lease)[way]()
            task = await current(store, one.task)
            assert (task.status, task.lease_owner, task.error) == (TaskStatus.CANCELLED, None, None)
            assert await steps_of(store, task) == [STARTED, CANCELLED]

    async def test_cancel_leaves_what_has_ended(self, store: Store) -> None:
        for status in TERMINAL:
            one = await brought_to(store, status)
            before = await current(store, one.task)
            assert await store.cancel(TENANT, one.task.id) == before

    async def test_nothing_changes_what_has_ended(self, store: Store, clock: MovableClock) -> None:
        for status in TERMINAL:
            one = await brought_to(store, status)
            before, steps = await current(store, one.task), await steps_of(store, one.task)
            clock.advance(LEASE_SECONDS * 2)
            attempts: dict[str, Callable[[], Awaitable[object]]] = {
                **held_writes(store, one.lease),
                **uses_of_a_tenant(store, TENANT, one.task.id),
                "renew": partial(store.renew, [one.lease], 60.0),
                "answer as seen": partial(store.answer, TENANT, one.task.id, GIVEN, 4),
                "sweep": store.sweep,
                "claim": partial(claim, store),
            }
            for name, attempt in attempts.items():
                with suppress(OpsError):
                    await attempt()
                now = await current(store, one.task)
                assert replace(now, retried_as=None) == before, name
                assert await steps_of(store, one.task) == steps, name


class RetryingContract:
    """What :meth:`~ops_core.ports.Store.retry` promises."""

    async def test_a_new_task_goes_on_with_the_steps(self, store: Store) -> None:
        for ending in (FAILED, CANCELLED):
            one = await claimed(
                store, STARTED, REPLIED, labels={"team": "search"}, priority=4, max_attempts=2,
                timeout_seconds=60.0, budget=Limits(tokens=100), input={"n": 3},
            )  # fmt: skip
            await store.append(one.lease, ending)
            new = (await store.retry(TENANT, one.task.id)).task
            assert new.id > one.task.id
            first, *others = await steps_of(store, new)
            assert first == RunStarted(run_id=one.task.id, agent=AGENT, input={"n": 3})
            assert others == [REPLIED, RunRetried(of=one.task.id, was=ending.status)]
            assert (new.status, new.labels, new.priority, new.max_attempts) == (
                TaskStatus.PENDING, {"team": "search"}, 4, 2,
            )  # fmt: skip
            assert (new.input, new.timeout_seconds, new.budget) == ({"n": 3}, 60.0, Limits(tokens=100))
            assert (new.attempt, new.error, new.output, new.deadline_at) == (0, None, None, None)
            assert (new.model_calls, new.tokens) == (0, Usage())
            again = await claimed_again(store, new.id)
            assert again.begun is None
            assert (await store.append(again.lease, REPLIED)).seq == 3
            await store.append(again.lease, COMPLETED)

    async def test_the_key_stays_with_the_first(self, store: Store) -> None:
        one = await claimed(store, idempotency_key="key", fingerprint="same")
        await store.append(one.lease, FAILED)
        await store.retry(TENANT, one.task.id)
        assert (await submitted(store, idempotency_key="key", fingerprint="same")).id == one.task.id

    async def test_a_task_that_never_began_is_begun(self, store: Store) -> None:
        task = await store.cancel(TENANT, (await submitted(store)).id)
        new = (await store.retry(TENANT, task.id)).task
        assert await steps_of(store, new) == []
        await claimed_again(store, new.id)

    async def test_a_retry_can_be_retried(self, store: Store) -> None:
        one = await brought_to(store, TaskStatus.FAILED)
        second = (await store.retry(TENANT, one.task.id)).task
        again = await claimed_again(store, second.id, REPLIED)
        await store.append(again.lease, FAILED)
        third = (await store.retry(TENANT, second.id)).task
        retried = [step.of for step in await steps_of(store, third) if isinstance(step, RunRetried)]
        assert retried == [one.task.id, second.id]

    async def test_a_task_is_retried_once(self, store: Store) -> None:
        """What it may do once more, one new task may: all who ask, also at the same time, are given that one."""
        one, other, third = [await brought_to(store, TaskStatus.FAILED) for _ in range(3)]
        asked = [store.retry(TENANT, one.task.id, idempotency_key=key) for key in (None, "a", "a", "b")]
        answers = await at_once(*asked)
        assert sorted(answer.created for answer in answers) == [False, False, False, True]
        (new,) = {answer.task.id for answer in answers}
        assert (await current(store, one.task)).retried_as == new
        await store.retry(TENANT, other.task.id, idempotency_key="of the other")
        with raises(IdempotencyConflict):
            await store.retry(TENANT, third.task.id, idempotency_key="of the other")

    async def test_what_was_approved_before_a_cancellation_is_asked_anew(self, store: Store) -> None:
        for ending in (CANCELLED, FAILED):
            one = await claimed(store, STARTED, CALLED, ASKED)
            await store.wait(one.lease, 3)
            assert await store.answer(TENANT, one.task.id, GIVEN, 3)
            again = await claimed_again(store, one.task.id, ending)
            new = (await store.retry(TENANT, again.task.id)).task
            (owed,) = open_calls(await store.steps(TENANT, new.id))
            assert (owed.answer == GIVEN) == (ending is FAILED)
            assert not owed.waiting
            await store.cancel(TENANT, new.id)

    async def test_only_what_failed_or_was_cancelled(self, store: Store) -> None:
        for status in (TaskStatus.RUNNING, TaskStatus.WAITING, TaskStatus.COMPLETED, TaskStatus.PENDING):
            one = await brought_to(store, status)
            with raises(TransitionRefused, status):
                await store.retry(TENANT, one.task.id)


class SweepingContract:
    """What :meth:`~ops_core.ports.Store.sweep` promises."""

    async def test_tasks_of_dead_workers_go_on(self, store: Store, clock: MovableClock) -> None:
        one = await claimed(store)
        clock.advance(LEASE_SECONDS)
        assert (await store.sweep()).released == (), "a lease holds to its last moment"
        clock.advance(0.001)
        swept = await store.sweep()
        assert (swept.released, swept.ended, swept.due) == ((one.task.id,), (), True)
        task = await current(store, one.task)
        assert (task.status, task.lease_owner) == (TaskStatus.PENDING, None)
        assert (await store.sweep()).released == ()
        await claimed_again(store, one.task.id)

    async def test_after_a_standstill_living_workers_have_a_moment_to_renew(
        self, store: Store, clock: MovableClock
    ) -> None:
        """Where nobody could write, no lease could be renewed: whoever sweeps first does not take all of them."""
        terms = SweepTerms(quiet_seconds=LEASE_SECONDS / 3, grace_seconds=LEASE_SECONDS / 2)
        alive, dead = await claimed(store), await claimed(store)
        await store.sweep(terms=terms)
        clock.advance(LEASE_SECONDS * 3)
        assert (await store.sweep(terms=terms)).released == ()
        await store.renew([alive.lease], LEASE_SECONDS)
        clock.advance(LEASE_SECONDS / 4)
        assert (await store.sweep(terms=terms)).released == (), "also for another process"
        clock.advance(LEASE_SECONDS / 4)
        assert (await store.sweep(terms=terms)).released == (dead.task.id,)
        await store.append(alive.lease, COMPLETED)

    async def test_a_worker_that_is_lost_while_others_sweep_is_not_waited_for(
        self, store: Store, clock: MovableClock
    ) -> None:
        terms = SweepTerms(quiet_seconds=LEASE_SECONDS / 3, grace_seconds=LEASE_SECONDS / 2)
        dead = await claimed(store)
        found: list[str] = []
        for _ in range(6):
            found += (await store.sweep(terms=terms)).released
            clock.advance(LEASE_SECONDS / 4)
        assert found == [dead.task.id]

    async def test_the_lease_of_a_process_that_has_ended_is_not_waited_for(self, store: Store) -> None:
        gone, other = await submitted(store), await submitted(store)
        await store.claim("here-7.1-x", 1, LEASE_SECONDS, [AGENT], [gone.id])
        await store.claim("there-8.1-y", 1, LEASE_SECONDS, [AGENT], [other.id])
        assert list(await store.lease_owners("-7.")) == ["here-7.1-x"]
        assert (await store.sweep(terms=SweepTerms(gone=["here-7.1-x"]))).released == (gone.id,)
        assert (await current(store, other)).status is TaskStatus.RUNNING

    async def test_what_is_due_is_counted(self, store: Store, clock: MovableClock) -> None:
        moment = (await submitted(store)).created_at
        await submitted(store, run_at=moment + 5)
        assert (await store.sweep()).due
        clock.advance(5)
        assert (await store.sweep()).due
        await claim(store)
        assert not (await store.sweep()).due

    async def lose(self, store: Store, clock: MovableClock) -> None:
        """Let all workers die."""
        clock.advance(LEASE_SECONDS + 1)
        await store.sweep()

    async def test_a_task_that_kills_its_workers_is_given_up(self, store: Store, clock: MovableClock) -> None:
        one = await claimed(store, STARTED, max_attempts=3)
        for attempt in (1, 2):
            assert one.task.attempt == attempt
            await self.lose(store, clock)
            one = await claimed_again(store, one.task.id)
        clock.advance(LEASE_SECONDS + 1)
        assert (await store.sweep()).ended == (one.task.id,)
        task = await current(store, one.task)
        assert task.status is TaskStatus.FAILED
        assert task.error is not None
        assert task.error.code == "worker_lost"
        assert await steps_of(store, task) == [STARTED, Finished(status="failed", error=task.error)]
        assert await claim(store) == []

    async def test_a_call_that_kills_its_workers_is_given_up(self, store: Store, clock: MovableClock) -> None:
        one = await claimed(store, STARTED, CALLED, BEGUN, max_attempts=3)
        for attempt in (1, 2, 3):  # the first attempt has recorded the model's reply
            await self.lose(store, clock)
            one = await claimed_again(store, one.task.id, BEGUN)
            assert one.task.attempt == attempt
        clock.advance(LEASE_SECONDS + 1)
        assert (await store.sweep()).ended == (one.task.id,)

    async def test_one_attempt_is_one_attempt(self, store: Store, clock: MovableClock) -> None:
        one = await claimed(store, STARTED, max_attempts=1)
        await self.lose(store, clock)
        assert (await current(store, one.task)).status is TaskStatus.FAILED

    async def test_an_attempt_that_made_progress_is_not_held_against_it(
        self, store: Store, clock: MovableClock
    ) -> None:
        one = await claimed(store, STARTED, max_attempts=2)
        for _ in range(5):
            await store.append(one.lease, REPLIED)
            await self.lose(store, clock)
            one = await claimed_again(store, one.task.id)
            assert one.task.attempt == 1

    async def test_a_cancelled_task_of_a_dead_worker_ends(self, store: Store, clock: MovableClock) -> None:
        one = await claimed(store, STARTED)
        await store.cancel(TENANT, one.task.id)
        clock.advance(LEASE_SECONDS + 1)
        assert (await store.sweep()).ended == (one.task.id,)
        assert (await current(store, one.task)).status is TaskStatus.CANCELLED
        assert await steps_of(store, one.task) == [STARTED, CANCELLED]

    async def test_a_task_out_of_time_fails_whoever_held_it(self, store: Store, clock: MovableClock) -> None:
        running = await claimed(store, timeout_seconds=100.0)
        waiting = await claimed(store, timeout_seconds=100.0)
        pending = await claimed(store, timeout_seconds=100.0)
        unhurried = await claimed(store, timeout_seconds=1000.0)
        await store.wait(waiting.lease, 1)
        await store.wait(unhurried.lease, 1)
        await store.release(pending.lease)
        clock.advance(100)
        await store.renew([running.lease], -1.0)
        assert (await store.sweep()).ended == ()
        clock.advance(1)
        late = {one.task.id for one in (running, waiting, pending)}
        swept = await store.sweep()
        assert (set(swept.ended), swept.due) == (late, False)
        for one in (running, waiting, pending):
            task = await current(store, one.task)
            assert task.status is TaskStatus.FAILED
            assert task.error is not None
            assert task.error.code == "timeout"
            assert len(await steps_of(store, task)) == 2

    async def test_a_task_out_of_time_is_left_to_its_living_worker(
        self, store: Store, clock: MovableClock
    ) -> None:
        one = await claimed(store, timeout_seconds=5.0)
        clock.advance(6)
        assert (await store.sweep()).ended == ()
        await store.append(one.lease, FAILED)

    async def test_a_task_that_was_never_started_has_no_deadline(
        self, store: Store, clock: MovableClock
    ) -> None:
        await submitted(store, timeout_seconds=5.0)
        clock.advance(1000)
        swept = await store.sweep()
        assert (swept.ended, swept.due) == ((), True)

    async def test_a_bounded_sweep_goes_on_with_the_next(self, store: Store, clock: MovableClock) -> None:
        for _ in range(5):
            await submitted(store)
        await claim(store)
        clock.advance(LEASE_SECONDS + 1)
        assert [len((await store.sweep(limit=2)).released) for _ in range(4)] == [2, 2, 1, 0]
