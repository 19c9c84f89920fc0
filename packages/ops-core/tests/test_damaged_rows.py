"""One row that cannot be read: of a newer release, or damaged. It is shown as such, and harms no other."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from sqlalchemy import text

from agentkit.transcript.steps import ApprovalAsked, Unreadable
from ops_core.client import Operations
from ops_core.dispatchers import LocalDispatcher
from ops_core.engine import Engine
from ops_core.errors import TaskUnreadable
from ops_core.halt import HaltKind, NewHalt
from ops_core.ports import ApprovalFilter, HaltFilter, TaskFilter
from ops_core.schemas import ApprovalRequest
from ops_core.stores import SqlStore
from ops_core.stores.transaction import Transaction
from ops_core.task import InThread, Task, TaskStatus
from ops_core.testing import FakeClock

from .api_support import Stage, staged  # type: ignore[import-not-found]
from .runner_support import submit, working  # type: ignore[import-not-found]
from .test_runner import adding  # type: ignore[import-not-found]

COLUMNS = {
    "input": ["{", "", "nul", "NaN", '"\\ud800"', "[" * 100_000, "9" * 5000],
    "labels": ["[]", "5", '{"a": 1}', "null"],
    "budget": ['{"wishes": 3}', '{"steps": -1}', '"5"', "[]", '{"steps": "many"}', '{"usd": NaN}'],
    "error": ["{}", "[]", '{"code": 1, "message": "x", "actor": "user"}',
              '{"code": "x", "message": "x", "actor": "martian"}', "\\x00"],
    "output": ["{", "Infinity"],
}  # fmt: skip
"""What no release of ours has written into these columns, which are texts in every database."""

NUMBERS = {
    "attempt": -3, "steps": -2, "epoch": -7, "model_calls": -1, "input_tokens": -5, "unsettled": -9,
    "cost_usd": -1.0, "timeout_seconds": -2.5, "created_at": 1e300, "updated_at": -1e300, "started_at": 9e99,
}  # fmt: skip
LOOSE = {
    "priority": "high",
    "deadline_at": "soon",
    "run_after": "never",
    "attempt": "one",
    "agent": b"\x00\xff",
}
"""What only SQLite takes, which has no types of columns."""


async def damage(store: Any, task_id: str, **values: object) -> None:
    def work(writing: Transaction) -> None:
        for name, value in values.items():
            statement = text(f"UPDATE task SET {name} = :value WHERE id = :id")
            writing.execute(statement, {"value": value, "id": task_id})

    await store._write(work)


async def damage_step(store: Any, task_id: str, seq: int, body: str) -> None:
    def work(writing: Transaction) -> None:
        statement = text("UPDATE step SET body = :body WHERE task_id = :id AND seq = :seq")
        assert writing.execute(statement, {"body": body, "id": task_id, "seq": seq}).rowcount == 1

    await store._write(work)


async def looked_at(store: SqlStore, bad: Task, good: Task) -> Task:
    """The damaged task as it is shown, after every look and every sweep has found the good one as well."""
    listed = {task.id: task for task in await store.list("default", TaskFilter())}
    assert {bad.id, good.id} <= set(listed)
    assert listed[good.id].error is None
    assert (await store.get("default", bad.id)) == listed[bad.id]
    assert sum((await store.stats()).tasks.values()) >= 1
    await store.approvals("default", ApprovalFilter())
    await store.sweep()
    await store.purge(older_seconds=1e6)
    return listed[bad.id]


@pytest.mark.parametrize("column", COLUMNS)
async def test_a_row_that_cannot_be_read_is_shown_with_its_id_and_harms_no_other(
    store: SqlStore, column: str
):
    engine = Engine(store, LocalDispatcher())
    for value in COLUMNS[column]:
        bad, good = await submit(engine, priority=9), await submit(engine)
        await damage(store, bad.id, **{column: value})
        shown = await looked_at(store, bad, good)
        assert shown.error is not None
        assert (shown.error.code, shown.agent, shown.status) == (
            "task_unreadable",
            "agent",
            TaskStatus.PENDING,
        )
        assert column in shown.error.message
        (claimed,) = await store.claim("w", 5, 30.0, ["agent"])
        assert claimed.task.id == good.id
        left = await store.get("default", bad.id)
        assert left.error is not None
        assert (left.error.code, left.attempt, left.status) == ("task_unreadable", 0, TaskStatus.PENDING)
        assert (await store.cancel("default", bad.id)).status is TaskStatus.CANCELLED
        await looked_at(store, bad, good)


async def test_numbers_that_cannot_be_are_shown_as_such(store: SqlStore):
    engine = Engine(store, LocalDispatcher())
    good = await submit(engine)
    for column, value in NUMBERS.items():
        bad = await submit(engine, run_at=2e9)
        await damage(store, bad.id, **{column: value})
        shown = await looked_at(store, bad, good)
        assert shown.error is not None
        assert column in shown.error.message


@pytest.mark.parametrize("database", ["sqlite"])
async def test_a_file_may_hold_anything_in_any_column(store: SqlStore):
    engine = Engine(store, LocalDispatcher())
    for column, value in LOOSE.items():
        bad, good = await submit(engine), await submit(engine)
        await damage(store, bad.id, **{column: value})
        shown = await looked_at(store, bad, good)
        assert shown.error is not None
        assert column in shown.error.message
        assert good.id in {one.task.id for one in await store.claim("w", 5, 30.0, ["agent"])}


async def test_a_status_of_a_newer_release_is_named_and_refuses_what_would_change_it(store: SqlStore):
    engine = Engine(store, LocalDispatcher())
    bad, good = await submit(engine), await submit(engine)
    await damage(store, bad.id, status="paused")
    shown = await looked_at(store, bad, good)
    assert shown.error is not None
    assert "'paused'" in shown.error.message
    assert [one.task.id for one in await store.claim("w", 5, 30.0, ["agent"])] == [good.id]
    for verb in (store.cancel, store.retry):
        with pytest.raises(TaskUnreadable):
            await verb("default", bad.id)
    with pytest.raises(TaskUnreadable):
        await engine.halt("default", NewHalt(kind=HaltKind.TASK, target=bad.id))


@pytest.mark.parametrize("database", ["sqlite"])
async def test_damaged_rows_of_a_dead_worker_are_swept_with_the_others(store: SqlStore, clock: FakeClock):
    engine = Engine(store, LocalDispatcher())
    bad, good = await submit(engine), await submit(engine)
    assert len(await store.claim("w", 5, 30.0, ["agent"])) == 2
    await damage(store, bad.id, max_attempts="many", attempt=9, deadline_at="soon")
    clock.advance(31)
    assert set((await store.sweep()).released) == {bad.id, good.id}
    await damage(store, bad.id, deadline_at=1.0, timeout_seconds=None)
    assert (await store.sweep()).ended == (bad.id,)


async def test_an_earlier_turn_that_cannot_be_read_leaves_the_next_one_to_a_newer_worker(engine: Engine):
    first = await submit(engine, thread=InThread(id="chat"))
    async with working(engine, adding()):
        await engine.until_ended("default", first.id, 30)
        await damage(engine.store, first.id, output="{")
        second, other = await submit(engine, thread=InThread(id="chat")), await submit(engine)
        await engine.until_ended("default", other.id, 30)
        async with asyncio.timeout(30):
            while (left := await engine.get("default", second.id)).error is None:
                await asyncio.sleep(0.005)
    assert (left.error.code, left.attempt, left.status) == ("task_unreadable", 0, TaskStatus.PENDING)


async def test_a_halt_of_a_newer_kind_is_passed_by(engine: Engine):
    known = await engine.halt("default", NewHalt(kind=HaltKind.TOOL, target="pay"))
    newer = await engine.halt("default", NewHalt(kind=HaltKind.TOOL, target="send"))

    def work(writing: Transaction) -> None:
        writing.execute(text("UPDATE halt SET kind = 'label' WHERE id = :id"), {"id": newer.id})

    store: Any = engine.store
    await store._write(work)
    assert [halt.id for halt in await engine.halts("default", HaltFilter())] == [known.id]
    assert [halt.id for halt in await engine.store.halts_in_force()] == [known.id]


# --- steps, through every door --------------------------------------------------------------------------------------

STEPS = ["{", "[]", '{"v": 9, "kind": "model_replied"}', '{"v": 1, "kind": "dreamt"}', '{"v": 1}',
         '{"v": 1, "kind": "tool_returned", "call_id": "c", "tool": "t", "mood": "good"}',
         '{"v": 1, "kind": "model_replied", "parts": [{"kind": "scent"}]}',
         '{"v": 1, "kind": "model_replied", "parts": [], "usage": 5}',
         '{"v": 1, "kind": "unreadable", "stored_as": "x", "problem": "y"}',
         '{"v": 1, "kind": "run_started", "run_id": "r", "agent": "a", "input": NaN}',
         '{"v": 1, "kind": "run_started", "run_id": "r", "agent": "a", "input": "\\ud800"}']  # fmt: skip


@pytest.fixture
async def stage(tmp_path) -> AsyncGenerator[Stage]:
    async with staged(tmp_path) as opened:
        yield opened


async def test_a_step_that_cannot_be_read_is_shown_in_its_place(client: Operations, stage: Stage):
    asked = await stage.submit("asking")
    await stage.until(asked["id"], "waiting")
    for body in STEPS:
        await damage_step(stage.ops.engine.store, asked["id"], 1, body)
        shown = await client.steps(asked["id"])
        assert [recorded.seq for recorded in shown] == list(range(len(shown)))
        assert isinstance(shown[1].step, Unreadable), body
        assert shown[1].step.problem
        assert not any(isinstance(recorded.step, Unreadable) for recorded in (shown[0], *shown[2:]))
    assert [item.task_id for item in (await client.approvals()).items] == [asked["id"]]


async def test_a_row_is_shown_through_every_door(client: Operations, stage: Stage):
    bad, good = await stage.submit("held"), await stage.submit("quick")
    await stage.until(good["id"], "completed")
    await damage(stage.ops.engine.store, bad["id"], labels="[]", created_at=1e300, cost_usd=-1.0)
    listed = {task.id: task for task in (await client.list()).items}
    assert set(listed) == {bad["id"], good["id"]}
    assert listed[bad["id"]].error is not None
    assert listed[bad["id"]].error.code == (await client.get(bad["id"])).error.code == "task_unreadable"
    assert "cost_usd, created_at, labels" in listed[bad["id"]].error.message
    assert (await client.cancel(bad["id"])).id == bad["id"]
    assert (await stage.http.get("/metrics")).status_code == 200


async def test_a_question_beside_what_cannot_be_read_is_not_answered_by_guess(
    client: Operations, stage: Stage
):
    asked, other = await stage.submit("asking"), await stage.submit("asking")
    for task in (asked, other):
        await stage.until(task["id"], "waiting")
    (question,) = (await client.get(asked["id"])).approvals
    (seq,) = [one.seq for one in await client.steps(asked["id"]) if isinstance(one.step, ApprovalAsked)]
    await damage_step(stage.ops.engine.store, asked["id"], seq, '{"v": 1, "kind": "dreamt"}')
    assert [item.task_id for item in (await client.approvals()).items] == [other["id"]]
    assert (await client.get(asked["id"])).approvals == []
    with pytest.raises(TaskUnreadable):
        await client.answer(asked["id"], question.id, ApprovalRequest(approved=True))
