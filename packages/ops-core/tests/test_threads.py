"""Conversations, from the submission to what the model is told; the store's own part is in its contract."""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator

import pytest
from sqlalchemy import text

from agentkit.agent import Agent
from agentkit.messages import AssistantMessage, ModelRequest, Text, ToolCall, UserMessage
from agentkit.testing.models import ScriptedModel
from agentkit.tools import tool
from agentkit.transcript.steps import RunStarted
from ops_core.client import Operations
from ops_core.errors import InvalidRequest, ThreadBusy, ThreadNotFound
from ops_core.schemas import TaskRequest
from ops_core.stores import SqlStore, migrations, open_store
from ops_core.task import DEFAULT_TENANT, InThread, NewTask, Task, TaskStatus
from ops_core.testing import open_test_ops, open_test_store
from ops_core.testing.store_contract.examples import AGENT, COMPLETED, FAILED, LEASE_SECONDS, at_once

from .api_support import Stage, staged  # type: ignore[import-not-found]

CHAT = InThread(id="chat-42")
SOON = 5.0


def said(request: ModelRequest) -> list[str]:
    """What the people and the models say in it."""
    return [
        message.text if isinstance(message, UserMessage) else "".join(_texts(message))
        for message in request.messages
        if isinstance(message, UserMessage | AssistantMessage)
    ]


def _texts(message: AssistantMessage) -> list[str]:
    return [part.text for part in message.parts if isinstance(part, Text)]


class Echo(ScriptedModel):
    """Answers with the last thing that was said, in capitals."""

    def __init__(self) -> None:
        super().__init__([lambda request: said(request)[-1].upper()] * 100)


def asks(text: str, agent: str = "echo", **fields) -> NewTask:
    return NewTask(agent=agent, input=text, thread=CHAT, **fields)


# --- what a run is told -------------------------------------------------------------------------------------------


async def test_each_run_is_told_what_was_said_before_and_follows_at_once(url: str):
    """The polls are far apart: the end of one task wakes the worker for the next."""
    if url.startswith("postgresql"):
        await asyncio.to_thread(migrations.upgrade, open_store(url))
    model = Echo()
    async with open_test_ops(Agent(model, name="echo"), store_url=url, poll_seconds=60) as ops:
        async with ops.working():
            tasks = [(await ops.engine.submit(asks(word))).task for word in ("one", "two", "three")]
            async with asyncio.timeout(SOON):
                for task in tasks:
                    ended = await ops.engine.until_ended(DEFAULT_TENANT, task.id)
                    assert ended.output == str(task.input).upper()
        assert [said(request) for request in model.requests] == [
            ["one"],
            ["one", "ONE", "two"],
            ["one", "ONE", "two", "TWO", "three"],
        ]
        firsts = [(await ops.engine.steps(DEFAULT_TENANT, task.id))[0].step for task in tasks]
        assert [step.earlier for step in firsts if isinstance(step, RunStarted)] == [0, 1, 2]
        assert [step.input for step in firsts if isinstance(step, RunStarted)] == ["one", "two", "three"]


async def test_a_cancelled_task_lets_the_next_one_have_its_turn_at_once(tmp_path):
    gate = asyncio.Event()

    async def held(_request: ModelRequest) -> str:
        await gate.wait()
        return "released"

    agents = Agent(ScriptedModel([held]), name="held"), Agent(Echo(), name="echo")
    async with open_test_ops(*agents, poll_seconds=60) as ops, ops.working():
        first = (await ops.engine.submit(asks("wait", "held"))).task
        second = (await ops.engine.submit(asks("go on"))).task
        async with asyncio.timeout(SOON):
            while (await ops.engine.get(DEFAULT_TENANT, first.id)).status is not TaskStatus.RUNNING:
                await asyncio.sleep(0.005)
            await ops.engine.cancel(DEFAULT_TENANT, first.id)
            assert (await ops.engine.until_ended(DEFAULT_TENANT, second.id)).output == "GO ON"


