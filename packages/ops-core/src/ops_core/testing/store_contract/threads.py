"""Contract of a store: threads, whose tasks run one after the other."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from agentkit.budget.limits import Limits
from agentkit.transcript.steps import RunRetried, Turn
from ops_core.errors import InvalidRequest, TaskNotFound, ThreadBusy, ThreadNotFound
from ops_core.ports import Store, TaskFilter, ThreadFilter
from ops_core.task import Claimed, InThread, Task, TaskStatus
from ops_core.testing.store_contract.examples import (
    CANCELLED,
    COMPLETED,
    FAILED,
    LATER,
    LEASE_SECONDS,
    OTHER_TENANT,
    REPLIED,
    STARTED,
    TENANT,
    MovableClock,
    at_once,
    claim,
    current,
    raises,
    steps_of,
    submitted,
)

CHAT = "chat-42"


async def said(store: Store, text: str = "Count.", thread: str = CHAT, **fields: Any) -> Task:
    """A task of a thread that was just submitted."""
    options = {name: fields.pop(name) for name in ("refuse", "seen") if name in fields}
    return await submitted(store, input=text, thread=InThread(id=thread, **options), **fields)


async def turn_of(store: Store, task: Task) -> Claimed:
    """The one task that is due, which must be this one."""
    (one,) = await claim(store)
    assert one.task.id == task.id, (one.task.input, task.input)
    return one


async def completed(store: Store, task: Task) -> None:
    """Claim the one task that is due, and complete it."""
    one = await turn_of(store, task)
    await store.append_all(one.lease, [STARTED, COMPLETED])


class ThreadingContract:
    """What :class:`~ops_core.ports.ThreadStore` promises, and what becomes of tasks that belong to a thread."""

    async def test_a_thread_begins_with_its_first_task(self, store: Store) -> None:
        with raises(ThreadNotFound, CHAT):
            await store.thread(TENANT, CHAT)
        task = await said(store, budget=Limits(steps=7))
        assert task == await current(store, task)
        assert (task.thread_id, task.budget) == (CHAT, Limits(steps=7))
        thread = await store.thread(TENANT, CHAT)
        assert (thread.id, thread.tenant, thread.turns, thread.current) == (CHAT, TENANT, 1, task.id)
        await completed(store, task)
        assert (await store.thread(TENANT, CHAT)).current is None
        assert (await current(store, task)).thread_id == CHAT

    async def test_tasks_of_a_thread_have_their_turn_in_the_order_of_their_submission(
        self, store: Store
    ) -> None:
        tasks = [await said(store, f"{number}", priority=number) for number in range(5)]
        assert [task.run_after is None for task in tasks] == [False, True, True, True, True]
        for task in tasks:
            assert await current(store, task) == task or task is not tasks[0]
            await completed(store, task)
        assert (await store.thread(TENANT, CHAT)).turns == 5
        assert list(await claim(store)) == []

    async def test_those_submitted_at_once_have_their_turns_too(self, store: Store) -> None:
        threads = [f"t{number}" for number in range(4)]
        tasks: list[Task] = await at_once(*(said(store, thread=threads[n % 4]) for n in range(24)))
        order: dict[str, list[str]] = {thread: [] for thread in threads}
        for _round in range(6):
            due = await claim(store)
            assert sorted(one.task.thread_id or "" for one in due) == threads
            for one in due:
                order[one.task.thread_id or ""].append(one.task.id)
            await at_once(*(store.append(one.lease, COMPLETED) for one in due))
        assert sorted(id_ for ids in order.values() for id_ in ids) == sorted(task.id for task in tasks)
        assert list(await claim(store)) == []

    async def test_threads_do_not_wait_for_each_other_nor_for_tasks_without_one(self, store: Store) -> None:
        first = await said(store)
        await said(store, "later")
        other = await said(store, thread="another")
        theirs = await said(store, tenant=OTHER_TENANT)
        free = await submitted(store)
        due = {one.task.id for one in await claim(store)}
        assert due == {first.id, other.id, theirs.id, free.id}

    async def test_whatever_ends_a_task_lets_the_next_one_have_its_turn(
        self, store: Store, clock: MovableClock
    ) -> None:
        tasks = [await said(store, f"{n}", max_attempts=1, timeout_seconds=1e4) for n in range(7)]
        for task, ending in zip(tasks[:3], (COMPLETED, FAILED, CANCELLED), strict=True):
            await store.append((await turn_of(store, task)).lease, ending)
        await store.cancel(TENANT, tasks[3].id)  # nobody holds it
        asked = await turn_of(store, tasks[4])
        await store.cancel(TENANT, tasks[4].id)
        await store.release(asked.lease)  # ends it
        await turn_of(store, tasks[5])
        clock.advance(LEASE_SECONDS + 1)  # its worker is lost, and with it the only attempt
        assert tasks[5].id in (await store.sweep()).ended
        await turn_of(store, tasks[6])
        clock.advance(2e4)
        assert tasks[6].id in (await store.sweep()).ended  # out of time
        assert (await store.thread(TENANT, CHAT)).current is None

    async def test_what_ends_while_it_waits_for_its_turn_is_passed_over(self, store: Store) -> None:
        tasks = [await said(store, f"{number}") for number in range(4)]
        for gone in (tasks[2], tasks[1]):
            assert (await store.cancel(TENANT, gone.id)).status is TaskStatus.CANCELLED
        assert (await store.thread(TENANT, CHAT)).current == tasks[0].id
        await completed(store, tasks[0])
        await completed(store, tasks[3])

    async def test_a_task_that_is_put_off_or_waits_keeps_its_turn(
        self, store: Store, clock: MovableClock
    ) -> None:
        first, second = await said(store, "first"), await said(store, "second")
        one = await turn_of(store, first)
        await store.release(one.lease, LATER)
        assert list(await claim(store)) == []
        clock.advance(11)
        one = await turn_of(store, first)
        await store.append(one.lease, STARTED)
        await store.wait(one.lease, 1)
        assert list(await claim(store)) == []
        await store.cancel(TENANT, first.id)
        await completed(store, second)

    async def test_a_moment_before_which_it_must_not_begin_holds_in_a_thread_too(
        self, store: Store, clock: MovableClock
    ) -> None:
        first = await said(store)
        second = await said(store, run_at=first.created_at + 50)
        third = await said(store, run_at=first.created_at + 1)
        clock.advance(5)
        await completed(store, first)
        assert list(await claim(store)) == []  # the third one waits for the second
        clock.advance(50)
        await completed(store, second)
        await completed(store, third)

    # --- refused --------------------------------------------------------------------------------------------------

    async def test_where_it_is_not_to_wait_a_task_is_refused_and_nothing_is_written(
        self, store: Store
    ) -> None:
        first = await said(store, refuse=True)
        before = await store.thread(TENANT, CHAT)
        for _again in range(2):
            with raises(ThreadBusy, first.id, CHAT):
                await said(store, refuse=True, idempotency_key="key", fingerprint="same")
        assert await store.thread(TENANT, CHAT) == before
        assert [task.id for task in await store.list(TENANT, TaskFilter())] == [first.id]
        await completed(store, first)
        second = await said(store, refuse=True, idempotency_key="key", fingerprint="same")
        again = await said(store, refuse=True, idempotency_key="key", fingerprint="same")
        assert again.id == second.id  # a repeated submit finds its task, also where that is not ended

    async def test_of_many_that_come_at_once_and_do_not_wait_one_is_accepted(self, store: Store) -> None:
        came = await at_once(*(said(store, refuse=True) for _ in range(8)), submitted(store))
        accepted = [one for one in came if isinstance(one, Task)]
        assert [task.thread_id for task in accepted] == [CHAT, None]
        assert sum(isinstance(one, ThreadBusy) for one in came) == 7

    async def test_an_id_that_no_database_takes_is_refused(self, store: Store) -> None:
        for bad in ("", "x" * 129, "\x00", "\ud800"):
            with raises(InvalidRequest, "thread_id"):
                await said(store, thread=bad)

    # --- what is seen ---------------------------------------------------------------------------------------------

    async def test_a_run_is_shown_what_was_asked_and_answered_before(self, store: Store) -> None:
        tasks = [await said(store, f"{number}") for number in range(4)]
        for task, ending in zip(tasks[:3], (COMPLETED, FAILED, CANCELLED), strict=True):
            await store.append((await turn_of(store, task)).lease, ending)
        shown = [
            Turn(input="0", output={"count": 3}),
            Turn(input="1", status="failed"),
            Turn(input="2", status="cancelled"),
        ]
        assert await store.earlier(TENANT, tasks[3].id) == shown
        assert await store.earlier(TENANT, tasks[1].id) == shown[:1]
        assert await store.earlier(TENANT, tasks[0].id) == []
        assert await store.earlier(TENANT, (await submitted(store)).id) == []

    async def test_it_is_shown_the_last_turns_only_and_always_the_same(self, store: Store) -> None:
        tasks = [await said(store, f"{number}", seen=2) for number in range(5)]
        seen: dict[str, Sequence[Turn]] = {}
        for task in tasks:
            seen[task.id] = await store.earlier(TENANT, task.id)
            await completed(store, task)
        assert [[turn.input for turn in turns] for turns in seen.values()] == [
            [], ["0"], ["0", "1"], ["1", "2"], ["2", "3"],
        ]  # fmt: skip
        for task_id, turns in seen.items():
            assert await store.earlier(TENANT, task_id) == turns

    async def test_a_retry_has_the_last_turn_and_is_shown_what_the_first_one_was_shown(
        self, store: Store
    ) -> None:
        tasks = [await said(store, f"{number}") for number in range(3)]
        await completed(store, tasks[0])
        one = await turn_of(store, tasks[1])
        for step in (STARTED, REPLIED, FAILED):
            await store.append(one.lease, step)
        with raises(ThreadBusy):
            await store.retry(TENANT, tasks[1].id, refuse_busy=True)
        again = (await store.retry(TENANT, tasks[1].id)).task
        assert (again.thread_id, again.run_after) == (CHAT, None)
        assert await store.earlier(TENANT, again.id) == await store.earlier(TENANT, tasks[1].id)
        await completed(store, tasks[2])
        assert await steps_of(store, again) == [STARTED, REPLIED, RunRetried(of=tasks[1].id)]
        await completed(store, again)
        after = await said(store, "after")
        assert [turn.input for turn in await store.earlier(TENANT, after.id)] == ["0", "1", "2", "1"]

    # --- looking and forgetting -----------------------------------------------------------------------------------

    async def test_threads_are_listed_by_what_happened_last_page_by_page(
        self, store: Store, clock: MovableClock
    ) -> None:
        for name in "abcde":
            await said(store, thread=name)
            clock.advance(1)
        await said(store, thread="b")
        seen: list[str] = []
        before = None
        while page := await store.threads(TENANT, ThreadFilter(limit=2, before=before)):
            seen += [thread.id for thread in page]
            before = (page[-1].updated_at, page[-1].id)
        assert seen == ["b", "e", "d", "c", "a"]
        listed = await store.list(TENANT, TaskFilter(thread="b"))
        assert [task.thread_id for task in listed] == ["b", "b"]
        assert await store.list(TENANT, TaskFilter(thread="nothing")) == []

    async def test_a_tenant_sees_and_touches_no_thread_of_another(self, store: Store) -> None:
        mine = await said(store, "mine")
        await completed(store, mine)
        theirs = await said(store, "theirs", tenant=OTHER_TENANT)
        assert await store.earlier(OTHER_TENANT, theirs.id) == []
        assert await store.earlier(OTHER_TENANT, mine.id) == []
        assert (await store.thread(OTHER_TENANT, CHAT)).current == theirs.id
        assert [task.id for task in await store.list(OTHER_TENANT, TaskFilter(thread=CHAT))] == [theirs.id]
        await store.cancel(OTHER_TENANT, theirs.id)
        assert await store.forget_thread(OTHER_TENANT, CHAT) == 1
        assert (await store.thread(TENANT, CHAT)).turns == 1
        assert (await current(store, mine)).status is TaskStatus.COMPLETED
        for odd in (CHAT, "'; DROP TABLE thread; --", "\x00", ""):
            with raises(ThreadNotFound):
                await store.thread("nobody", odd)
            with raises(ThreadNotFound):
                await store.forget_thread("nobody", odd)
        assert await store.threads("nobody", ThreadFilter()) == []

    async def test_a_forgotten_thread_is_gone_with_its_tasks(self, store: Store) -> None:
        tasks = [await said(store, f"{n}", labels={"of": "chat"}, idempotency_key=f"{n}") for n in range(3)]
        kept = await said(store, thread="kept", labels={"of": "chat"})
        await store.cancel(TENANT, kept.id)
        await completed(store, tasks[0])
        with raises(ThreadBusy, tasks[1].id):
            await store.forget_thread(TENANT, CHAT)
        await completed(store, tasks[1])
        await store.cancel(TENANT, tasks[2].id)
        assert await store.forget_thread(TENANT, CHAT) == 3
        for task in tasks:
            with raises(TaskNotFound):
                await current(store, task)
            with raises(TaskNotFound):
                await store.steps(TENANT, task.id)
        with raises(ThreadNotFound):
            await store.thread(TENANT, CHAT)
        assert [task.id for task in await store.list(TENANT, TaskFilter(label="of=chat"))] == [kept.id]
        fresh = await said(store, idempotency_key="0")
        assert await store.earlier(TENANT, fresh.id) == []
        assert (await store.thread(TENANT, CHAT)).turns == 1

    async def test_nothing_that_a_run_is_shown_is_purged_while_it_has_not_ended(
        self, store: Store, clock: MovableClock
    ) -> None:
        tasks = [await said(store, f"{number}") for number in range(2)]
        await completed(store, tasks[0])
        one = await turn_of(store, tasks[1])
        clock.advance(1e6)
        assert await store.purge(0.0) == 0
        assert len(await store.earlier(TENANT, tasks[1].id)) == 1
        await store.append(one.lease, COMPLETED)
        clock.advance(10)
        later = await said(store, thread="later")
        assert await store.purge(5.0) == 2
        with raises(ThreadNotFound):
            await store.thread(TENANT, CHAT)
        assert (await store.thread(TENANT, "later")).current == later.id

    async def test_a_thread_of_which_a_part_is_purged_goes_on_with_the_rest(
        self, store: Store, clock: MovableClock
    ) -> None:
        for number in range(2):
            await completed(store, await said(store, f"{number}"))
            clock.advance(10)
        assert await store.purge(15.0) == 1
        after = await said(store, "2")
        assert [turn.input for turn in await store.earlier(TENANT, after.id)] == ["1"]
        assert (await store.thread(TENANT, CHAT)).turns == 3

    # --- whatever happens -----------------------------------------------------------------------------------------

    async def test_whatever_happens_one_task_of_a_thread_is_under_way_and_none_is_forgotten(
        self, store: Store, clock: MovableClock
    ) -> None:
        chance = random.Random(7)  # noqa: S311  (no secret)
        threads, order, begun = ("a", "b", "c"), list[str](), list[str]()
        held: dict[str, Claimed] = {}
        tasks: Sequence[Task] = ()
        for _ in range(200):
            match chance.choice(["say", "say", "claim", "end", "end", "cancel", "put off", "retry", "sweep"]):
                case "say":
                    order.append((await said(store, thread=chance.choice(threads))).id)
                case "claim":
                    for one in await claim(store):
                        held[one.task.thread_id or ""] = one
                        begun += [one.task.id] * (one.task.id not in begun)
                case "end" if held:
                    one = held.pop(chance.choice(sorted(held)))
                    await at_once(store.append(one.lease, chance.choice([COMPLETED, FAILED])))
                case "put off" if held:
                    one = held.pop(chance.choice(sorted(held)))
                    await at_once(store.release(one.lease, LATER))
                    clock.advance(11)
                case "cancel" if order:
                    await store.cancel(TENANT, chance.choice(order[-8:]))
                case "retry":
                    ended = await store.list(TENANT, TaskFilter(status=[TaskStatus.FAILED], limit=3))
                    order += [new.id for task in ended[:1] if (new := await retried(store, task.id))]
                case _:
                    clock.advance(1)
                    await store.sweep()
            tasks = await store.list(TENANT, TaskFilter(limit=1000))
            for thread in threads:
                of = [task for task in tasks if task.thread_id == thread and not task.status.terminal]
                takeable = [task for task in of if task.run_after is not None or task.lease_owner]
                assert len(takeable) == min(len(of), 1), (thread, of)
        places = {task_id: place for place, task_id in enumerate(order)}
        known = {task.id: task.thread_id for task in tasks}
        for thread in threads:
            turns = [places[task_id] for task_id in begun if known[task_id] == thread]
            assert turns == sorted(turns)


async def retried(store: Store, task_id: str) -> Task | None:
    """The new task that carries another one on; ``None`` where there is one already."""
    inserted = await store.retry(TENANT, task_id)
    return inserted.task if inserted.created else None
