"""Failures that no other test of the platform shows; docs/explanation/failure-modes.md lists them all."""

import asyncio
import shutil
import sqlite3
import sys
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from agentkit.agent import Agent
from agentkit.messages import ToolCall
from agentkit.testing.models import ScriptedModel
from agentkit.tools import tool
from agentkit.transcript.steps import ToolReturned
from ops_core.config.catalog import Catalog
from ops_core.dispatchers import LocalDispatcher
from ops_core.engine import Engine
from ops_core.errors import StoreUnavailable
from ops_core.ports import TaskFilter
from ops_core.runner import Runner, RunnerOptions
from ops_core.stores import SqlStore, open_store
from ops_core.task import NewTask, TaskStatus
from ops_core.testing import open_test_ops, open_test_store
from ops_core.testing.servers.postgresql import PostgresServer
from ops_core.testing.store_contract.examples import (
    REPLIED,
    STARTED,
    TENANT,
    claim,
    claimed,
    current,
    steps_of,
    submitted,
)

SOON = 20.0
only_postgresql = pytest.mark.parametrize("database", ["postgresql"])


# --- many claimers -----------------------------------------------------------------------------------------------


@only_postgresql
async def test_of_64_claimers_none_starves_and_no_task_is_claimed_twice(url: str):
    """Four processes' worth of stores, sixteen workers on each, a task at a time."""
    taken: dict[str, list[str]] = {f"worker-{number}": [] for number in range(64)}

    async def work(store: SqlStore, owner: str) -> None:
        while some := await claim(store, owner=owner, slots=1):
            taken[owner].extend(one.task.id for one in some)

    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(open_test_store(url)) for _ in range(4)]
        ids = [task.id for task in await asyncio.gather(*(submitted(stores[0]) for _ in range(640)))]
        await asyncio.gather(*(work(stores[number % 4], owner) for number, owner in enumerate(taken)))
    assert Counter(task_id for some in taken.values() for task_id in some) == Counter(ids)
    assert all(taken.values()), "a claimer got nothing"


async def test_two_workers_of_one_name_do_not_take_each_others_tasks(url: str):
    """The epoch is the fence, not the name."""
    async with open_test_store(url) as one, open_test_store(url) as other:
        first = await claimed(one, STARTED)
        await one.release(first.lease)
        (second,) = await claim(other)
        assert first.lease.owner == second.lease.owner
        renewed = await one.renew([first.lease], 30.0)
        assert renewed.lost == {first.lease}
        await other.append(second.lease, REPLIED)
        assert await steps_of(one, first.task) == [STARTED, REPLIED]


# --- PostgreSQL refuses ------------------------------------------------------------------------------------------


@only_postgresql
async def test_a_statement_that_takes_too_long_is_given_up_and_harms_no_neighbour(
    url: str, postgres: PostgresServer, postgres_database: str
):
    quick = f"{url}&options=-c%20statement_timeout%3D300ms"
    async with open_test_store(quick) as store:
        held, free = await claimed(store), await claimed(store)
        with postgres.connected(postgres_database) as other:
            other.execute(text("BEGIN"))
            other.execute(text("SELECT 1 FROM task WHERE id = :id FOR UPDATE"), {"id": held.task.id})
            writes = [store.append(one.lease, STARTED) for one in (held, free)]
            refused, written = await asyncio.gather(*writes, return_exceptions=True)
            other.execute(text("ROLLBACK"))
        assert isinstance(refused, StoreUnavailable)
        assert "statement timeout" in str(refused)
        assert not isinstance(written, BaseException)
        await store.append(held.lease, STARTED)


@only_postgresql
async def test_a_server_without_a_free_connection_is_told_and_used_again(
    url: str, postgres: PostgresServer, postgres_database: str
):
    async with open_test_store(url):
        pass
    for statement in (
        "DROP ROLE IF EXISTS crowded",
        "CREATE ROLE crowded LOGIN CONNECTION LIMIT 1",
        "GRANT pg_read_all_data, pg_write_all_data TO crowded",
    ):
        postgres.execute(statement, postgres_database)
    crowded = url.replace("opspawn@", "crowded@", 1)
    async with open_store(crowded) as first, open_store(crowded) as second:
        task = await submitted(first)
        with pytest.raises(StoreUnavailable, match="too many connections"):
            await submitted(second)
        first._write_engine.dispose()
        postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'crowded'")
        await submitted(second)
        second._write_engine.dispose()
        postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'crowded'")
        assert await current(first, task) == task


# --- SQLite ------------------------------------------------------------------------------------------------------

SUBMIT = """
import asyncio, sys
from ops_core.stores import open_store
from ops_core.task import NewTask
async def submit():
    async with open_store(sys.argv[1]) as store:
        for number in range(100):
            await store.insert(NewTask(agent="agent", input=number))
asyncio.run(submit())
"""


async def test_two_processes_write_to_one_file(file_url: str):
    """Each waits for the other one's lock, and no write is refused."""
    async with open_test_store(file_url) as store:
        other = await asyncio.create_subprocess_exec(sys.executable, "-c", SUBMIT, file_url)
        while not await store.list(TENANT, TaskFilter(limit=1)):
            await asyncio.sleep(0.01)  # until the other one is at work
        for number in range(100):
            await submitted(store, input=number)
        assert await other.wait() == 0
        assert len(await store.list(TENANT, TaskFilter(limit=1000))) == 200