async def test_a_resumed_run_is_told_the_same_although_the_thread_has_gone_on():
    """It stops after a tool; until it is carried on, others of its thread are submitted, and end."""

    @tool(effect="pure")
    def look() -> str:
        return "seen"

    reached, gate = asyncio.Event(), asyncio.Event()

    async def held(_request: ModelRequest) -> str:
        reached.set()
        await gate.wait()
        return "never said"

    call = ToolCall(id="call_1", name="look")
    model = ScriptedModel([call, held, "done", "after"])
    agents = Agent(Echo(), name="echo"), Agent(model, name="looker", tools=[look])
    async with open_test_ops(*agents) as ops:
        async with ops.working():
            for word in ("one", "two"):
                await ops.engine.submit(asks(word))
            task = (await ops.engine.submit(asks("look", "looker"))).task
            await asyncio.wait_for(reached.wait(), SOON)
            late = [(await ops.engine.submit(asks(word, "looker"))).task for word in ("three", "four")]
        # the worker has stopped, and let go of the task in the middle of it
        await ops.engine.cancel(DEFAULT_TENANT, late[0].id)
        async with ops.working():
            async with asyncio.timeout(SOON):
                assert (await ops.engine.until_ended(DEFAULT_TENANT, task.id)).output == "done"
                assert (await ops.engine.until_ended(DEFAULT_TENANT, late[1].id)).output == "after"
        assert model.requests[2] == model.requests[1]
        assert said(model.requests[1])[:5] == ["one", "ONE", "two", "TWO", "look"]
        assert said(model.requests[3]) == [
            *["one", "ONE", "two", "TWO", "look", "done"],
            *["three", "(There was no answer: the run was cancelled.)", "four"],
        ]


async def test_a_thread_costs_as_much_space_as_what_was_said_in_it(file_url: str):
    """Not the square of it: nothing that was said stands in a later task."""
    word = "supercalifragilistic"
    async with open_test_ops(Agent(Echo(), name="echo"), store_url=file_url) as ops:
        async with ops.working(), asyncio.timeout(SOON * 2):
            tasks = [(await ops.engine.submit(asks(f"{word} {n}"))).task for n in range(20)]
            await ops.engine.until_ended(DEFAULT_TENANT, tasks[-1].id)
        engine = ops.engine.store._read_engine  # type: ignore[attr-defined]
        with engine.connect() as connection:
            for table in ("task", "step", "turn", "thread"):
                rows = "".join(str(tuple(row)) for row in connection.execute(text(f"SELECT * FROM {table}")))
                assert rows.lower().count(word) <= 4 * len(tasks)
        assert len(await ops.engine.store.earlier(DEFAULT_TENANT, tasks[-1].id)) == 19


# --- several workers ----------------------------------------------------------------------------------------------


