"""The verbs, and the whole of them against a model: whatever happens, no step is lost and no task is held twice."""

import asyncio
from dataclasses import replace

import pytest

from agentkit.transcript.steps import ApprovalGiven
from ops_core.dispatchers import LocalDispatcher
from ops_core.engine import Engine
from ops_core.errors import ApprovalConflict, ApprovalNotFound, LeaseLost, TaskNotFound, TransitionRefused
from ops_core.journal import TaskJournal
from ops_core.stores import SqlStore
from ops_core.task import NewTask, Task, TaskStatus
from ops_core.testing import FakeClock
from ops_core.testing.store_contract.examples import (
    AGENT,
    ASKED,
    CALLED,
    COMPLETED,
    GIVEN,
    LATER,
    NO_ID,
    REPLIED,
    STARTED,
    TENANT,
    brought_to,
    claimed,
    current,
    steps_of,
)

SOON = 30.0


@pytest.fixture(params=["memory", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def engine(store: SqlStore) -> Engine:
    return Engine(store, LocalDispatcher())


async def woken(engine: Engine) -> bool:
    return await engine.dispatcher.woken(0)


# --- wake-ups ----------------------------------------------------------------------------------------------------


async def test_a_submitted_task_wakes_workers_once(engine: Engine):
    new = NewTask(agent=AGENT, input=1, idempotency_key="key", fingerprint="same")
    assert (await engine.submit(new)).created
    assert await woken(engine)
    assert not (await engine.submit(new)).created
    assert not await woken(engine)


async def test_what_becomes_due_wakes_workers(engine: Engine, clock: FakeClock):
    one = await brought_to(engine.store, TaskStatus.WAITING)
    await engine.answer(TENANT, one.task.id, GIVEN)
    assert await woken(engine)
    (one,) = await engine.claim("me", 1, 30.0, [AGENT])
    await engine.release(one.lease, LATER)
    assert not await woken(engine)
    clock.advance(10)
    assert (await engine.sweep()).due
    assert await woken(engine)
    (one,) = await engine.claim("me", 1, 30.0, [AGENT])
    await engine.release(one.lease)
    assert await woken(engine)
    await engine.cancel(TENANT, one.task.id)
    await engine.retry(TENANT, one.task.id)
    assert await woken(engine)


# --- answers -----------------------------------------------------------------------------------------------------


async def test_an_approval_is_answered_once(engine: Engine):
    one = await brought_to(engine.store, TaskStatus.WAITING)
    people = [
        replace(GIVEN, by=f"person {n % 4}", approved=n % 2 == 0) for n in range(8)
    ]  # each says it twice
    results = await asyncio.gather(
        *(engine.answer(TENANT, one.task.id, given) for given in people), return_exceptions=True
    )
    (recorded,) = [step for step in await steps_of(engine.store, one.task) if isinstance(step, ApprovalGiven)]
    for given, result in zip(people, results, strict=True):
        if given == recorded:
            assert isinstance(result, Task)
        else:
            assert isinstance(result, ApprovalConflict)
            assert recorded.by in str(result)


async def test_an_approval_that_was_never_asked_for_is_not_found(engine: Engine):
    one = await claimed(engine.store, STARTED)
    with pytest.raises(ApprovalNotFound, match="nothing"):
        await engine.answer(TENANT, one.task.id, ApprovalGiven(approval_id="nothing", approved=True))
    with pytest.raises(TaskNotFound):
        await engine.answer(TENANT, NO_ID, GIVEN)


@pytest.mark.parametrize("status", [status for status in TaskStatus if status.terminal])
async def test_the_approvals_of_a_task_that_ended_are_closed(engine: Engine, status: TaskStatus):
    one = await brought_to(engine.store, status)
    with pytest.raises(TransitionRefused, match="ended"):
        await engine.answer(TENANT, one.task.id, GIVEN)


async def test_an_answer_finds_its_place_while_the_run_goes_on(engine: Engine):
    one = await claimed(engine.store, STARTED, CALLED, ASKED)
    writes = [engine.store.append(one.lease, REPLIED) for _ in range(20)]
    async with asyncio.timeout(SOON):
        await asyncio.gather(engine.answer(TENANT, one.task.id, GIVEN), *writes)
    steps = await steps_of(engine.store, one.task)
    assert (steps.count(REPLIED), steps.count(GIVEN)) == (20, 1)


# --- the journal -------------------------------------------------------------------------------------------------


async def test_the_journal_of_a_task_ends_it_with_the_last_step(engine: Engine):
    one = await claimed(engine.store)
    told: list[bool] = []

    def tell(task_id: str, *, status: bool) -> None:
        assert task_id == one.task.id
        told.append(status)

    journal = TaskJournal(engine.store, one.lease, tell)
    recorded = [*await journal.load(), *[await journal.append(step) for step in (CALLED, REPLIED, COMPLETED)]]
    assert list(await journal.load()) == recorded
    assert recorded[0] == one.begun
    assert (await current(engine.store, one.task)).status is TaskStatus.COMPLETED
    assert told == [False, False, True]
    with pytest.raises(LeaseLost):
        await journal.append(REPLIED)
    assert len(told) == 3


async def test_a_cancellation_is_told_to_the_run_that_is_carried_here(engine: Engine):
    one, other = await claimed(engine.store), await claimed(engine.store)
    told: list[str] = []
    with engine.carrying(one.task.id, lambda: told.append("first")):
        with engine.carrying(one.task.id, lambda: told.append("second")):
            await engine.cancel(TENANT, other.task.id)
            assert told == []
            await engine.cancel(TENANT, one.task.id)
        assert told == ["second"]
    await engine.cancel(TENANT, one.task.id)
    assert told == ["second"]
