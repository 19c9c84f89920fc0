"""Contract of a store: leases of workers."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from agentkit.transcript.steps import RunStarted
from ops_core.errors import LeaseLost, TransitionRefused
from ops_core.ports import RenewResult, Store
from ops_core.task import FREE_HANDOVERS, Claimed, TaskStatus
from ops_core.testing.store_contract.examples import (
    AGENT,
    ASKED,
    CALLED,
    COMPLETED,
    GIVEN,
    LATER,
    LEASE_SECONDS,
    OTHER_TENANT,
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
)


class ClaimingContract:
    """What :meth:`~ops_core.ports.Store.claim` promises."""

    async def test_a_claim_gives_a_lease(self, store: Store) -> None:
        task = await submitted(store)
        (one,) = await store.claim("me", 10, 20.0, [AGENT])
        assert (one.lease.task_id, one.lease.tenant, one.lease.owner) == (task.id, TENANT, "me")
        assert one.task == await current(store, task)
        assert (one.task.status, one.task.attempt) == (TaskStatus.RUNNING, 1)
        assert (one.task.lease_owner, one.lease.epoch) == ("me", one.task.epoch)
        assert one.task.lease_until == one.task.updated_at + 20
        assert one.task.started_at == one.task.updated_at
        assert one.seconds_left is None

    async def test_the_first_claim_records_that_the_run_begins(self, store: Store) -> None:
        task = await submitted(store)
        (first,) = await claim(store)
        assert first.begun is not None
        assert first.begun.step == RunStarted(run_id=task.id, agent=task.agent, input=task.input)
        assert (first.begun.seq, first.begun.at) == (0, first.task.updated_at)
        assert list(await store.steps(TENANT, task.id)) == [first.begun]
        await store.release(first.lease)
        (second,) = await claim(store)
        assert (second.begun, second.task.steps) == (None, 1)
        assert list(await store.steps(TENANT, task.id)) == [first.begun]

    async def test_each_task_is_claimed_once_by_many_at_a_time(self, store: Store) -> None:
        wanted = {(await submitted(store)).id for _ in range(60)}
        taken: list[Claimed] = []

        async def work(number: int) -> None:
            while some := await claim(store, owner=f"worker-{number}", slots=1 + number % 4):
                taken.extend(some)
                await asyncio.sleep(0)

        await asyncio.gather(*(work(number) for number in range(16)))
        assert len(taken) == 60
        assert {one.task.id for one in taken} == wanted
        for one in taken:
            assert (await current(store, one.task)).lease_owner == one.lease.owner

    async def test_only_as_many_as_there_are_slots(self, store: Store) -> None:
        for _ in range(5):
            await submitted(store)
        assert len(await claim(store, slots=0)) == 0
        assert len(await claim(store, slots=2)) == 2
        assert len(await claim(store, slots=10)) == 3
        assert len(await claim(store, slots=10)) == 0

    async def test_only_the_given_agents(self, store: Store) -> None:
        mine, other = await submitted(store), await submitted(store, agent="somebody")
        assert await claim(store, agents=()) == []
        assert [one.task.id for one in await claim(store, agents=("nobody", AGENT))] == [mine.id]
        assert [one.task.id for one in await claim(store, agents=["somebody"])] == [other.id]

    async def test_none_but_the_given_ids(self, store: Store) -> None:
        tasks = [await submitted(store) for _ in range(3)]
        assert await store.claim("me", 10, 20.0, [AGENT], ()) == []
        some = await store.claim("me", 10, 20.0, [AGENT], {tasks[1].id, "no such id"})
        assert [one.task.id for one in some] == [tasks[1].id]
        assert len(await store.claim("me", 10, 20.0, [AGENT], None)) == 2

    async def test_priority_first_then_what_is_due_longest(self, store: Store, clock: MovableClock) -> None:
        low = await submitted(store, priority=-1)
        clock.advance(1)
        second = await submitted(store)
        third = await submitted(store)
        first = await submitted(store, run_at=second.created_at - 1)
        high = await submitted(store, priority=5)
        order = [one.task.id for one in await claim(store)]
        assert order == [task.id for task in (high, first, second, third, low)]

    async def test_slots_go_to_the_most_urgent(self, store: Store) -> None:
        tasks = {priority: await submitted(store, priority=priority) for priority in (1, 3, 2)}
        for priority in (3, 2, 1):
            (one,) = await claim(store, slots=1)
            assert one.task.id == tasks[priority].id

    async def test_not_before_its_time(self, store: Store, clock: MovableClock) -> None:
        moment = (await submitted(store, agent="somebody")).created_at
        task = await submitted(store, run_at=moment + 10)
        clock.advance(9)
        assert await claim(store) == []
        clock.advance(1)
        assert [one.task.id for one in await claim(store)] == [task.id]

    async def test_every_claim_raises_the_epoch(self, store: Store) -> None:
        one = await claimed(store)
        epochs = [one.lease.epoch]
        for _ in range(3):
            await store.release(one.lease)
            one = await claimed_again(store, one.task.id)
            epochs.append(one.lease.epoch)
        assert epochs == sorted(set(epochs))

    async def test_the_deadline_begins_with_the_first_claim(self, store: Store, clock: MovableClock) -> None:
        await submitted(store, timeout_seconds=60.0)
        clock.advance(5)
        (one,) = await claim(store)
        assert one.task.deadline_at == one.task.updated_at + 60
        assert one.seconds_left == 60
        await store.release(one.lease)
        clock.advance(20)
        (again,) = await claim(store)
        assert (again.task.started_at, again.task.deadline_at) == (one.task.started_at, one.task.deadline_at)
        assert again.seconds_left == 40

    # --- attempts -------------------------------------------------------------------------------------------------

    async def test_a_hand_over_is_no_attempt(self, store: Store) -> None:
        one = await claimed(store)
        for _ in range(3):
            await store.release(one.lease)
            assert (await current(store, one.task)).attempt == 0
            one = await claimed_again(store, one.task.id)
        assert one.task.attempt == 1

    async def test_hand_overs_without_progress_are_not_forgiven_for_ever(
        self, store: Store, clock: MovableClock
    ) -> None:
        """A task that has its workers stopped, each time before it records anything, is given up like one that kills
        them; until then it is put off, so that others have their turn.
        """
        one = await claimed(store, max_attempts=2)
        handovers = 0
        while True:
            await store.release(one.lease)
            handovers += 1
            task = await current(store, one.task)
            if task.status.terminal:
                break
            if handovers > FREE_HANDOVERS:
                assert await claim(store) == []
                clock.advance(60)
            one = await claimed_again(store, one.task.id)
        assert handovers == FREE_HANDOVERS + 2
        assert task.error is not None
        assert (task.error.code, task.status) == ("worker_lost", TaskStatus.FAILED)
        assert "7 times in a row" in task.error.message

    async def test_hand_overs_between_which_there_is_progress_are_forgiven(self, store: Store) -> None:
        one = await claimed(store, STARTED, max_attempts=1)
        for number in range(3 * FREE_HANDOVERS):
            if number % FREE_HANDOVERS == 0:
                await store.append(one.lease, REPLIED)
            await store.release(one.lease)
            assert (await current(store, one.task)).attempt == 0
            one = await claimed_again(store, one.task.id)

    async def test_what_is_tried_later_counts(self, store: Store, clock: MovableClock) -> None:
        one = await claimed(store, STARTED)
        for attempt in (1, 2, 3):
            assert one.task.attempt == attempt
            await store.release(one.lease, LATER)
            clock.advance(10)
            one = await claimed_again(store, one.task.id)

    async def test_what_made_progress_before_it_is_tried_later_does_not_count(
        self, store: Store, clock: MovableClock
    ) -> None:
        one = await claimed(store, STARTED)
        for _ in range(3):
            assert one.task.attempt == 1
            await store.append(one.lease, REPLIED)
            await store.release(one.lease, LATER)
            clock.advance(10)
            one = await claimed_again(store, one.task.id)

    async def test_what_is_left_to_others_does_not_count(self, store: Store, clock: MovableClock) -> None:
        one = await claimed(store, STARTED)
        for _ in range(3):
            assert one.task.attempt == 1
            await store.release(one.lease, replace(LATER, counted=False))
            assert await claim(store) == []
            clock.advance(10)
            one = await claimed_again(store, one.task.id)

    async def test_going_on_after_an_answer_is_no_attempt(self, store: Store) -> None:
        one = await claimed(store, STARTED, CALLED, ASKED)
        await store.wait(one.lease, 3)
        assert await store.answer(TENANT, one.task.id, GIVEN, 3)
        again = await claimed_again(store, one.task.id)
        assert again.task.attempt == 1


class FencingContract:
    """A write under a lease that is no longer the task's changes nothing and raises LeaseLost."""

    async def assert_refused(self, store: Store, stale: Claimed) -> None:
        """All writes under this lease are refused."""
        before, steps = await current(store, stale.task), await steps_of(store, stale.task)
        for write in held_writes(store, stale.lease).values():
            with raises(LeaseLost, stale.task.id):
                await write()
        assert await store.renew([stale.lease], 99.0) == RenewResult(lost=frozenset({stale.lease}))
        assert await current(store, stale.task) == before
        assert await steps_of(store, stale.task) == steps

    async def test_after_another_worker_took_over(self, store: Store, clock: MovableClock) -> None:
        stale = await claimed(store, STARTED)
        clock.advance(LEASE_SECONDS + 1)
        await store.sweep()
        again = await claimed_again(store, stale.task.id)
        await self.assert_refused(store, stale)
        await store.append(again.lease, REPLIED)

    async def test_after_the_same_worker_took_over(self, store: Store) -> None:
        stale = await claimed(store)
        await store.release(stale.lease)
        await claimed_again(store, stale.task.id)
        await self.assert_refused(store, stale)

    async def test_after_the_sweeper_took_the_task(self, store: Store, clock: MovableClock) -> None:
        stale = await claimed(store)
        clock.advance(LEASE_SECONDS + 1)
        assert (await store.sweep()).released == (stale.task.id,)
        await self.assert_refused(store, stale)

    async def test_in_every_status_but_running(self, store: Store) -> None:
        for status in TaskStatus:
            if status is not TaskStatus.RUNNING:
                stale = await brought_to(store, status)
                await self.assert_refused(store, stale)
                await store.cancel(TENANT, stale.task.id)

    async def test_under_an_epoch_that_is_yet_to_come(self, store: Store) -> None:
        one = await claimed(store)
        for epoch in (one.lease.epoch + 1, 0, -1):
            await self.assert_refused(store, replace(one, lease=replace(one.lease, epoch=epoch)))

    async def test_under_another_tenant(self, store: Store) -> None:
        one = await claimed(store)
        await self.assert_refused(store, replace(one, lease=replace(one.lease, tenant=OTHER_TENANT)))

    async def test_a_lease_that_ran_out_still_holds_until_somebody_takes_the_task(
        self, store: Store, clock: MovableClock
    ) -> None:
        one = await claimed(store, STARTED)
        clock.advance(LEASE_SECONDS * 10)
        await store.append(one.lease, REPLIED)
        assert (await store.renew([one.lease], LEASE_SECONDS)).lost == frozenset()
        assert (await store.sweep()).released == ()


