"""Contract of a store: concurrent writes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from agentkit.messages import Text
from agentkit.transcript.steps import Finished, ModelReplied, RunStarted, Step
from ops_core.errors import IdempotencyConflict, LeaseLost
from ops_core.ports import Store
from ops_core.task import NewTask, Task, TaskStatus
from ops_core.testing.store_contract.examples import (
    AGENT,
    BEGUN,
    CALLED,
    COMPLETED,
    REPLIED,
    RETURNED,
    STARTED,
    TENANT,
    at_once,
    claim,
    claimed,
    current,
    steps_of,
    submitted,
)


class WritingTogetherContract:
    """Writes that are on their way at the same time do not harm each other."""

    async def test_each_gets_its_own_answer(self, store: Store) -> None:
        for _ in range(40):
            await submitted(store)
        every = await claim(store)
        stale = every[::4]
        for one in stale:
            await store.release(one.lease)
        results = await at_once(*(store.append(one.lease, REPLIED) for one in every))
        for one, result in zip(every, results, strict=True):
            assert isinstance(result, LeaseLost) == (one in stale), result
            assert await steps_of(store, one.task) == ([STARTED] if one in stale else [STARTED, REPLIED])

    async def test_one_that_cannot_be_written_does_not_harm_the_others(self, store: Store) -> None:
        one = await claimed(store, STARTED)
        bad = ModelReplied(parts=(Text(text="\ud800"),))
        results = await at_once(
            store.append(one.lease, REPLIED), store.append(one.lease, bad), store.append(one.lease, CALLED)
        )
        assert [isinstance(result, Exception) for result in results] == [False, True, False]
        assert await steps_of(store, one.task) == [STARTED, REPLIED, CALLED]

    async def test_steps_come_in_the_order_in_which_they_were_handed_in(self, store: Store) -> None:
        one = await claimed(store)
        said = [RunStarted(run_id=str(number), agent=AGENT, input=number) for number in range(50)]
        recorded = await at_once(*(store.append(one.lease, step) for step in said))
        assert [result.seq for result in recorded] == list(range(1, 51))
        assert await steps_of(store, one.task) == [STARTED, *said]

    async def test_many_steps_and_the_end_of_one_task_are_counted_once_each(self, store: Store) -> None:
        one = await claimed(store, STARTED)
        said: list[Step] = [REPLIED, BEGUN, RETURNED, REPLIED, COMPLETED, REPLIED]
        *recorded, refused = await at_once(*(store.append(one.lease, step) for step in said))
        assert [result.seq for result in recorded] == [1, 2, 3, 4, 5]
        assert isinstance(refused, LeaseLost)
        task = await current(store, one.task)
        assert (task.status, task.steps, task.model_calls, task.tool_calls) == (TaskStatus.COMPLETED, 6, 2, 1)
        assert (task.tokens.input_tokens, task.tokens.output_tokens) == (14, 6)
        assert await steps_of(store, one.task) == [STARTED, *said[:-1]]

    async def test_steps_that_are_handed_in_together_are_recorded_all_or_none(self, store: Store) -> None:
        one = await claimed(store)
        said: list[Step] = [CALLED, RETURNED, COMPLETED]
        together, refused = await at_once(
            store.append_all(one.lease, said), store.append_all(one.lease, [REPLIED])
        )
        assert [(result.seq, result.step) for result in together] == list(enumerate(said, start=1))
        assert isinstance(refused, LeaseLost)
        task = await current(store, one.task)
        assert (task.status, task.steps, task.model_calls) == (TaskStatus.COMPLETED, 4, 1)
        assert await steps_of(store, task) == [STARTED, *said]

    async def test_texts_of_many_rows_at_once_stay_as_they_are(self, store: Store) -> None:
        texts = [
            "\\N",
            "\\.",
            "a\tb\nc\r\\d\\n",
            "",
            "\x00\x01\x7f",
            "'\"`;--",
            "{},\\u0000",
            "é 漢字 🦀",
            "\u2028\u202e",
        ]
        for text in texts:
            await submitted(store, input=text)
        every = await claim(store)
        assert [one.task.input for one in every] == texts
        said = [ModelReplied(parts=(Text(text=text),)) for text in texts]
        await at_once(*(store.append(one.lease, step) for one, step in zip(every, said, strict=True)))
        for one, step in zip(every, said, strict=True):
            begun = RunStarted(run_id=one.task.id, agent=AGENT, input=one.task.input)
            assert [recorded.step for recorded in await store.steps(TENANT, one.task.id)] == [begun, step]

    async def test_two_submits_of_one_key_at_once_are_one_task(self, store: Store) -> None:
        new = NewTask(agent=AGENT, input=1, idempotency_key="key", fingerprint="one")
        other = replace(new, fingerprint="two")
        first, second, refused, free = await at_once(
            store.insert(new),
            store.insert(new),
            store.insert(other),
            store.insert(NewTask(agent=AGENT, input=2)),
        )
        assert (first.created, second.created, free.created) == (True, False, True)
        assert first.task == second.task
        assert isinstance(refused, IdempotencyConflict)
        assert len(await claim(store)) == 2

    async def test_what_a_cancelled_caller_handed_in_is_written_wholly_or_not_at_all(
        self, store: Store
    ) -> None:
        one = await claimed(store)
        said = [RunStarted(run_id=str(number), agent=AGENT, input=number) for number in range(60)]
        writes = [asyncio.ensure_future(store.append(one.lease, step)) for step in said]
        await asyncio.sleep(0)
        for number, write in enumerate(writes):
            if number % 3:
                write.cancel()
                await asyncio.sleep(0)
        await at_once(*writes)
        last = await store.append(one.lease, REPLIED)
        found = await steps_of(store, one.task)
        assert found == [STARTED, *(step for step in said if step in found), REPLIED]
        assert all(step in found for step in said[::3])
        assert last.seq == len(found) - 1
        assert (await current(store, one.task)).steps == len(found)

    async def test_a_cancelled_finish_is_an_end_or_none(self, store: Store) -> None:
        for _ in range(10):
            one = await claimed(store, STARTED)
            write = asyncio.ensure_future(store.append(one.lease, COMPLETED))
            await asyncio.sleep(0)
            write.cancel()
            await at_once(write)
            task = await self._settled(store, one.task)
            ended = isinstance((await steps_of(store, task))[-1], Finished)
            assert ended == task.status.terminal
            if not ended:
                await store.append(one.lease, COMPLETED)

    async def _settled(self, store: Store, task: Task) -> Task:
        await submitted(store, agent="somebody")  # a write behind all others
        return await current(store, task)
