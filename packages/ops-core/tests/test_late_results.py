"""Results of workers that had lost their leases: kept for the person who is asked, at every door."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentkit.agent import Agent
from agentkit.errors import ToolError
from agentkit.testing.models import ScriptedModel
from agentkit.tools import tool
from agentkit.transcript.steps import ApprovalGiven, Settlement, ToolReturned
from ops_core.cli.commands.approvals import Known, list_approvals, settle_call
from ops_core.cli.commands.tasks import show_task
from ops_core.cli.exit_codes import Exit
from ops_core.client import Operations
from ops_core.dispatchers import LocalDispatcher
from ops_core.engine import Engine
from ops_core.errors import ApprovalConflict, ApprovalNotFound, InvalidRequest
from ops_core.schemas import SettleRequest
from ops_core.stores import SqlStore
from ops_core.task import MAX_LATE_SHOWN, Task, TaskStatus
from ops_core.testing import FakeClock, open_test_store
from ops_core.testing.store_contract.examples import reported_late, steps_of

from .api_support import Stage, staged  # type: ignore[import-not-found]
from .runner_support import (  # type: ignore[import-not-found]
    Hanging,
    call,
    ended,
    is_,
    submit,
    until,
    working,
)


@pytest.fixture
async def engine(url: str, clock: FakeClock) -> AsyncGenerator[Engine]:
    async with open_test_store(url, clock) as store:
        yield Engine(store, LocalDispatcher())


class Frozen:
    """A store as a worker has it that was stopped for longer than its lease: no heartbeat of it arrives."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.going_on = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def renew(self, *given: Any) -> Any:
        await self.going_on.wait()
        return await self._store.renew(*given)


def paying(
    hanging: Hanging, result: Any, told: list[str] | None = None, paid: list[int] | None = None
) -> Agent[Any, Any]:
    @tool
    async def pay() -> Any:
        """Pays."""
        if paid is not None:
            paid.append(1)
        await hanging.reply()
        if isinstance(result, Exception):
            raise result
        return result

    def answer(request: Any) -> str:
        if told is not None:
            told.append(str(request.messages[-1]))
        return "Done."

    return Agent(ScriptedModel.by_turn([call("pay"), answer]), name="agent", tools=[pay])


@asynccontextmanager
async def frozen_in_a_call(
    url: str, clock: FakeClock, engine: Engine, agent: Agent[Any, Any], hanging: Hanging
) -> AsyncGenerator[tuple[Task, Frozen]]:
    """A task whose worker is stopped in a call, for longer than its lease; other workers can take it."""
    async with open_test_store(url, clock) as store:
        frozen = Frozen(store)
        here = Engine(frozen, LocalDispatcher())
        task = await submit(engine)
        async with working(here, agent, concurrency=1, owner="frozen", lease_seconds=5.0):
            await hanging.begun.wait()
            while not (await engine.sweep()).released:  # the first look gives it the time of a heartbeat
                clock.advance(60)
            try:
                yield task, frozen
            finally:
                frozen.going_on.set()


@pytest.mark.parametrize(
    "result, shown, failed",
    [
        ({"receipt": 4711}, '{"receipt":4711}', False),
        ("x" * 100_000, '"' + "x" * (MAX_LATE_SHOWN - 1), False),
        (ToolError("the bank says no"), "the bank says no", True),
    ],
)
async def test_the_result_of_a_worker_that_comes_back_is_kept_with_the_question(
    url: str, clock: FakeClock, engine: Engine, result: Any, shown: str, failed: bool
):
    hanging, told, paid = Hanging(), list[str](), list[int]()
    agent = paying(hanging, result, told, paid)
    async with (
        frozen_in_a_call(url, clock, engine, agent, hanging) as (task, _frozen),
        working(engine, agent),
    ):
        await until(engine, task, is_(TaskStatus.WAITING))
        steps = await steps_of(engine.store, task)
        hanging.go_on.set()
        waiting = await until(engine, task, lambda now: bool(now.late_results))
        (approval,) = waiting.approvals
        (late,) = approval.late_results
        assert (late.tool, late.worker, late.shown, late.failed) == ("pay", "frozen", shown, failed)
        # by itself it is not the result
        assert waiting.status is TaskStatus.WAITING
        assert await steps_of(engine.store, task) == steps
        given = ApprovalGiven(approval_id="", approved=False, by="kim")
        await engine.settle(task.tenant, task.id, approval.asked.approval_id, given, late=True)
        found = await ended(engine, task)
        again = await engine.settle(task.tenant, task.id, approval.asked.call_id, given, late=True)
    assert (found.status, paid, again.status) == (TaskStatus.COMPLETED, [1], TaskStatus.COMPLETED)
    (returned,) = [step for step in await steps_of(engine.store, task) if isinstance(step, ToolReturned)]
    assert returned.output == (None if failed else result)
    assert (returned.error is not None) == failed
    assert "A person (kim)" in told[0]