async def test_a_power_cut_at_any_moment_leaves_every_acknowledged_write(tmp_path: Path):
    """The file with any beginning of its log opens clean, and has what had been acknowledged by then."""
    file, log = tmp_path / "ops.db", tmp_path / "ops.db-wal"
    acknowledged: list[int] = []  # the length of the log when each write was acknowledged
    async with open_test_store(f"sqlite:///{file}") as store:
        await store._write(lambda connection: connection.execute(text("PRAGMA wal_autocheckpoint = 0")))
        await store._write(lambda connection: connection.execute(text("SELECT 1")))
        at_first = log.stat().st_size
        one = await claimed(store, STARTED)
        for _ in range(12):
            await store.append(one.lease, REPLIED)
            acknowledged.append(log.stat().st_size)
        pictures = shutil.copytree(tmp_path, tmp_path / "picture")
    whole = (pictures / log.name).read_bytes()
    assert len(whole) == acknowledged[-1] > at_first
    for length in sorted({*range(at_first, len(whole), 977), *acknowledged, len(whole)}):
        after = tmp_path / "after"
        shutil.rmtree(after, ignore_errors=True)
        after.mkdir()
        shutil.copy(pictures / file.name, after)
        (after / log.name).write_bytes(whole[:length])
        expected = sum(size <= length for size in acknowledged)
        with sqlite3.connect(after / file.name) as found:
            assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            rows = found.execute(
                "SELECT steps, (SELECT count(*) FROM step WHERE task_id = id) FROM task"
            ).fetchall()
        found.close()
        replies = max(0, rows[0][0] - 1) if rows else 0
        assert all(counted == there for counted, there in rows), f"half a write after {length} bytes"
        assert replies >= expected, f"{expected} were acknowledged after {length} bytes, {replies} are there"


async def test_what_is_acknowledged_is_on_the_disk(file_url: str):
    """``synchronous = FULL`` (2) in WAL mode: a commit waits for the disk."""
    async with open_test_store(file_url) as store:
        found = await store._write(lambda connection: connection.execute(text("PRAGMA synchronous")).scalar())
    assert found == 2


# --- what tools return -------------------------------------------------------------------------------------------


@tool(effect="pure")
def nul() -> str:
    """A text with a character that PostgreSQL does not have."""
    return "before\x00after"


@tool(effect="pure")
def huge() -> str:
    """A hundred megabytes."""
    return "x" * 100_000_000


@tool(effect="pure")
def no_number() -> Any:
    """What JSON cannot express."""
    return float("nan")


async def test_outputs_that_cannot_be_kept_fail_loudly_and_the_run_goes_on(url: str):
    """The model is told, nothing is dropped silently, and what can be kept is kept as it is."""
    names = ("nul", "huge", "no_number")
    calls = [ToolCall(id=name, name=name) for name in names]
    agent = Agent(ScriptedModel.by_turn([calls, "Told\x00."]), name="agent", tools=[nul, huge, no_number])
    async with open_test_store(url):
        pass
    async with open_test_ops(agent, store_url=url) as ops, ops.working():
        task = (await ops.engine.submit(NewTask(agent="agent", input="\x00"))).task
        task = await ops.engine.until_ended(TENANT, task.id, SOON)
        steps = await steps_of(ops.engine.store, task)
    assert (task.status, task.input, task.output) == (TaskStatus.COMPLETED, "\x00", "Told\x00.")
    returned = {step.call_id: step for step in steps if isinstance(step, ToolReturned)}
    assert returned["nul"].output == "before\x00after"
    for name, why in (("huge", "at most"), ("no_number", "NaN or infinity")):
        output = str(returned[name].output)
        assert f"{name} was carried out" in output
        assert why in output


# --- waiting -----------------------------------------------------------------------------------------------------


@tool(effect="unsafe", approval=True)
def send() -> str:
    """Sends."""
    return "sent"


async def test_a_thousand_tasks_that_wait_for_people_hold_no_worker():
    asking = Agent(ScriptedModel.by_turn([ToolCall(id="a", name="send")]), name="asking", tools=[send])
    quick = Agent(ScriptedModel.by_turn(["Done."]), name="quick")
    async with open_test_store() as store:
        engine = Engine(store, LocalDispatcher())
        options = RunnerOptions(owner="me", concurrency=5, poll_seconds=0.05)
        runner = Runner(engine, Catalog([asking, quick]), options)
        running = asyncio.create_task(runner.run())
        await asyncio.gather(*(engine.submit(NewTask(agent="asking", input=n)) for n in range(1000)))
        waiting = TaskFilter(status=[TaskStatus.WAITING], limit=2000)
        async with asyncio.timeout(3 * SOON):
            while len(await store.list(TENANT, waiting)) < 1000:
                await asyncio.sleep(0.05)  # between two looks
            while runner.carrying:  # the last one is told here a moment after it was written
                await asyncio.sleep(0)
        task = (await engine.submit(NewTask(agent="quick", input="Go on."))).task
        assert (await engine.until_ended(TENANT, task.id, SOON)).status is TaskStatus.COMPLETED
        runner.stop()
        await running