class RenewingContract:
    """What :meth:`~ops_core.ports.Store.renew` and ``release`` promise."""

    async def test_a_renewed_lease_is_left_alone(self, store: Store, clock: MovableClock) -> None:
        one = await claimed(store)
        for _ in range(4):
            clock.advance(LEASE_SECONDS - 1)
            assert await store.renew([one.lease], LEASE_SECONDS) == RenewResult()
            assert (await store.sweep()).released == ()

    async def test_the_answer_tells_each_lease_apart(self, store: Store, clock: MovableClock) -> None:
        kept = await claimed(store)
        ended = await claimed(store)
        asked = await claimed(store)
        await store.append(ended.lease, COMPLETED)
        await store.cancel(TENANT, asked.task.id)
        leases = [one.lease for one in (kept, ended, asked)]
        expected = RenewResult(lost=frozenset({ended.lease}), cancelled=frozenset({asked.lease}))
        assert await store.renew(leases, LEASE_SECONDS) == expected
        assert await store.renew([], LEASE_SECONDS) == RenewResult()

    async def test_released_is_due_at_once(self, store: Store) -> None:
        one = await claimed(store)
        await store.release(one.lease)
        task = await current(store, one.task)
        assert (task.status, task.lease_owner, task.lease_until) == (TaskStatus.PENDING, None, None)
        assert len(await claim(store)) == 1

    async def test_released_for_later_is_due_later_and_says_why(
        self, store: Store, clock: MovableClock
    ) -> None:
        one = await claimed(store)
        await store.release(one.lease, LATER)
        task = await current(store, one.task)
        assert (task.status, task.error) == (TaskStatus.PENDING, LATER.error)
        clock.advance(9.9)
        assert await claim(store) == []
        clock.advance(0.2)
        (again,) = await claim(store)
        assert (await current(store, again.task)).error == LATER.error
        await store.append(again.lease, COMPLETED)
        assert (await current(store, again.task)).error is None


