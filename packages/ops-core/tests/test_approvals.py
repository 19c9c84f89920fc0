"""Open approvals on the platform: found, shown as they are, answered once, over every wire, and expiring."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from agentkit.agent import Agent
from agentkit.messages import ToolCall
from agentkit.policies import Between, Rule, SecurityPolicy
from agentkit.testing.models import ScriptedModel
from agentkit.tools import tool
from agentkit.transcript.steps import ApprovalAsked, ApprovalGiven, ToolReturned
from ops_core.client import Operations
from ops_core.dispatchers import LocalDispatcher
from ops_core.engine import Engine
from ops_core.errors import ApprovalConflict, ApprovalExpired, InvalidRequest
from ops_core.observability.redaction import json_line, unmistakable, visible
from ops_core.ports import ApprovalFilter
from ops_core.schemas import ApprovalBody, ApprovalRequest, TaskBody, TaskRequest
from ops_core.service import LocalClient
from ops_core.stores import SqlStore
from ops_core.task import DEFAULT_TENANT, TaskStatus
from ops_core.testing import FakeClock
from ops_core.testing.store_contract.examples import (
    AGENT,
    ASKED,
    CALLED,
    GIVEN,
    OTHER_TENANT,
    STARTED,
    TENANT,
    brought_to,
    claimed,
    steps_of,
)

from .api_support import Stage, staged  # type: ignore[import-not-found]

SOON = 20.0


@tool(effect="pure", approval=True, sandbox="inprocess")
def pay(amount: float, to: str) -> str:
    """Pay."""
    return f"paid {amount:g} to {to}"


def paying(name: str, calls: int) -> Agent:
    asked = [
        ToolCall(id=f"call_{n}", name="pay", arguments={"amount": n + 1, "to": "a\u202eb\u200d"})
        for n in range(calls)
    ]
    check = Between(most=100, most_per_run=150)
    policy = SecurityPolicy(rules=[Rule(tools=["pay"], argument="amount", check=check)])
    return Agent(ScriptedModel.by_turn([asked, "done"]), name=name, tools=[pay], policy=policy)


@pytest.fixture
async def stage(tmp_path) -> AsyncGenerator[Stage]:
    async with staged(tmp_path, paying("payer", 1), paying("many", 3)) as opened:
        yield opened


async def waiting(client: Operations, agent: str = "payer") -> TaskBody:
    task = await client.submit(TaskRequest(agent=agent, input="go"))
    async with asyncio.timeout(SOON):
        while (task := await client.get(task.id)).status is not TaskStatus.WAITING:
            await asyncio.sleep(0.01)
    return task


# --- over every wire ---------------------------------------------------------------------------------------------


async def test_a_waiting_task_shows_what_it_waits_for(client: Operations):
    task = await waiting(client)
    (approval,) = task.approvals
    assert (approval.task_id, approval.agent, approval.tool) == (task.id, "payer", "pay")
    assert approval.arguments == {"amount": 1, "to": "a\u202eb\u200d"}
    assert approval.shown == '{"amount": 1, "to": "a\\u202eb\\u200d"}'
    assert (approval.reason, approval.interrupted) == ("pay needs approval", False)
    assert approval.expires_at is not None
    assert (approval.expires_at - approval.asked_at).total_seconds() == 7 * 24 * 3600
    assert approval.expires_at == task.run_after
    page = await client.approvals()
    assert (page.items, page.next_cursor) == ([approval], None)
    await client.answer(task.id, approval.id, ApprovalRequest(approved=True, digest=approval.digest))
    ended = await client.wait_for_end(task.id, SOON)
    assert (ended.output, ended.approvals) == ("done", [])
    assert (await client.approvals()).items == []


async def test_a_person_changes_the_arguments(client: Operations):
    task = await waiting(client)
    (approval,) = task.approvals
    refused: dict[str, dict[str, Any]] = {
        "bad arguments: amount": {"amount": "much", "to": "b"},
        "to: Field required": {"amount": 3},
        "not allowed: amount must be at most 100": {"amount": 101, "to": "b"},
    }
    for words, arguments in refused.items():
        with pytest.raises(InvalidRequest, match=words) as error:
            await client.answer(task.id, approval.id, ApprovalRequest(approved=True, arguments=arguments))
        assert error.value.field == "arguments"
    given = ApprovalRequest(approved=True, arguments={"amount": 2.5, "to": "Ω"}, reason="less", by="kim")
    await client.answer(task.id, approval.id, given)
    assert (await client.wait_for_end(task.id, SOON)).status is TaskStatus.COMPLETED
    steps = [recorded.step for recorded in await client.steps(task.id)]
    (answer,) = [step for step in steps if isinstance(step, ApprovalGiven)]
    assert (answer.arguments, answer.digest) == ({"amount": 2.5, "to": "Ω"}, approval.digest)
    (returned,) = [step for step in steps if isinstance(step, ToolReturned)]
    assert returned.output == "paid 2.5 to Ω"
    assert "less" in returned.remark
    assert (await client.answer(task.id, approval.id, given)).status is TaskStatus.COMPLETED  # the same again
    with pytest.raises(ApprovalConflict, match="approved by kim"):
        await client.answer(task.id, approval.id, ApprovalRequest(approved=True, by="kim"))


async def test_other_arguments_are_held_against_what_the_run_has_done(stage):
    client = LocalClient(stage.ops.engine, stage.agents)
    task = await waiting(client, "many")
    first, second, _third = task.approvals
    lots: dict[str, Any] = {"amount": 100, "to": "b"}
    more: dict[str, Any] = {"amount": 60, "to": "b"}
    await client.answer(task.id, first.id, ApprovalRequest(approved=True, arguments=lots))
    async with asyncio.timeout(SOON):
        while not any(isinstance(one.step, ToolReturned) for one in await client.steps(task.id)):
            await asyncio.sleep(0.01)
    with pytest.raises(
        InvalidRequest, match="at most 150 in all calls of a run together, and it is 100 so far"
    ):
        await client.answer(task.id, second.id, ApprovalRequest(approved=True, arguments=more))
    assert second in (await client.get(task.id)).approvals  # the question stays open


async def test_an_answer_to_what_somebody_else_was_shown_is_refused(client: Operations):
    task = await waiting(client)
    (approval,) = task.approvals
    with pytest.raises(ApprovalConflict, match="look at it again"):
        await client.answer(task.id, approval.id, ApprovalRequest(approved=True, digest="0" * 64))
    assert (await client.get(task.id)).approvals == [approval]


async def test_open_approvals_are_listed_page_by_page(client: Operations):
    tasks = [await waiting(client, agent) for agent in ("payer", "many", "many")]
    expected = [approval for task in reversed(tasks) for approval in task.approvals]
    assert len(expected) == 7
    found: list[ApprovalBody] = []
    cursor = None
    while True:
        page = await client.approvals(cursor=cursor, limit=2)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == expected
    with pytest.raises(InvalidRequest):
        await client.approvals(cursor="bm9uc2Vuc2U")
    answered = expected[1]
    await client.answer(answered.task_id, answered.id, ApprovalRequest(approved=False))
    assert [each.id for each in (await client.approvals(limit=2)).items] == [expected[0].id, expected[2].id]


async def test_an_answer_says_whether_it_approves(stage: Stage):
    task = await waiting(LocalClient(stage.ops.engine, stage.agents))
    path = f"/api/v1/tasks/{task.id}/approvals/{task.approvals[0].id}"
    for wrong in (
        {"approved": False, "arguments": {}},
        {"approved": True, "arguments": [1]},
        {"approved": True, "digest": "x"},
    ):
        await stage.json("POST", path, json=wrong, expected=422)


# --- the store ---------------------------------------------------------------------------------------------------


@pytest.fixture
def engine(store: SqlStore) -> Engine:
    return Engine(store, LocalDispatcher())


async def test_only_open_approvals_of_the_own_tenant_are_listed(engine: Engine):
    everything = ApprovalFilter()
    one = await claimed(engine.store, STARTED, CALLED, ASKED)  # running, while other calls go on
    (approval,) = await engine.approvals(TENANT, everything)
    assert (approval.task_id, approval.agent, approval.asked) == (one.task.id, AGENT, ASKED)
    assert (await engine.get(TENANT, one.task.id)).approvals == (approval,)
    assert await engine.approvals(OTHER_TENANT, everything) == []
    await engine.release(one.lease)  # its worker stops before it could put it to waiting
    assert await engine.approvals(TENANT, everything) == [approval]
    await engine.cancel(TENANT, one.task.id)
    assert await engine.approvals(TENANT, everything) == []
    again = (await engine.retry(TENANT, one.task.id)).task  # what was open is open again
    (approval,) = await engine.approvals(TENANT, everything)
    assert approval.task_id == again.id
    await engine.answer(TENANT, again.id, GIVEN)
    assert await engine.approvals(TENANT, everything) == []


async def test_an_approval_expires_by_the_databases_clock(engine: Engine, clock: FakeClock):
    asked = ApprovalAsked(
        approval_id="c.1", call_id="c", tool="t", arguments={}, reason="r", expires_seconds=100
    )
    one = await claimed(engine.store, STARTED, asked)
    (approval,) = await engine.approvals(TENANT, ApprovalFilter())
    assert approval.expires_at == approval.asked_at + 100
    await engine.wait(one.lease, 2, approval.expires_at)
    assert (await engine.get(TENANT, one.task.id)).run_after == approval.expires_at
    assert await engine.claim("w", 1, 30.0, [AGENT]) == []
    clock.advance(99)
    assert len(await engine.approvals(TENANT, ApprovalFilter())) == 1
    clock.advance(2)
    assert await engine.approvals(TENANT, ApprovalFilter()) == []
    with pytest.raises(ApprovalExpired):
        await engine.answer(TENANT, one.task.id, ApprovalGiven(approval_id="c.1", approved=True))
    assert asked == (await steps_of(engine.store, one.task))[-1]
    (again,) = await engine.claim("w", 1, 30.0, [AGENT])  # a worker finds out that nobody has answered
    assert again.task.id == one.task.id


async def test_what_waits_for_ever_is_never_due(engine: Engine, clock: FakeClock):
    one = await brought_to(engine.store, TaskStatus.WAITING)
    clock.advance(1e9)
    assert await engine.claim("w", 1, 30.0, [AGENT]) == []
    assert (await engine.get(DEFAULT_TENANT, one.task.id)).run_after is None


# --- what is shown -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, shown",
    [
        ({"to": "kim", "amount": 1.50}, '{"to": "kim", "amount": 1.5}'),
        ("Größe 日本 é", '"Größe 日本 é"'),
        ("a\u202egnp.exe\u2066x\u2069", r'"a\u202egnp.exe\u2066x\u2069"'),
        ("pay\u200bpal\u200c\u200d\ufeff", r'"pay\u200bpal\u200c\u200d\ufeff"'),
        ("\x1b]52;c;aGk=\x07\r\n\t\x7f\x9b", r'"\u001b]52;c;aGk=\u0007\r\n\t\u007f\u009b"'),
        ("a\u00a0b\u2003c\u3000d\u2028e", r'"a\u00a0b\u2003c\u3000d\u2028e"'),
        (
            "\u3164\u115f\ufe0f\u034f\u2800\U000e0041\U000e0101",
            r'"\u3164\u115f\ufe0f\u034f\u2800\udb40\udc41\udb40\udd01"',
        ),
        ("👩\u200d💻\U0001d173\u180e\U000e0001", r'"👩\u200d💻\ud834\udd73\u180e\udb40\udc01"'),
        ("\ud800\ue000\U0001f600", '"\\ud800\\ue000\U0001f600"'),
        ({"k\u202e": ["\u0000"]}, r'{"k\u202e": ["\u0000"]}'),
        ({"a": "b   c d"}, r'{"a": "b \u0020\u0020c d"}'),
        ({"to": "\u0430mazon.com"}, r'{"to": "\u0430mazon.com"}'),
        (
            "\u0430\u0440\u0440\u04cf\u0435.com g\u03bf\u03bfgle",
            r'"\u0430\u0440\u0440\u04cf\u0435.com g\u03bf\u03bfgle"',
        ),
        ("\uff50\uff41\uff59 \U0001d429ay p\u0251y", r'"\uff50\uff41\uff59 \ud835\udc29ay p\u0251y"'),
        ("Привет, API-ключ kim@почта.рф", '"Привет, API-ключ kim@почта.рф"'),
        ("V2 – Ωμέγα μ=5 日本語abc naïve", '"V2 – Ωμέγα μ=5 日本語abc naïve"'),
    ],
)
def test_nothing_in_what_is_shown_is_invisible(value, shown):
    assert unmistakable(value) == shown


def test_a_terminal_is_shown_what_hides_as_escapes_and_pictures_as_they_are():
    hides = "a\u3164\u115f\u2800\u200d\U0001d173\U000e0101\U000e0041\u202e\rb"
    shown = r"a\u3164\u115f\u2800\u200d\ud834\udd73\udb40\udd01\udb40\udc41\u202e\u000db"
    assert visible(hides) == shown
    assert json.loads(json_line(hides)) == hides
    assert json_line(hides) == f'"{shown.replace("u000d", "r")}"'
    assert visible("👩\u200d💻 ❤\ufe0f\n") == "👩\u200d💻 ❤\ufe0f\n"
