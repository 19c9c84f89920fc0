"""Contract of a store: submitting tasks and looking at them."""

from __future__ import annotations

from dataclasses import replace

from agentkit.budget.limits import Limits
from agentkit.messages import Usage
from agentkit.transcript.steps import ModelReplied, RunStarted, ToolReturned
from ops_core.errors import IdempotencyConflict, InvalidRequest, TaskNotFound
from ops_core.ports import PAGE_BYTES, Store, TaskFilter
from ops_core.task import Task, TaskStatus
from ops_core.testing.store_contract.examples import (
    AGENT,
    CALLED,
    COMPLETED,
    NO_ID,
    OTHER_TENANT,
    REPLIED,
    RETURNED,
    STARTED,
    TENANT,
    MovableClock,
    at_once,
    brought_to,
    claim,
    claimed,
    current,
    raises,
    steps_of,
    submitted,
    uses_of_a_tenant,
)

ODD_TEXTS = (
    "",
    "\x00 in the \x00 midst",
    "ünïcödé – “quoted” – 𝔘𝔫𝔦 🌤️ \u202eright to left\u202c",
    "line\nfeeds\r\n\tand 'quotes' \"\\ %s :name ? ${x}",
    "x" * 1_000_000,
)


class SubmittingContract:
    """What :meth:`~ops_core.ports.Store.insert`, ``get``, ``list`` and ``steps`` promise."""

    async def test_a_submitted_task_is_kept_as_it_was_given(self, store: Store) -> None:
        inserted = await submitted(
            store,
            input={"b": [1, 2.5, None, True], "a": "ä"},
            labels={"team": "search", "empty": ""},
            priority=-3,
            timeout_seconds=60.0,
            budget=Limits(steps=7, tokens=None, seconds=1.5),
            max_attempts=2,
        )
        task = await store.get(TENANT, inserted.id)
        assert task == inserted
        assert (task.status, task.agent, task.tenant) == (TaskStatus.PENDING, AGENT, TENANT)
        assert task.input == {"b": [1, 2.5, None, True], "a": "ä"}
        assert task.labels == {"team": "search", "empty": ""}
        assert (task.priority, task.timeout_seconds, task.max_attempts) == (-3, 60.0, 2)
        assert task.budget == Limits(steps=7, tokens=None, seconds=1.5)
        assert (task.attempt, task.epoch, task.steps, task.tokens) == (0, 0, 0, Usage())
        assert (task.output, task.error, task.started_at, task.deadline_at) == (None, None, None, None)
        assert task.created_at == task.updated_at == task.run_after

    async def test_ids_sort_by_the_moment_of_submission(self, store: Store) -> None:
        ids = [(await submitted(store)).id for _ in range(20)]
        assert ids == sorted(ids)
        assert len(set(ids)) == 20

    # --- idempotency keys -----------------------------------------------------------------------------------------

    async def test_a_repeated_submit_finds_its_task(self, store: Store) -> None:
        first = await submitted(store, idempotency_key="key", fingerprint="same")
        assert (await submitted(store, idempotency_key="key", fingerprint="same")).id == first.id
        assert len(await store.list(TENANT, TaskFilter())) == 1

    async def test_a_repeated_submit_finds_its_task_also_when_it_has_ended(self, store: Store) -> None:
        one = await claimed(store, idempotency_key="key", fingerprint="same")
        await store.append(one.lease, COMPLETED)
        again = await submitted(store, idempotency_key="key", fingerprint="same")
        assert (again.id, again.status, again.output) == (one.task.id, TaskStatus.COMPLETED, {"count": 3})

    async def test_a_key_used_for_another_request_is_refused(self, store: Store) -> None:
        first = await submitted(store, idempotency_key="key", fingerprint="one")
        with raises(IdempotencyConflict):
            await submitted(store, idempotency_key="key", fingerprint="other")
        assert [task.id for task in await store.list(TENANT, TaskFilter())] == [first.id]

    async def test_two_tenants_may_use_the_same_key(self, store: Store) -> None:
        mine = await submitted(store, idempotency_key="key", fingerprint="one")
        theirs = await submitted(store, idempotency_key="key", fingerprint="two", tenant=OTHER_TENANT)
        assert mine.id != theirs.id

    async def test_one_task_for_a_key_that_is_submitted_many_times_at_once(self, store: Store) -> None:
        tasks: list[Task] = await at_once(
            *(submitted(store, idempotency_key="key", fingerprint="same") for _ in range(16))
        )
        assert len({task.id for task in tasks}) == 1

    async def test_without_a_key_every_submit_is_a_task(self, store: Store) -> None:
        await at_once(*(submitted(store) for _ in range(5)))
        assert len(await store.list(TENANT, TaskFilter())) == 5

    # --- tenants --------------------------------------------------------------------------------------------------

    async def test_a_tenant_does_not_see_the_tasks_of_another(self, store: Store) -> None:
        for status in TaskStatus:
            task = (await brought_to(store, status)).task
            before, steps = await current(store, task), await steps_of(store, task)
            for attempt in uses_of_a_tenant(store, OTHER_TENANT, task.id).values():
                with raises(TaskNotFound, task.id):
                    await attempt()
            assert await store.list(OTHER_TENANT, TaskFilter(label="team")) == []
            assert await store.list(OTHER_TENANT, TaskFilter()) == []
            assert (await current(store, task), await steps_of(store, task)) == (before, steps)
            if status is TaskStatus.PENDING:
                await store.cancel(TENANT, task.id)

    async def test_an_id_that_does_not_exist_is_not_found(self, store: Store) -> None:
        for task_id in (NO_ID, "", "'; DROP TABLE task; --", "\x00"):
            for attempt in uses_of_a_tenant(store, TENANT, task_id).values():
                with raises(TaskNotFound):
                    await attempt()

    # --- lists ----------------------------------------------------------------------------------------------------

    async def test_a_list_is_newest_first_and_goes_on_page_by_page(
        self, store: Store, clock: MovableClock
    ) -> None:
        ids: list[str] = []
        for _ in range(7):
            ids.append((await submitted(store)).id)
            clock.advance(1)
        seen: list[str] = []
        pages = 0
        before = None
        while page := await store.list(TENANT, TaskFilter(limit=3, before=before)):
            seen += [task.id for task in page]
            before, pages = seen[-1], pages + 1
        assert seen == ids[::-1]
        assert pages == 3

    async def test_a_page_is_bounded_in_bytes_and_has_at_least_one_task(self, store: Store) -> None:
        ids = [(await submitted(store, input="x" * size)).id for size in (10, 10, 3000, 10, 10)][::-1]
        seen: list[list[str]] = []
        before = None
        while page := await store.list(TENANT, TaskFilter(limit=4, max_bytes=40, before=before)):
            seen.append([task.id for task in page])
            before = page[-1].id
            assert page.more == (before != ids[-1])
        assert seen == [ids[:3], ids[3:]]
        single = await store.list(TENANT, TaskFilter(max_bytes=1, before=ids[1]))
        assert ([task.id for task in single], single.more) == ([ids[2]], True)

    async def test_a_list_without_texts_reads_none(self, store: Store) -> None:
        ended = await claimed(store, input={"a": ["large"]})
        await store.append(ended.lease, COMPLETED)
        (task,) = await store.list(TENANT, TaskFilter(texts=False, max_bytes=1))
        assert (task.id, task.input, task.output) == (ended.task.id, None, None)
        assert task == replace(await store.get(TENANT, task.id), input=None, output=None)

    async def test_a_list_is_filtered_by_everything_that_is_given(self, store: Store) -> None:
        ended = await claimed(store, labels={"team": "search"})
        await store.append(ended.lease, COMPLETED)
        blue = await submitted(store, labels={"team": "search", "colour": "blue=green"})
        other = await submitted(store, labels={"team": "ads"}, agent="somebody")
        plain = await submitted(store)

        async def found(**fields: object) -> set[str]:
            return {task.id for task in await store.list(TENANT, TaskFilter(**fields))}  # type: ignore[arg-type]

        every = {ended.task.id, blue.id, other.id, plain.id}
        assert await found() == every
        assert await found(status=(TaskStatus.PENDING,)) == every - {ended.task.id}
        assert await found(status=(TaskStatus.COMPLETED, TaskStatus.FAILED)) == {ended.task.id}
        assert await found(agent="somebody") == {other.id}
        assert await found(label="team") == {ended.task.id, blue.id, other.id}
        assert await found(label="team=search") == {ended.task.id, blue.id}
        assert await found(label="team=") == set()
        assert await found(label="colour=blue=green") == {blue.id}
        assert await found(label="nothing") == set()
        assert await found(label="team=search", status=(TaskStatus.PENDING,), agent=AGENT) == {blue.id}
        assert await found(before=blue.id) == {ended.task.id}

    # --- steps ----------------------------------------------------------------------------------------------------

    async def test_steps_are_read_from_every_place(self, store: Store) -> None:
        one = await claimed(store, CALLED, RETURNED, REPLIED)
        await store.append(one.lease, COMPLETED)
        assert one.begun is not None
        every = [one.begun.step, CALLED, RETURNED, REPLIED, COMPLETED]
        for after in range(-1, len(every) + 1):
            for limit in (None, 1, 2, 100):
                found = await store.steps(TENANT, one.task.id, after, limit)
                assert [recorded.step for recorded in found] == every[after + 1 :][:limit]
                assert [recorded.seq for recorded in found] == list(range(after + 1, after + 1 + len(found)))

    async def test_a_page_of_steps_is_bounded_in_bytes_and_has_at_least_one(self, store: Store) -> None:
        large = replace(RETURNED, output="x" * PAGE_BYTES)
        one = await claimed(store, CALLED, large, REPLIED)
        seen, after = list[list[int]](), -1
        while (page := await store.steps(TENANT, one.task.id, after, 100)).more:
            seen.append([recorded.seq for recorded in page])
            after = page[-1].seq
        assert [*seen, [recorded.seq for recorded in page]] == [[0, 1, 2], [3]]
        assert len(await store.steps(TENANT, one.task.id)) == 4

    async def test_a_task_without_steps_has_none(self, store: Store) -> None:
        assert list(await store.steps(TENANT, (await submitted(store)).id)) == []

    async def test_a_step_holds_the_time_of_its_task(self, store: Store, clock: MovableClock) -> None:
        one = await claimed(store)
        first = one.begun
        assert first is not None
        assert first.at == one.task.updated_at
        clock.advance(5)
        second = await store.append(one.lease, REPLIED)
        assert second.at == first.at + 5
        assert (await current(store, one.task)).updated_at == second.at
        assert list(await store.steps(TENANT, one.task.id)) == [first, second]

    # --- what it has used -----------------------------------------------------------------------------------------

    async def test_what_the_steps_used_is_summed(self, store: Store) -> None:
        one = await claimed(store, STARTED, REPLIED, RETURNED, REPLIED, RETURNED, RETURNED)
        task = await current(store, one.task)
        assert (task.model_calls, task.tool_calls) == (2, 3)
        assert task.tokens == Usage(input_tokens=14, output_tokens=6, cost_usd=None)

    async def test_an_unknown_price_is_not_zero_and_does_not_hide_a_known_one(self, store: Store) -> None:
        one = await claimed(store, REPLIED)
        assert (await current(store, one.task)).tokens.cost_usd is None
        await store.append(one.lease, ModelReplied(parts=(), usage=Usage(cost_usd=0.25)))
        await store.append(one.lease, REPLIED)
        await store.append(one.lease, ModelReplied(parts=(), usage=Usage(cost_usd=0.5)))
        assert (await current(store, one.task)).tokens.cost_usd == 0.75

    async def test_a_price_of_zero_is_known(self, store: Store) -> None:
        one = await claimed(store, ModelReplied(parts=(), usage=Usage(cost_usd=0.0)))
        assert (await current(store, one.task)).tokens.cost_usd == 0.0

    async def test_very_many_tokens_can_be_counted(self, store: Store) -> None:
        much = Usage(input_tokens=2**40, output_tokens=2**40)
        one = await claimed(store, ModelReplied(parts=(), usage=much), ModelReplied(parts=(), usage=much))
        assert (await current(store, one.task)).tokens.tokens == 2**42

    # --- odd values -----------------------------------------------------------------------------------------------

    async def test_odd_texts_are_kept(self, store: Store) -> None:
        for text in ODD_TEXTS:
            one = await claimed(store, input={"text": text, text[:50]: 1})
            await store.append(one.lease, ToolReturned(call_id="c", tool="t", output=text))
            await store.append(one.lease, type(COMPLETED)(status="completed", output=text))
            task = await current(store, one.task)
            assert (task.input, task.output) == ({"text": text, text[:50]: 1}, text)
            assert [step.step for step in await store.steps(TENANT, task.id)] == [
                RunStarted(run_id=task.id, agent=AGENT, input={"text": text, text[:50]: 1}),
                ToolReturned(call_id="c", tool="t", output=text),
                type(COMPLETED)(status="completed", output=text),
            ]

    async def test_odd_numbers_are_kept(self, store: Store) -> None:
        numbers = [10**400, -(2**63), 2**64, 0.1, 1e308, 5e-324, -0.0, True]
        one = await claimed(store, input=numbers)
        assert (await current(store, one.task)).input == numbers

    async def test_what_json_cannot_express_is_refused_before_anything_is_written(self, store: Store) -> None:
        for bad in ("\ud800", float("nan"), float("inf"), {"x": object()}, b"bytes", {1, 2}):
            with raises(InvalidRequest, "input"):
                await submitted(store, input={"x": bad})
        assert await store.list(TENANT, TaskFilter()) == []

    async def test_texts_that_no_database_takes_are_refused_with_the_name_of_the_field(
        self, store: Store
    ) -> None:
        for bad in ("\ud800", "\x00"):
            for field in ("agent", "tenant", "idempotency_key"):
                with raises(InvalidRequest, field):
                    await submitted(store, **{field: bad})
            for labels in ({bad: "x"}, {"x": bad}):
                with raises(InvalidRequest, "labels"):
                    await submitted(store, labels=labels)

    async def test_too_long_texts_are_refused_with_the_name_of_the_field(self, store: Store) -> None:
        for field in ("agent", "tenant", "idempotency_key"):
            with raises(InvalidRequest, field):
                await submitted(store, **{field: "x" * 1000})
        for labels in ({"x" * 100: "x"}, {"x": "x" * 1000}):
            with raises(InvalidRequest, "labels"):
                await submitted(store, labels=labels)

    async def test_numbers_that_make_no_sense_are_refused_with_the_name_of_the_field(
        self, store: Store
    ) -> None:
        nan, inf = float("nan"), float("inf")
        for field, bad in (
            *(("run_at", value) for value in (nan, inf)),
            *(("timeout_seconds", value) for value in (nan, inf, 0.0, -1.0)),
            *(("priority", value) for value in (2**31, -(2**31) - 1)),
            *(("max_attempts", value) for value in (0, -1, 2**31)),
        ):
            with raises(InvalidRequest, field):
                await submitted(store, **{field: bad})
        assert await store.list(TENANT, TaskFilter()) == []

    async def test_a_step_that_json_cannot_express_is_refused_and_the_task_goes_on(
        self, store: Store
    ) -> None:
        one = await claimed(store, STARTED)
        for bad in ("\ud800", float("nan"), {"x": object()}):
            with raises(Exception, "JSON"):
                await store.append(one.lease, RunStarted(run_id="r", agent="a", input=bad))  # type: ignore[arg-type]
        await store.append(one.lease, REPLIED)
        assert await steps_of(store, one.task) == [STARTED, REPLIED]

    async def test_what_is_due_can_be_claimed_after_odd_values(self, store: Store) -> None:
        await submitted(store, input=ODD_TEXTS[1])
        assert len(await claim(store)) == 1