class AnsweringContract:
    """What :meth:`~ops_core.ports.Store.wait` and ``answer`` promise."""

    async def test_a_waiting_task_holds_no_worker_and_is_not_due(
        self, store: Store, clock: MovableClock
    ) -> None:
        one = await brought_to(store, TaskStatus.WAITING)
        task = await current(store, one.task)
        assert (task.lease_owner, task.lease_until, task.run_after) == (None, None, None)
        clock.advance(1e6)
        assert await claim(store) == []
        assert not (await store.sweep()).due

    async def test_an_answer_makes_it_due(self, store: Store) -> None:
        one = await brought_to(store, TaskStatus.WAITING)
        assert await store.answer(TENANT, one.task.id, GIVEN, 3)
        again = await claimed_again(store, one.task.id)
        assert await steps_of(store, again.task) == [STARTED, CALLED, ASKED, GIVEN]

    async def test_an_answer_before_the_worker_waits_makes_it_due(self, store: Store) -> None:
        one = await claimed(store, STARTED, CALLED, ASKED)
        assert await store.answer(TENANT, one.task.id, GIVEN, 3)
        await store.wait(one.lease, 3)
        assert (await current(store, one.task)).status is TaskStatus.WAITING
        await claimed_again(store, one.task.id)

    async def test_an_answer_while_the_worker_goes_on_takes_its_place_among_the_steps(
        self, store: Store
    ) -> None:
        one = await claimed(store, STARTED, CALLED, ASKED)
        assert await store.answer(TENANT, one.task.id, GIVEN, 3)
        assert (await store.append(one.lease, REPLIED)).seq == 4
        assert await steps_of(store, one.task) == [STARTED, CALLED, ASKED, GIVEN, REPLIED]

    async def test_an_answer_while_nobody_holds_the_task(self, store: Store, clock: MovableClock) -> None:
        one = await claimed(store, STARTED, CALLED, ASKED)
        await store.release(one.lease, LATER)
        assert await store.answer(TENANT, one.task.id, GIVEN, 3)
        assert await claim(store) == [], "the answer cut the delay short"
        clock.advance(10)
        again = await claimed_again(store, one.task.id)
        assert await steps_of(store, again.task) == [STARTED, CALLED, ASKED, GIVEN]

    async def test_an_answer_that_has_not_seen_all_steps_is_not_recorded(self, store: Store) -> None:
        one = await brought_to(store, TaskStatus.WAITING)
        for seen in (0, 2, 4):
            assert not await store.answer(TENANT, one.task.id, GIVEN, seen)
        assert len(await steps_of(store, one.task)) == 3
        assert (await current(store, one.task)).run_after is None

    async def test_one_of_many_answers_at_once_is_recorded(self, store: Store) -> None:
        one = await brought_to(store, TaskStatus.WAITING)
        accepted = await at_once(*(store.answer(TENANT, one.task.id, GIVEN, 3) for _ in range(8)))
        assert sorted(accepted) == [False] * 7 + [True]
        assert len(await steps_of(store, one.task)) == 4

    async def test_an_answer_after_the_end_is_refused(self, store: Store) -> None:
        for status in (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED):
            one = await brought_to(store, status)
            for seen in (3, 4):
                with raises(TransitionRefused, status):
                    await store.answer(TENANT, one.task.id, GIVEN, seen)
