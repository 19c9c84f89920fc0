"""Who works and what each worker holds, at every door; an expired lease is never shown as a run that goes on."""

import asyncio
import json
import os
import re
import socket
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from ops_core import __version__
from ops_core.cli.commands.tasks import Following, ListOptions, _list_tasks, _watch, show_task
from ops_core.cli.commands.workers import workers
from ops_core.cli.doctor.command import _workers
from ops_core.client import Operations
from ops_core.ports import Activity
from ops_core.task import NewTask, Task
from ops_core.testing import open_test_ops
from ops_core.workers import place_in, worker_name

from .api_support import Stage, staged  # type: ignore[import-not-found]
from .client_support import request  # type: ignore[import-not-found]

DEAD = "dead-host-7-0123abcd"


@pytest.fixture
async def stage(tmp_path) -> AsyncGenerator[Stage]:
    """Nobody sweeps after the first moment: what a dead worker holds stays as it is."""
    async with staged(tmp_path, sweep_seconds=3600) as opened:
        yield opened


@pytest.fixture
def terminal(monkeypatch) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "80"), ("TERM", "xterm"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)


async def left_behind(stage: Any) -> Task:
    """A task whose worker is dead; its lease ran out twelve seconds ago."""
    new = NewTask(agent="of another host", input="go")
    task: Task = (await stage.ops.engine.submit(new)).task
    await stage.ops.engine.claim(DEAD, 1, -12.0, [new.agent])
    return task


async def test_a_worker_is_listed_with_what_it_holds(client: Operations, stage):
    task = await client.submit(request("held"))
    await stage.until(task.id, "running")
    (worker,) = await client.workers()
    assert (worker.alive, worker.running, worker.capacity, worker.pid) == (True, 1, 100, os.getpid())
    assert (worker.host, worker.version) == (socket.gethostname(), __version__)
    assert {"quick", "held"} <= set(worker.agents)
    assert worker.silent_seconds is not None
    assert worker.silent_seconds < 15
    (held,) = worker.tasks
    assert (held.task_id, held.agent, held.expired_seconds) == (task.id, "held", None)
    for found in (await client.get(task.id), (await client.list()).items[0]):
        assert found.lease is not None
        assert (found.lease.worker, found.lease.since) == (worker.name, held.since)
        assert found.lease.expired_seconds is None
    stage.agents.gate.set()
    assert (await client.wait_for_end(task.id)).lease is None
    assert (await client.workers())[0].tasks == []


async def test_a_lease_that_has_expired_is_told_as_such(client: Operations, stage):
    task = await left_behind(stage)
    for found in (await client.get(task.id), (await client.list()).items[0]):
        assert found.status == "running"
        assert found.lease is not None
        assert found.lease.worker == DEAD
        assert found.lease.expired_seconds is not None
        assert found.lease.expired_seconds >= 12
    (dead,) = [worker for worker in await client.workers() if worker.name == DEAD]
    assert (dead.host, dead.pid, dead.alive, dead.version, dead.running) == ("dead-host", 7, False, None, 1)
    assert dead.tasks[0].expired_seconds is not None


async def test_the_command_line_says_that_a_lease_has_expired(stage, terminal, capsys):
    task = await left_behind(stage)
    words = rf"held by {DEAD}, lease expired 1\d\.\d s ago; the next worker takes it over".replace(
        " ", r"\s+"
    )
    await show_task(task.id, stage.url, as_json=False)
    assert re.search(words, capsys.readouterr().out)
    await _list_tasks(ListOptions(url=stage.url))
    listed = capsys.readouterr().out
    assert re.search(words, listed)
    assert all(len(line) <= 80 for line in listed.splitlines())
    await _watch(task.id, Following(within=0.5, url=stage.url))
    assert len(re.findall(r"lease expired 1\d\.\d s ago", capsys.readouterr().out)) == 1
    await show_task(task.id, stage.url, as_json=True)
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert shown["lease"]["expired_seconds"] >= 12


async def test_workers_are_a_table_in_eighty_columns(stage, terminal, capsys):
    await left_behind(stage)
    held = await stage.submit("held")
    await stage.until(held["id"], "running")
    await workers(stage.url, as_json=False)
    head, dead, of_dead, alive, of_alive = capsys.readouterr().out.splitlines()
    assert head.split() == ["WORKER", "AGENTS", "TASKS", "SEEN", "VERSION"]
    assert re.fullmatch(r"dead-host pid 7 +\(own task only\) +1 +silent", dead)
    assert "lease expired 1" in of_dead
    assert re.match(rf"{socket.gethostname()[:20]}.* pid {os.getpid()} .* 1/100 ", alive)
    assert of_alive.startswith(f"  {held['id']}  held  lease ")
    assert all(len(line) <= 80 for line in (head, dead, of_dead, alive, of_alive))
    await workers(stage.url, as_json=True)
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [worker["running"] for worker in printed] == [1, 1]


async def test_a_worker_announces_itself_before_it_has_a_task_and_leaves_when_it_stops():
    async with open_test_ops() as ops:
        async with ops.working():
            async with asyncio.timeout(20):
                while not await ops.engine.store.workers("default"):
                    await asyncio.sleep(0.01)
            (worker,) = await ops.engine.store.workers("default")
            assert (worker.running, worker.is_alive, worker.agents) == (0, True, tuple(ops.catalog.names))
        assert await ops.engine.store.workers("default") == []


async def test_one_that_carries_a_task_of_its_own_is_no_worker_for_others():
    async with open_test_ops() as ops, ops.working(only=frozenset({"none"})):
        await asyncio.sleep(0)
        await ops.engine.sweep()
        assert await ops.engine.store.workers("default") == []


def test_a_name_says_where_a_worker_runs():
    assert place_in(worker_name()) == (socket.gethostname(), os.getpid())
    assert place_in("a-b-c-12-0123abcd") == ("a-b-c", 12)
    assert place_in("odd") == (None, None)


def test_the_doctor_names_agents_that_no_living_worker_serves():
    well = _workers(Activity(idle=2, busy=1))
    assert (well.state, well.text) == ("ok", "3 workers alive, 2 without a task")
    ill = _workers(Activity(unserved=("a", "b\x1b[31m")))
    assert ill.state == "warning"
    assert "no living worker serves agents a, b" in ill.text
    assert "\x1b" not in ill.text