async def test_workers_that_end_cancel_and_submit_at_the_same_time_lose_no_turn(url: str, database: str):
    """Two stores on one database, each with its own writer; whoever comes first, one task is under way at a time."""
    async with open_test_store(url) as one, open_store(url) as other:
        stores = (one, other)
        for round_ in range(12):
            thread = InThread(id=f"t{round_}")
            new = NewTask(agent=AGENT, input="x", thread=thread)
            inserted = await at_once(*(stores[n % 2].insert(new) for n in range(6)))
            tasks: list[Task] = [answer.task for answer in inserted]
            ended: list[str] = []
            while len(ended) < 6:
                found = await at_once(
                    *(s.claim(f"w{n}", 5, LEASE_SECONDS, [AGENT]) for n, s in enumerate(stores))
                )
                due = [claimed for several in found for claimed in several]
                assert len(due) == 1, "one at a time, and never none"
                ended.append(due[0].task.id)
                left = [task.id for task in tasks if task.id not in ended]
                cancelled = left[len(left) // 2 :][:1] if len(left) > 2 else []
                await at_once(
                    stores[round_ % 2].append(due[0].lease, COMPLETED if round_ % 3 else FAILED),
                    *(stores[(round_ + 1) % 2].cancel(DEFAULT_TENANT, id_) for id_ in cancelled),
                )
                ended += cancelled
            assert (await one.thread(DEFAULT_TENANT, thread.id)).current is None


async def test_what_a_release_without_threads_has_ended_is_passed_on_by_a_sweep(store: SqlStore):
    first, second = [
        (await store.insert(NewTask(agent=AGENT, input="x", thread=CHAT))).task for _ in range(2)
    ]
    with store.migration_engine.begin() as connection:
        connection.execute(text("UPDATE task SET status = 'cancelled' WHERE id = :id"), {"id": first.id})
    assert list(await store.claim("me", 5, LEASE_SECONDS, [AGENT])) == []
    assert (await store.sweep()).due
    (claimed,) = await store.claim("me", 5, LEASE_SECONDS, [AGENT])
    assert claimed.task.id == second.id


# --- surfaces -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def stage(tmp_path) -> AsyncGenerator[Stage]:
    async with staged(tmp_path, thread_busy="refuse") as opened:
        yield opened


async def test_a_thread_over_every_wire(client: Operations):
    request = TaskRequest(agent="held", input="Hello", thread_id="chat-42")
    task = await client.submit(request)
    assert task.thread_id == "chat-42"
    with pytest.raises(ThreadBusy, match=task.id) as refused:
        await client.submit(request)
    assert refused.value.code == "thread_busy"
    thread = await client.thread("chat-42")
    assert (thread.id, thread.turns, thread.current_task) == ("chat-42", 1, task.id)
    await client.submit(TaskRequest(agent="held", input="Hello", thread_id="other"))
    page = await client.threads(limit=1)
    assert [one.id for one in page.items] == ["other"]
    assert [one.id for one in (await client.threads(cursor=page.next_cursor)).items] == ["chat-42"]
    assert [one.id for one in (await client.list(thread_id="chat-42")).items] == [task.id]
    with pytest.raises(ThreadBusy):
        await client.delete_thread("chat-42")
    await client.cancel(task.id)
    await client.wait_for_end(task.id, SOON)
    second = await client.submit(request)
    with pytest.raises(ThreadBusy, match=second.id):
        await client.retry(task.id)
    await client.cancel(second.id)
    await client.wait_for_end(second.id, SOON)
    assert await client.delete_thread("chat-42") == 2
    for ask in (client.thread, client.delete_thread):
        for nowhere in ("chat-42", "no such", "x" * 200, "*"):
            with pytest.raises(ThreadNotFound):
                await ask(nowhere)
    with pytest.raises(InvalidRequest) as wrong:
        await client.threads(cursor="tomorrow")
    assert wrong.value.field == "cursor"
    with pytest.raises(InvalidRequest) as wrong:
        await client.list(thread_id="no such")
    assert wrong.value.field == "thread_id"


async def test_what_rest_tells_of_a_busy_thread(stage: Stage):
    task = await stage.submit("held", thread_id="chat-42")
    body = {"agent": "held", "input": "go", "thread_id": "chat-42"}
    told = await stage.json("POST", "/api/v1/tasks", json=body, expected=409)
    assert (told["code"], told["actor"], told["field"]) == ("thread_busy", "user", "thread_id")
    assert task["id"] in told["detail"]
    batch = {"tasks": [body, {"agent": "quick", "input": "go"}]}
    told = await stage.json("POST", "/api/v1/tasks:batch", json=batch)
    assert [item["status"] for item in told["items"]] == [409, 202]
    for bad in ("", " ", "a/b", "a b", "x" * 129, "-x", 7):
        wrong = {**body, "thread_id": bad}
        told = await stage.json("POST", "/api/v1/tasks", json=wrong, expected=422)
        assert told["field"] == "thread_id"


def test_a_request_without_a_thread_has_the_fingerprint_that_it_had_before_there_were_threads():
    """Or a submit that is repeated after an upgrade would be refused as another one."""
    request = TaskRequest(agent="a", input="x", labels={"k": "v"})
    before = {
        "agent": "a", "input": "x", "labels": {"k": "v"}, "priority": 0, "run_at": None,
        "timeout_seconds": None, "budget": None, "max_attempts": 5,
    }  # fmt: skip
    text_ = json.dumps(before, sort_keys=True, separators=(",", ":"))
    assert request.fingerprint() == hashlib.sha256(text_.encode()).hexdigest()
    assert TaskRequest(agent="a", input="x", thread_id="t").fingerprint() != request.fingerprint()