async def test_a_result_that_comes_after_the_answer_stays_with_the_task(
    url: str, clock: FakeClock, engine: Engine
):
    hanging = Hanging()
    agent = paying(hanging, "paid")
    async with (
        frozen_in_a_call(url, clock, engine, agent, hanging) as (task, _frozen),
        working(engine, agent),
    ):
        (approval,) = (await until(engine, task, is_(TaskStatus.WAITING))).approvals
        denied = ApprovalGiven(approval_id=approval.asked.approval_id, approved=False)
        await engine.answer(task.tenant, task.id, denied)
        await ended(engine, task)
        steps = await steps_of(engine.store, task)
        hanging.go_on.set()
        found = await until(engine, task, lambda now: bool(now.late_results))
        with pytest.raises(ApprovalConflict, match="denied"):
            await engine.settle(task.tenant, task.id, approval.asked.call_id, denied, late=True)
    assert found.late_results[0].shown == '"paid"'
    assert await steps_of(engine.store, task) == steps


async def test_what_a_heartbeat_finds_first_is_kept_all_the_same(url: str, clock: FakeClock, engine: Engine):
    """The tool has returned when the run is given up."""
    hanging = Hanging()
    agent = paying(hanging, "paid")
    async with frozen_in_a_call(url, clock, engine, agent, hanging) as (task, frozen):
        appended, go_on = asyncio.Event(), asyncio.Event()
        inner = frozen._store.append_all

        async def append_all(*given: Any) -> Any:
            appended.set()
            await go_on.wait()
            return await inner(*given)

        frozen.append_all = append_all  # type: ignore[attr-defined]
        hanging.go_on.set()
        await appended.wait()
        frozen.going_on.set()
        async with working(engine, agent):
            await until(engine, task, is_(TaskStatus.WAITING))
        go_on.set()
        found = await until(engine, task, lambda now: bool(now.late_results))
    assert found.late_results[0].shown == '"paid"'


async def test_a_call_that_can_be_repeated_has_no_late_result(url: str, clock: FakeClock, engine: Engine):
    hanging = Hanging()
    agent = Agent(
        ScriptedModel.by_turn([call("hang"), "Done."]),
        name="agent",
        tools=[hanging.tool(effect="idempotent")],
    )
    async with frozen_in_a_call(url, clock, engine, agent, hanging) as (task, _frozen):
        hanging.go_on.set()
        async with working(engine, agent):
            assert (await ended(engine, task)).late_results == ()


# --- at every door -----------------------------------------------------------------------------------------------


@pytest.fixture
async def stage(tmp_path) -> AsyncGenerator[Stage]:
    async with staged(tmp_path) as opened:
        yield opened


async def test_a_late_result_is_told_and_taken_over_every_wire(stage: Stage, client: Operations):
    task_id = await reported_late(stage.ops.engine.store, worker="lost")
    task = await client.get(task_id)
    (late,) = task.late_results
    assert (late.call, late.tool, late.worker, late.failed) == ("call_1", "count", "lost", False)
    assert late.shown == "[1,2,3]"
    assert [approval.late_results for approval in task.approvals] == [[late]]
    assert [approval.late_results for approval in (await client.approvals()).items] == [[late]]
    assert [each.late_results for each in (await client.list()).items] == [[]]
    settled = await client.settle(task_id, SettleRequest(call="call_1", late=True, by="kim"))
    assert (settled.approvals, settled.late_results) == ([], [late])
    given = (await client.steps(task_id))[-1].step
    assert isinstance(given, ApprovalGiven)
    assert (given.by, given.approval_id, given.settlement) == (
        "kim",
        "call_1.1",
        Settlement(output=[1, 2, 3]),
    )


async def test_where_nothing_was_reported_there_is_nothing_to_take(stage: Stage, client: Operations):
    task_id = await reported_late(stage.ops.engine.store, worker="lost", result=None)
    with pytest.raises(InvalidRequest, match="late result of call call_1"):
        await client.settle(task_id, SettleRequest(call="call_1", late=True))
    with pytest.raises(ApprovalNotFound):
        await client.settle(task_id, SettleRequest(call="call_2", late=True))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"late": False},
        {"late": 1},
        {"late": True, "result": 1},
        {"late": True, "failed": "no"},
        {"late": True, "result": None},
    ],
)
async def test_one_outcome_is_said(stage: Stage, given: dict[str, Any]):
    body = {"call": "call_1", **given}
    task_id = await reported_late(stage.ops.engine.store, worker="lost")
    told = await stage.json("POST", f"/api/v1/tasks/{task_id}/settle", json=body, expected=422)
    assert told["code"] == "invalid_request"


async def test_the_command_line_shows_and_takes_it(stage: Stage, capsys: pytest.CaptureFixture[str]):
    shown = "lost reports late: count has returned [1,2,3]"
    task_id = await reported_late(stage.ops.engine.store, worker="lost")
    assert await list_approvals(10, stage.url, as_json=False) is Exit.OK
    assert shown in capsys.readouterr().out
    assert await show_task(task_id, stage.url, as_json=False) is Exit.OK
    told = capsys.readouterr().out
    assert shown in told
    assert f"opspawn settle {task_id} call_1.1 --late" in told
    assert await settle_call(task_id, Known(call="call_1", late=True), stage.url, as_json=False) is Exit.OK
    assert "settled" in capsys.readouterr().out
    assert await show_task(task_id, stage.url, as_json=False) is Exit.OK
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize(
    "known",
    [Known(call="c"), Known(call="c", late=True, result="1"), Known(call="c", failed="no", result="1")],
)
async def test_the_command_line_wants_one_outcome(known: Known):
    with pytest.raises(InvalidRequest, match="one of --result JSON, --failed REASON and --late"):
        await settle_call("1", known, None, as_json=False)
