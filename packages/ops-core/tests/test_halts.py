"""Somebody halts something, and nothing of it begins any more; the order comes from another process."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from agentkit.agent import Agent
from agentkit.budget.limits import Limits
from agentkit.messages import ToolCall
from agentkit.testing.models import ScriptedModel
from agentkit.tools import tool
from agentkit.transcript.steps import ApprovalAsked, ToolReturned, ToolStarted
from ops_core.client import Operations
from ops_core.errors import HaltNotFound, InvalidRequest, TaskNotFound, TransitionRefused
from ops_core.halt import MAX_REASON, HaltKind, NewHalt
from ops_core.schemas import HaltRequest, LiftRequest, TaskRequest
from ops_core.task import DEFAULT_TENANT, NewTask, Task, TaskStatus
from ops_core.testing import open_test_ops
from ops_core.testing.store_contract.examples import steps_of

from .api_support import NOWHERE, Stage, staged  # type: ignore[import-not-found]

TURNS = 40


class Mill:
    """A tool that changes something, and agents that call it again and again."""

    def __init__(self) -> None:
        self.turned = 0
        self.at_work = asyncio.Event()

        @tool(effect="unsafe")
        async def turn(n: int) -> int:
            """Turn."""
            self.turned += 1
            self.at_work.set()
            await asyncio.sleep(0)
            return n

        @tool(effect="unsafe")
        async def turn_for_ever() -> None:
            """Turn and never end."""
            self.turned += 1
            self.at_work.set()
            await asyncio.Event().wait()

        calls = [ToolCall(id=f"c{number}", name="turn", arguments={"n": number}) for number in range(TURNS)]
        self.miller = Agent(
            ScriptedModel.by_turn([*calls, "done"]), name="miller", tools=[turn], limits=Limits(steps=None)
        )
        model = ScriptedModel.by_turn([ToolCall(id="c1", name="turn_for_ever"), "done"])
        self.stuck = Agent(model, name="stuck", tools=[turn_for_ever])


@pytest.fixture
async def mill() -> Mill:
    return Mill()


@pytest.fixture
async def platforms(mill, database, request, tmp_path) -> AsyncGenerator[list[Any]]:
    """Two on one database: what one of them is told, the other one has to find out."""
    url = f"sqlite:///{tmp_path}/ops.db" if database == "sqlite" else request.getfixturevalue("url")
    if database != "sqlite":
        from ops_core.stores import migrations, open_store

        await asyncio.to_thread(migrations.upgrade, open_store(url))
    agents = (mill.miller, mill.stuck)
    async with (
        open_test_ops(*agents, store_url=url) as first,
        open_test_ops(*agents, store_url=url) as second,
    ):
        yield [first, second]


async def submit(ops: Any, agent: str) -> Task:
    return (await ops.engine.submit(NewTask(agent=agent, input="Go."))).task


async def until_status(ops: Any, task: Task, *statuses: TaskStatus) -> Task:
    async with asyncio.timeout(20):
        while (now := await ops.engine.get(DEFAULT_TENANT, task.id)).status not in statuses:
            await asyncio.sleep(0.01)
        return now


async def test_twenty_runs_are_halted_and_none_does_anything_more(platforms, mill, database):
    first, second = platforms
    agent = NewHalt(kind=HaltKind.AGENT, target="miller", reason="it grinds nothing")
    new = NewHalt(kind=HaltKind.ALL) if database == "sqlite" else agent
    async with second.working():
        tasks = [await submit(second, "miller") for _ in range(20)]
        await mill.at_work.wait()
        halt = await first.engine.halt(DEFAULT_TENANT, new)
        done = mill.turned
        held = [await until_status(second, task, TaskStatus.PENDING, TaskStatus.COMPLETED) for task in tasks]
        later = await submit(first, "miller")
        await asyncio.sleep(0.3)  # several polls of a runner that may not find anything
        assert mill.turned == done
        assert all(task.status is TaskStatus.PENDING for task in held)
        assert {task.error.code for task in held if task.error is not None} <= {"halted"}
        assert (await first.engine.get(DEFAULT_TENANT, later.id)).status is TaskStatus.PENDING
        await first.engine.lift(DEFAULT_TENANT, halt.id, by="kim", reason="it grinds")
        assert (await first.engine.until_ended(DEFAULT_TENANT, later.id, 20)).status is TaskStatus.COMPLETED


async def test_one_task_is_halted_while_its_tool_works_and_the_others_go_on(platforms, mill):
    first, second = platforms
    async with second.working():
        task = await submit(second, "stuck")
        await mill.at_work.wait()
        halt = await first.engine.halt(
            DEFAULT_TENANT, NewHalt(kind=HaltKind.TASK, target=task.id, reason="odd")
        )
        held = await until_status(first, task, TaskStatus.PENDING)
        assert held.error is not None
        assert "odd" in held.error.message
        assert held.attempt == 0
        other = await submit(second, "miller")
        assert (await second.engine.until_ended(DEFAULT_TENANT, other.id, 20)).status is TaskStatus.COMPLETED
        await first.engine.lift(DEFAULT_TENANT, halt.id)
        waiting = await until_status(first, task, TaskStatus.WAITING)  # nobody knows what its call has done
        asked = [
            step for step in await steps_of(first.engine.store, waiting) if isinstance(step, ApprovalAsked)
        ]
        assert [step.interrupted for step in asked] == [True]


async def test_a_tool_is_halted_and_the_runs_go_on_without_it(platforms, mill):
    first, second = platforms
    async with second.working():
        task = await submit(second, "miller")
        await mill.at_work.wait()
        new = NewHalt(kind=HaltKind.TOOL, target="tur?", reason="it grinds nothing")
        await first.engine.halt(DEFAULT_TENANT, new)
        done = mill.turned
        ended = await first.engine.until_ended(DEFAULT_TENANT, task.id, 20)
        assert ended.status is TaskStatus.COMPLETED
        assert mill.turned == done
        steps = await steps_of(first.engine.store, ended)
        refused = [step for step in steps if isinstance(step, ToolReturned) and step.error is not None]
        assert refused
        assert {step.error.code for step in refused} == {"tool_halted"}
        assert "it grinds nothing" in refused[-1].error.message
        assert refused[-1].ruling is not None
        begun = sum(isinstance(step, ToolStarted) for step in steps)
        assert begun <= done + 1  # at most one was about to begin


async def test_a_call_under_way_of_a_halted_tool_is_cancelled(platforms, mill):
    first, second = platforms
    async with second.working():
        task = await submit(second, "stuck")
        await mill.at_work.wait()
        await first.engine.halt(DEFAULT_TENANT, NewHalt(kind=HaltKind.TOOL, target="turn_for_ever"))
        ended = await first.engine.until_ended(DEFAULT_TENANT, task.id, 20)
        assert ended.status is TaskStatus.COMPLETED


async def test_what_another_tenant_has_halted_holds_nobody_else(platforms, mill):
    first, second = platforms
    async with second.working():
        await first.engine.halt("other", NewHalt(kind=HaltKind.ALL))
        await first.engine.halt("other", NewHalt(kind=HaltKind.TOOL, target="*"))
        task = await submit(second, "miller")
        assert (await first.engine.until_ended(DEFAULT_TENANT, task.id, 20)).status is TaskStatus.COMPLETED
        assert mill.turned == TURNS


@pytest.mark.parametrize(
    "wrong, field",
    [
        ({"kind": HaltKind.ALL, "target": "x"}, "target"),
        ({"kind": HaltKind.TOOL}, "target"),
        ({"kind": HaltKind.TOOL, "target": " "}, "target"),
        ({"kind": HaltKind.TOOL, "target": "a\x00"}, "target"),
        ({"kind": HaltKind.ALL, "reason": "x" * (MAX_REASON + 1)}, "reason"),
        ({"kind": HaltKind.ALL, "by": "\ud800"}, "by"),
    ],
)
def test_a_halt_that_makes_no_sense_is_refused(wrong, field):
    with pytest.raises(InvalidRequest) as refused:
        NewHalt(**wrong)
    assert refused.value.field == field


# --- over every wire ------------------------------------------------------------------------------------------------


@pytest.fixture
async def stage(tmp_path) -> AsyncGenerator[Stage]:
    async with staged(tmp_path) as opened:
        yield opened


def halting(**fields: Any) -> HaltRequest:
    return HaltRequest.model_validate(fields)


async def test_an_agent_is_halted_and_goes_on(client: Operations):
    halt = await client.halt(halting(kind="agent", target="quick", reason="Zu laut: ü\u202e", by="kim"))
    assert (halt.kind, halt.target, halt.reason, halt.by) == (
        HaltKind.AGENT,
        "quick",
        "Zu laut: ü\u202e",
        "kim",
    )
    assert halt.lifted_at is None
    task = await client.submit(TaskRequest(agent="quick", input="go"))
    assert (await client.wait_for_end(task.id, 0.3)).status == "pending"
    assert (await client.halts()).items == [halt]
    lifted = await client.lift(halt.id, LiftRequest(by="ann", reason="leise"))
    assert (lifted.lifted_by, lifted.lifted_reason) == ("ann", "leise")
    assert await client.lift(halt.id, LiftRequest(by="zoe")) == lifted
    assert (await client.wait_for_end(task.id, 20)).status == "completed"
    assert (await client.halts()).items == []
    assert (await client.halts(in_force=False)).items == [lifted]


async def test_halts_are_listed_page_by_page(client: Operations):
    made = [await client.halt(halting(kind="tool", target=f"t{number}")) for number in range(3)]
    first = await client.halts(limit=2)
    assert first.items == made[:0:-1]
    assert first.next_cursor is not None
    second = await client.halts(limit=2, cursor=first.next_cursor)
    assert (second.items, second.next_cursor) == (made[:1], None)
    with pytest.raises(InvalidRequest):
        await client.halts(in_force=False, cursor=first.next_cursor)


async def test_what_cannot_be_halted_or_lifted_is_said(client: Operations):
    for wrong, error in (
        ({"kind": "task", "target": NOWHERE}, TaskNotFound),
        ({"kind": "task", "target": "x"}, TaskNotFound),
        ({"kind": "agent"}, InvalidRequest),
        ({"kind": "all", "target": "x"}, InvalidRequest),
    ):
        with pytest.raises(error):
            await client.halt(halting(**wrong))
    ended = await client.submit(TaskRequest(agent="quick", input="go"), wait=20)
    with pytest.raises(TransitionRefused):
        await client.halt(halting(kind="task", target=ended.id))
    for halt_id in (NOWHERE, "x"):
        with pytest.raises(HaltNotFound):
            await client.lift(halt_id, LiftRequest())
