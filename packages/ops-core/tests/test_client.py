"""One contract for all clients, and what only the one over HTTP has to be good at."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from agentkit.memories import HashEmbeddings, Note, Scope
from agentkit.money import nanos
from agentkit.transcript.steps import ApprovalAsked, Finished, ModelAsked, ToolReturned
from ops_core.client import Operations, open_client
from ops_core.config.model_terms import ModelTerms
from ops_core.errors import (
    AgentNotFound,
    ApprovalConflict,
    ApprovalNotFound,
    ConfigError,
    IdempotencyConflict,
    InvalidRequest,
    TaskNotFound,
    TransitionRefused,
)
from ops_core.halt import HaltKind
from ops_core.memory import DatabaseMemory
from ops_core.ports import NoteFilter
from ops_core.schemas import (
    ApprovalRequest,
    BatchItem,
    HaltRequest,
    LiftRequest,
    NoteBody,
    RecallRequest,
    SettleRequest,
)
from ops_core.service import LocalClient
from ops_core.spending import Charge, Spending
from ops_core.task import NewTask

from .api_support import FAR, NOWHERE, Stage, staged  # type: ignore[import-not-found]
from .client_support import item, request  # type: ignore[import-not-found]


@pytest.fixture
async def stage(tmp_path) -> AsyncGenerator[Stage]:
    async with staged(tmp_path) as opened:
        yield opened


# --- the contract -------------------------------------------------------------------------------------------------


async def test_a_task_is_submitted_and_waited_for(client: Operations):
    given = {"a": [1, 1.0, None, "\u2028Ω", 2**53 + 1, -(10**40), 1e-300, {"": [[], {}, False]}], "": ""}
    task = await client.submit(request(input=given, labels={"k": "v"}))
    ended = await client.wait_for_end(task.id)
    assert (ended.status, ended.output) == ("completed", "done")
    assert repr(ended.input) == repr(given)
    assert ended == await client.get(task.id)
    assert (await client.submit(request(), wait=20)).status == "completed"


async def test_waiting_for_an_end_ends_with_the_time(client: Operations):
    task = await client.submit(request(run_at=FAR), wait=0)
    assert (await client.wait_for_end(task.id, 0.05)).status == "pending"


async def test_a_key_finds_its_task(client: Operations):
    first = await client.submit(request(run_at=FAR), idempotency_key="k")
    assert (await client.submit(request(run_at=FAR), idempotency_key="k")).id == first.id
    assert (await client.submit(request(run_at=FAR))).id != first.id
    with pytest.raises(IdempotencyConflict) as raised:
        await client.submit(request("held"), idempotency_key="k")
    assert raised.value.field == "Idempotency-Key"
    with pytest.raises(InvalidRequest):
        await client.submit(request(), idempotency_key="ü")


async def test_every_field_arrives(client: Operations, stage):
    fields: dict[str, Any] = {
        "priority": -7, "timeout_seconds": 60.5, "max_attempts": 9, "labels": {"a/b": "", "c": "ü"},
        "run_at": "2999-01-01T00:00:00.123456+02:00", "budget": {"steps": 5, "tokens": 2**53, "seconds": 0.5},
    }  # fmt: skip
    task = await client.submit(request(**fields))
    stored = await stage.ops.engine.get("default", task.id)
    wanted = request(**fields).as_new_task()
    for name in ("agent", "input", "labels", "priority", "timeout_seconds", "budget", "max_attempts"):
        assert getattr(stored, name) == getattr(wanted, name)
    assert task.run_after is not None
    assert task.run_after.timestamp() == wanted.run_at == stored.run_after
    assert (task.priority, task.labels) == (-7, fields["labels"])


async def test_the_same_key_over_another_wire_is_the_same_task(stage):
    fields: dict[str, Any] = {
        "run_at": FAR,
        "timeout_seconds": 60,
        "budget": {"steps": 5},
        "input": {"a": 1.0},
    }
    ids = set[str | None]()
    async with open_client(stage.url) as http, open_client(stage.grpc_url) as grpc:
        for client in (http, grpc, LocalClient(stage.ops.engine, stage.agents)):
            ids.add((await client.submit(request(**fields), idempotency_key="k")).id)
            [result] = await client.submit_many([item(idempotency_key="k", **fields)])
            assert result.status == 200
            ids.add(result.task_id)
    assert len(ids) == 1


async def test_a_task_that_failed_says_why(client: Operations):
    task = await client.submit(request("failing"), wait=20)
    assert task.status == "failed"
    assert task.error is not None
    assert task.error.message
    assert task.output is None
    assert task.run_after is None


async def test_each_task_of_a_batch_is_accepted_or_refused_by_itself(client: Operations):
    taken = await client.submit(request("held", run_at=FAR), idempotency_key="taken")
    items = [
        item(run_at=FAR, idempotency_key="a"),
        item("nobody"),
        item(run_at=FAR, idempotency_key="taken"),  # for another agent
        item("held", run_at=FAR, idempotency_key="taken"),
        item(run_at=FAR),
    ]
    results = await client.submit_many(items)
    assert [result.status for result in results] == [202, 422, 422, 200, 202]
    problems = [result.problem for result in results]
    assert [problem and (problem.code, problem.field) for problem in problems] == [
        None,
        ("agent_not_found", "agent"),
        ("idempotency_conflict", "idempotency_key"),
        None,
        None,
    ]
    assert results[3].task_id == taken.id
    again = await client.submit_many(items)
    assert [result.status for result in again] == [200, 422, 422, 200, 202]
    assert again[0].task_id == results[0].task_id
    found = [task.id async for task in client.tasks()]
    assert len(found) == 4
    assert {result.task_id for result in (*results, *again)} == {*found, None}


async def test_more_than_one_batch_holds(client: Operations, stage):
    items = [item(run_at=FAR, labels={"n": str(n)}) for n in range(1001)]
    results = await client.submit_many(items)
    assert [result.status for result in results] == [202] * 1001
    for n in (0, 999, 1000):
        assert (await client.get(results[n].task_id or "")).labels == {"n": str(n)}


async def test_what_is_wrong_is_named(client: Operations):
    with pytest.raises(AgentNotFound) as raised:
        await client.submit(request("nobody"))
    assert raised.value.field == "agent"
    for wrong in (
        {"status": ["asleep"]},
        {"label": "a b"},
        {"cursor": "x"},
        {"limit": 0},
        {"agent": "\udcff"},
    ):
        with pytest.raises(InvalidRequest) as refused:
            await client.list(**wrong)
        assert refused.value.field == next(iter(wrong))


@pytest.mark.parametrize("task_id", [NOWHERE, "x", "a/b", "", "%", "Ω", "\udcff"])
async def test_what_is_not_there_is_not_found(client: Operations, task_id):
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: client.get(task_id),
        lambda: client.steps(task_id),
        lambda: client.cancel(task_id),
        lambda: client.retry(task_id),
        lambda: client.answer(task_id, "a", ApprovalRequest(approved=True)),
        lambda: client.wait_for_end(task_id),
        lambda: anext(client.watch(task_id)),
    ]
    for call in calls:
        with pytest.raises(TaskNotFound):
            await call()


async def test_lists_are_filtered_and_paged(client: Operations):
    made = [(await client.submit(request(run_at=FAR, labels={"n": str(n)}))).id for n in range(5)]
    await client.cancel(made[1])
    page = await client.list(limit=2)
    assert [task.id for task in page.items] == made[:2:-1]
    following = await client.list(limit=2, cursor=page.next_cursor)
    assert [task.id for task in following.items] == made[2:0:-1]
    assert [task.id async for task in client.tasks()] == made[::-1]
    assert [task.id async for task in client.tasks(status=["cancelled", "failed"])] == [made[1]]
    assert [task.id async for task in client.tasks(label="n=3", agent="quick")] == [made[3]]


async def test_a_cursor_of_another_list_is_refused(client: Operations):
    for _ in range(2):
        await client.submit(request(run_at=FAR))
    page = await client.list(limit=1)
    with pytest.raises(InvalidRequest, match="other filters") as refused:
        await client.list(limit=1, agent="quick", cursor=page.next_cursor)
    assert refused.value.field == "cursor"
    assert len((await client.list(limit=2, cursor=page.next_cursor)).items) == 1


async def test_notes_are_listed_recalled_and_forgotten(client: Operations, stage):
    memory = DatabaseMemory(stage.ops.engine.store, HashEmbeddings())
    kim, jo = (Scope(tenant="default", agent="knowing", key=key) for key in ("kim", "jo"))
    others = Scope(tenant="other", agent="knowing", key="kim")
    for number, (scope, text) in enumerate(
        [
            (kim, "Kim likes green tea."),
            (jo, "Jo likes coffee."),
            (kim, "Kim has a dog."),
            (others, "Secret."),
        ]
    ):
        await memory.remember(scope, Note(id=f"n{number}", text=text, source="form", at=1000.0 + number // 2))

    listed = await client.notes()
    assert [(note.id, note.key, note.score) for note in listed.items] == [
        *[("n2", "kim", None), ("n1", "jo", None), ("n0", "kim", None)]
    ]
    assert (listed.items[0].agent, listed.items[0].source, listed.items[0].at.timestamp()) == (
        *("knowing", "form", 1001.0),
    )
    cursor: str | None = None
    found: list[NoteBody] = []
    while cursor is not None or not found:
        page = await client.notes(limit=1, cursor=cursor)
        found += page.items
        cursor = page.next_cursor
    assert found == listed.items
    assert [note.id for note in (await client.notes(agent="knowing", key="kim")).items] == ["n2", "n0"]

    asked = RecallRequest(agent="knowing", key="kim", query="Which tea does Kim like?", limit=1)
    (recalled,) = await client.recall(asked)
    assert (recalled.id, recalled.text) == ("n0", "Kim likes green tea.")
    assert recalled.score is not None
    assert 0.2 < recalled.score <= 1

    assert await client.forget(ids=["n1", "n2", "none"], key="kim") == 1
    assert await client.forget(agent="nobody") == 0
    assert await client.forget(everything=True) == 2
    assert (await client.notes()).items == []
    assert [kept.note.id for kept in await stage.ops.engine.store.list_notes("other", NoteFilter())] == ["n3"]


async def test_what_is_wrong_about_notes_is_named(client: Operations):
    wrong: list[tuple[str, Callable[[], Awaitable[object]]]] = [
        ("cursor", lambda: client.notes(cursor="tomorrow")),
        ("limit", lambda: client.notes(limit=0)),
        ("agent", lambda: client.notes(agent="")),
        ("key", lambda: client.notes(key="a\x00")),
        ("all", client.forget),
        ("all", lambda: client.forget(everything=True, key="kim")),
        ("id", lambda: client.forget(ids=["x" * 65])),
        ("agent", lambda: client.recall(RecallRequest(agent="nobody", query="x"))),
        ("agent", lambda: client.recall(RecallRequest(agent="quick", query="x"))),
        ("key", lambda: client.recall(RecallRequest(agent="knowing", query="x"))),
    ]
    for field, call in wrong:
        with pytest.raises(InvalidRequest) as refused:
            await call()
        assert refused.value.field == field


async def test_what_is_spent_is_told(client: Operations, stage):
    assert (await client.spending()).limit_usd is None
    stage.agents.terms = ModelTerms(spending=Spending(tenants={"default": 2.5}))
    task = (await stage.ops.engine.submit(NewTask(agent="nobody here", input="x"))).task
    (claimed,) = await stage.ops.engine.store.claim("me", 1, 60.0, ["nobody here"])
    asked = ModelAsked(model="scripted:model", reserved_usd=0.75, input_bound=10)
    charge = Charge(reserve=nanos(0.75), limit=nanos(2.5), unsettled=nanos(0.75))
    await stage.ops.engine.store.append_all(claimed.lease, (asked,), charge)
    spending = await client.spending()
    assert (spending.spent_usd, spending.reserved_usd, spending.limit_usd) == (0.0, 0.75, 2.5)
    assert (await client.get(task.id)).usage.unsettled_usd == 0.75


async def test_steps_are_watched_from_any_of_them_on(client: Operations, stage):
    task = await client.submit(request("held"))
    seen = []
    async for recorded in client.watch(task.id):
        seen.append(recorded)
        stage.agents.gate.set()
    assert [recorded.seq for recorded in seen] == [0, 1, 2]
    assert isinstance(seen[-1].step, Finished)
    assert list(await client.steps(task.id)) == seen
    assert list(await client.steps(task.id, after=1)) == seen[2:]
    assert [recorded async for recorded in client.watch(task.id, after=0)] == seen[1:]


async def test_an_id_may_be_written_in_capitals(client: Operations):
    task = await client.submit(request(run_at=FAR))
    assert (await client.get(task.id.upper())).id == task.id


async def test_an_approval_is_answered_once(client: Operations):
    task = await client.submit(request("asking"))
    async for recorded in client.watch(task.id):
        if isinstance(recorded.step, ApprovalAsked):
            approval_id = recorded.step.approval_id
            break
    with pytest.raises(ApprovalNotFound):
        await client.answer(task.id, "another/one", ApprovalRequest(approved=True))
    await client.answer(task.id, approval_id, ApprovalRequest(approved=False, reason="no", by="kim"))
    assert (await client.wait_for_end(task.id)).output == "launched"
    with pytest.raises(TransitionRefused):
        await client.answer(task.id, approval_id, ApprovalRequest(approved=True))


@pytest.mark.parametrize(
    "outcome", [{"result": {"receipt": 4711}}, {"result": None}, {"failed": "the till was shut"}]
)
async def test_what_came_of_a_call_is_settled_once(client: Operations, outcome: dict[str, Any]):
    task = await client.submit(request("asking"))
    async for recorded in client.watch(task.id):
        if isinstance(recorded.step, ApprovalAsked):
            asked = recorded.step
            break
    with pytest.raises(ApprovalNotFound):
        await client.settle(task.id, SettleRequest(call="another", **outcome))
    settled = SettleRequest(call=asked.call_id, by="kim", digest=asked.digest, **outcome)
    for _ in range(2):
        await client.settle(task.id, settled)
        with pytest.raises(ApprovalConflict):
            await client.answer(task.id, asked.approval_id, ApprovalRequest(approved=True))
        with pytest.raises(ApprovalConflict):
            await client.settle(task.id, SettleRequest(call=asked.approval_id, result="another"))
        assert (await client.wait_for_end(task.id)).output == "launched"
    (returned,) = [one.step for one in await client.steps(task.id) if isinstance(one.step, ToolReturned)]
    assert returned.output == outcome.get("result")
    told = returned.remark if returned.error is None else returned.error.message
    assert "A person (kim) has said" in told
    assert "the till was shut" in told or returned.error is None


@pytest.mark.parametrize("wrong", [{}, {"result": 1, "failed": "no"}, {"result": "x" * 4_000_000}])
def test_a_settlement_says_one_thing(wrong: dict[str, Any]):
    with pytest.raises(ValueError, match="result"):
        SettleRequest(call="c", **wrong)


async def test_an_agent_whose_tools_cannot_be_listed_harms_no_other(client: Operations, stage: Stage):
    class Unapproved:
        async def specs(self) -> Any:
            raise ConfigError("the MCP server notes is not approved: opspawn mcp approve notes")

    served = stage.agents.get("quick")
    stage.agents._served["quick"] = replace(served, agent=replace(served.agent, tools=(Unapproved(),)))
    found = {agent.name: agent.problem for agent in await client.agents()}
    assert "notes is not approved" in str(found.pop("quick"))
    assert set(found.values()) == {None}
    assert "notes is not approved" in str((await client.agent("quick")).problem)


async def test_cancel_and_retry(client: Operations):
    task = await client.submit(request(run_at=FAR))
    assert (await client.cancel(task.id)).status == "cancelled"
    assert (await client.cancel(task.id)).status == "cancelled"
    again = await client.retry(task.id)
    assert again.id != task.id
    assert (await client.wait_for_end(again.id)).status == "completed"
    with pytest.raises(TransitionRefused):
        await client.retry(again.id)


async def test_a_task_is_retried_once(client: Operations):
    task = await client.cancel((await client.submit(request(run_at=FAR))).id)
    assert task.retried_as is None
    asked = [client.retry(task.id, idempotency_key=key) for key in (None, "once", "once", "twice", None)]
    (again,) = {one.id for one in await asyncio.gather(*asked)}
    assert (await client.get(task.id)).retried_as == again
    other = await client.cancel((await client.submit(request(run_at=FAR))).id)
    await client.retry(other.id, idempotency_key="of another one")
    with pytest.raises(IdempotencyConflict):
        await client.submit(request(), idempotency_key="of another one")
    third = await client.cancel((await client.submit(request(run_at=FAR))).id)
    with pytest.raises(IdempotencyConflict):
        await client.retry(third.id, idempotency_key="of another one")


async def test_a_halt_and_a_batch_with_a_key_are_made_once(client: Operations):
    order = HaltRequest(kind=HaltKind.AGENT, target="held", reason="slow")
    first = await client.halt(order, idempotency_key="h")
    await client.lift(first.id, LiftRequest())
    assert (await client.halt(order, idempotency_key="h")).lifted_at is not None
    assert len((await client.halts(in_force=False)).items) == 1
    with pytest.raises(IdempotencyConflict):
        await client.halt(order.model_copy(update={"reason": "quick"}), idempotency_key="h")

    items = [BatchItem(agent=agent, input="2 + 2", run_at=FAR) for agent in ("nobody", "quick", "quick")]
    made = await client.submit_many(items, idempotency_key="b")
    assert [one.status for one in made] == [422, 202, 202]
    again = await client.submit_many(items, idempotency_key="b")
    assert [one.status for one in again] == [422, 200, 200]
    assert [one.task_id for one in again] == [one.task_id for one in made]
    for others in (items[:2], [*items, items[1]], items[::-1]):
        with pytest.raises(IdempotencyConflict):
            await client.submit_many(others, idempotency_key="b")
    with pytest.raises(InvalidRequest, match="not both"):
        await client.submit_many(
            [items[1].model_copy(update={"idempotency_key": "mine"})], idempotency_key="c"
        )
    assert len((await client.list()).items) == 2


async def test_agents(client: Operations):
    assert [agent.name for agent in await client.agents()] == [
        *("quick", "failing", "asking", "held", "a/b", "knowing")
    ]
    assert (await client.agent("a/b")).instructions == "A name with a slash."
    with pytest.raises(AgentNotFound):
        await client.agent("nobody")
