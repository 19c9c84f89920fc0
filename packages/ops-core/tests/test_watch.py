"""Whoever watches a task sees every step once, in order, whatever happens meanwhile."""

import asyncio
from contextlib import aclosing

import pytest

from agentkit.transcript.steps import RunStarted
from ops_core import engine as engine_module
from ops_core.dispatchers import LocalDispatcher
from ops_core.engine import Engine
from ops_core.errors import TaskNotFound
from ops_core.journal import TaskJournal
from ops_core.stores import SqlStore, open_store
from ops_core.task import TaskStatus
from ops_core.testing import FakeClock, open_test_store
from ops_core.testing.store_contract.examples import (
    CANCELLED,
    COMPLETED,
    LEASE_SECONDS,
    NO_ID,
    OTHER_TENANT,
    REPLIED,
    STARTED,
    TENANT,
    claimed,
    current,
    submitted,
)

SOON = 30.0


@pytest.fixture
def engine(store: SqlStore) -> Engine:
    return Engine(store, LocalDispatcher())


@pytest.fixture
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written in this process is told, not found."""
    monkeypatch.setattr(engine_module, "POLL_SECONDS", 60.0)


def step(number: int) -> RunStarted:
    return RunStarted(run_id=str(number), agent="agent", input=number)


async def watched(engine: Engine, task_id: str, after: int = -1) -> list[int]:
    """The numbers of the steps that a watcher is shown, until it ends."""
    async with asyncio.timeout(SOON):
        return [recorded.seq async for recorded in engine.watch(TENANT, task_id, after)]


async def test_what_has_ended_is_told_from_every_place(engine: Engine):
    one = await claimed(engine.store, *(step(number) for number in range(1, 5)))
    await engine.store.append(one.lease, COMPLETED)
    for after in range(-1, 8):
        assert await watched(engine, one.task.id, after) == list(range(after + 1, 6))


async def test_more_than_a_page_is_told(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_module, "PAGE", 3)
    for count in (2, 3, 4, 5, 6, 7):
        one = await claimed(engine.store, *(step(number) for number in range(1, count - 1)))
        await engine.store.append(one.lease, COMPLETED)
        assert await watched(engine, one.task.id) == list(range(count))


async def test_many_watchers_from_every_place_are_told_everything_as_it_comes(
    engine: Engine, no_polling: None
):
    one = await claimed(engine.store)
    journal = TaskJournal(engine.store, one.lease, engine.notify)
    early = {after: asyncio.create_task(watched(engine, one.task.id, after)) for after in range(-1, 31)}
    late: dict[int, asyncio.Task[list[int]]] = {}
    for number in range(1, 30):
        await journal.append(step(number))
        late[number] = asyncio.create_task(watched(engine, one.task.id, number))
        if number % 3 == 0:
            await asyncio.sleep(0)
    await journal.append(COMPLETED)
    for watchers in (early, late):
        for after, watcher in watchers.items():
            assert await watcher == list(range(after + 1, 31))
    assert engine._watchers == engine._waiters == {}, "a watcher was left behind"


@pytest.mark.parametrize("how", ["cancelled", "swept", "finished"])
async def test_every_end_is_told_at_once(engine: Engine, clock: FakeClock, no_polling: None, how: str):
    one = await claimed(engine.store, STARTED, timeout_seconds=10.0)
    watcher = asyncio.create_task(watched(engine, one.task.id))
    waiter = asyncio.create_task(engine.until_ended(TENANT, one.task.id, SOON))
    await asyncio.sleep(0.02)
    if how == "cancelled":
        await engine.release(one.lease)
        await engine.cancel(TENANT, one.task.id)
    elif how == "swept":
        clock.advance(LEASE_SECONDS + 1)
        await engine.sweep()
    else:
        await TaskJournal(engine.store, one.lease, engine.notify).append(CANCELLED)
    assert await watcher == [0, 1]
    assert (await waiter).status.terminal


async def test_an_end_that_its_worker_brings_about_by_letting_go_is_told(engine: Engine, no_polling: None):
    one = await claimed(engine.store, STARTED)
    watcher = asyncio.create_task(watched(engine, one.task.id))
    await engine.cancel(TENANT, one.task.id)
    await asyncio.sleep(0.02)
    await engine.wait(one.lease, 1)
    assert await watcher == [0, 1]


async def test_what_another_process_writes_is_found(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_module, "POLL_SECONDS", 0.02)
    async with open_test_store(url) as here, open_store(url) as there:
        engine = Engine(here, LocalDispatcher())
        one = await claimed(there)
        watcher = asyncio.create_task(watched(engine, one.task.id))
        waiter = asyncio.create_task(engine.until_ended(TENANT, one.task.id, SOON))
        for number in range(1, 10):
            await there.append(one.lease, step(number))
            await asyncio.sleep(0.005)
        await there.append(one.lease, COMPLETED)
        assert await watcher == list(range(11))
        assert (await waiter).status is TaskStatus.COMPLETED


async def test_a_watcher_that_leaves_early_leaves_nothing_behind(engine: Engine):
    one = await claimed(engine.store, STARTED, REPLIED)
    async with aclosing(engine.watch(TENANT, one.task.id)) as steps:
        async for _recorded in steps:
            break
    waiting = asyncio.create_task(watched(engine, one.task.id))
    await asyncio.sleep(0.02)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert engine._watchers == engine._waiters == {}


async def test_a_task_that_is_not_there_cannot_be_watched(engine: Engine):
    task = await submitted(engine.store)
    for tenant, task_id in ((TENANT, NO_ID), (OTHER_TENANT, task.id)):
        with pytest.raises(TaskNotFound):
            await anext(engine.watch(tenant, task_id))
        with pytest.raises(TaskNotFound):
            await engine.until_ended(tenant, task_id, 1.0)
    assert engine._watchers == engine._waiters == {}


async def test_waiting_for_the_end_gives_up_in_time(engine: Engine):
    one = await claimed(engine.store, STARTED)
    for seconds in (0.0, 0.05):
        assert await engine.until_ended(TENANT, one.task.id, seconds) == await current(engine.store, one.task)
    await engine.store.append(one.lease, COMPLETED)
    for timeout in (0.0, 1.0, None):
        assert (await engine.until_ended(TENANT, one.task.id, timeout)).status is TaskStatus.COMPLETED
