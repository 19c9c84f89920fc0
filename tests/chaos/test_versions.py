"""A worker of the last release and one of this release, on one store, as while a deployment rolls."""

import asyncio
import hashlib
import shutil
import signal
import sys
import zipfile
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from agentkit.budget.limits import Limits
from agentkit.transcript.steps import ApprovalAsked, ApprovalGiven, ToolReturned
from ops_core.dispatchers import LocalDispatcher
from ops_core.engine import Engine
from ops_core.stores import REVISION, migrations, open_store
from ops_core.task import InThread, NewTask, Task, TaskStatus
from ops_core.testing.servers.postgresql import PostgresServer

from .agents import CLERK
from .fleet import HERE, Member
from .world import Effect, World

RELEASES = HERE.parent / "fixtures" / "releases"
OLD_SCHEMA = "0001"
TASKS = 24
Site = tuple[Path, Engine, str]


@pytest.fixture
async def site(tmp_path: Path, postgres: PostgresServer) -> AsyncGenerator[Site]:
    """A folder, an engine of this release, and the URL of a store with the schema of the old one."""
    shutil.copy(HERE / "agents.py", tmp_path)
    for wheel in (RELEASES / "0.1.0").glob("*.whl"):
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(tmp_path / "0.1.0")
    with postgres.database() as database:
        url = postgres.url(database)
        store = open_store(url)
        await asyncio.to_thread(migrations.upgrade, store, OLD_SCHEMA)
        async with store:
            yield tmp_path, Engine(store, LocalDispatcher()), url


def worker(folder: Path, url: str, age: str) -> Member:
    settings = {"OPSPAWN_STORE_URL": url}
    if age == "old":
        settings["PYTHONPATH"] = str(folder / "0.1.0")
    return Member(f"{age}-worker", [sys.executable, str(HERE / "worker.py")], folder, settings)


async def submit_all(engine: Engine) -> list[Task]:
    return [(await engine.submit(NewTask(agent="clerk", input="Go on."))).task for _ in range(TASKS)]


async def carried(engine: Engine, tasks: list[Task]) -> None:
    """Until all have ended; a call that was cut short is not repeated."""
    for task in tasks:
        now = await until_ended(engine, task)
        assert now.status is TaskStatus.COMPLETED, now.error


async def until_ended(engine: Engine, task: Task) -> Task:
    async with asyncio.timeout(60):
        while not (now := await engine.get(task.tenant, task.id)).status.terminal:
            if now.status is TaskStatus.WAITING:
                await deny(engine, now)
            await asyncio.sleep(0.05)  # between two looks
    return now


async def deny(engine: Engine, task: Task) -> None:
    steps = [recorded.step for recorded in await engine.steps(task.tenant, task.id)]
    answered = {step.approval_id for step in steps if isinstance(step, ApprovalGiven)}
    for step in steps:
        if isinstance(step, ApprovalAsked) and step.approval_id not in answered:
            await engine.answer(
                task.tenant, task.id, ApprovalGiven(approval_id=step.approval_id, approved=False)
            )


async def assert_nothing_was_lost_or_doubled(site: Site, tasks: list[Task]) -> None:
    folder, engine, _url = site
    world = World(folder / "effects.log")
    world.look()
    for task in tasks:
        recorded = await engine.steps(task.tenant, task.id)
        assert [one.seq for one in recorded] == list(range(len(recorded)))
        returned = Counter(one.step.call_id for one in recorded if isinstance(one.step, ToolReturned))
        assert returned == dict.fromkeys(CLERK, 1)
        for call_id, effects in world.of_task(task.id, CLERK).items():
            assert len(effects) <= (1 if CLERK[call_id] == "unsafe" else 2)


def pids_of(site: Site) -> set[int]:
    """Which processes have done something."""
    world = World(site[0] / "effects.log")
    world.look()
    return {effect.pid for effects in world.begun.values() for effect in effects}


def effects_of(site: Site, task: Task) -> dict[str, list[Effect]]:
    """What was done for a task."""
    world = World(site[0] / "effects.log")
    world.look()
    return world.of_task(task.id, CLERK)


async def end(*members: Member) -> None:
    for member in members:
        await member.stop_at_once()


@pytest.fixture
async def both(site: Site) -> AsyncGenerator[dict[str, Member]]:
    """The old one was started before the migration, and goes on; the new one is yet to be started."""
    folder, _engine, url = site
    members = {age: worker(folder, url, age) for age in ("old", "new")}
    try:
        await members["old"].start()
        await asyncio.to_thread(migrations.upgrade, open_store(url))
        yield members
    finally:
        for member in members.values():
            await member.stop_at_once()


async def test_both_carry_tasks_of_one_store(site: Site, both: dict[str, Member]):
    await both["new"].start()
    tasks = await submit_all(site[1])
    await carried(site[1], tasks)
    await assert_nothing_was_lost_or_doubled(site, tasks)
    assert pids_of(site) == {member.process.pid for member in both.values()}


async def test_the_new_one_goes_on_with_what_the_old_one_began(site: Site, both: dict[str, Member]):
    tasks = await cut_short(site, both["old"], signal.SIGKILL)
    await both["new"].start()
    await carried(site[1], tasks)
    await assert_nothing_was_lost_or_doubled(site, tasks)
    assert pids_of(site) == {member.process.pid for member in both.values()}


async def test_the_old_one_ends_what_the_new_one_began_and_a_retry_goes_on(
    site: Site, both: dict[str, Member]
):
    """It knows no digests in steps: it must not run with the new one, and nothing is lost where it has."""
    engine = site[1]
    both["old"].send(signal.SIGSTOP)  # it waits for its turn
    await both["new"].start()
    tasks = await cut_short(site, both["new"], signal.SIGTERM)
    both["old"].send(signal.SIGCONT)
    ended = [await until_ended(engine, task) for task in tasks]
    failed = [task for task in ended if task.status is TaskStatus.FAILED]
    assert failed
    assert {task.error.code for task in failed} == {"transcript_unreadable"}
    await both["old"].end(signal.SIGTERM)
    await both["new"].start()
    await carried(engine, [(await engine.retry(task.tenant, task.id)).task for task in failed])


async def cut_short(site: Site, worker: Member, how: signal.Signals) -> list[Task]:
    """Tasks, some of which this worker has begun and not ended."""
    world = World(site[0] / "effects.log")
    tasks = await submit_all(site[1])
    await world.until_more(20)
    await worker.end(how)
    left = [await site[1].get(task.tenant, task.id) for task in tasks]
    assert any(task.steps > 1 and not task.status.terminal for task in left), "nobody goes on with anything"
    return tasks


async def test_what_the_old_one_does_not_know_is_left_to_the_new_one(site: Site, both: dict[str, Member]):
    """It is never carried as if it had no limit and no conversation, and it holds nothing else up."""
    engine = site[1]
    new = NewTask(agent="clerk", input="Go on.", max_attempts=1000)  # the old one uses one up for each lease
    ends = [  # its model has no price: whoever holds a limit of money refuses it
        ((await engine.submit(replace(new, thread=InThread(id="chat")))).task, None),
        ((await engine.submit(replace(new, budget=Limits(usd=1.0)))).task, "price_unknown"),
    ]
    await carried(engine, await submit_all(engine))
    assert pids_of(site) == {both["old"].process.pid}
    for task, _code in ends:
        left = await engine.get(task.tenant, task.id)
        assert (left.status.terminal, list(await engine.steps(task.tenant, task.id))) == (False, [])
    await both["new"].start()
    for task, code in ends:
        now = await until_ended(engine, task)
        assert (None if now.error is None else now.error.code) == code
        done_by = {effect.pid for effects in effects_of(site, task).values() for effect in effects}
        assert both["old"].process.pid not in done_by


async def test_an_old_worker_that_starts_after_the_migration_is_refused(site: Site):
    """Those that run go on; one that is started says which schema it found, and does nothing."""
    folder, _engine, url = site
    assert REVISION != OLD_SCHEMA
    await asyncio.to_thread(migrations.upgrade, open_store(url))
    late = worker(folder, url, "old")
    with pytest.raises(AssertionError, match=f"schema {REVISION}, this release works with {OLD_SCHEMA}"):
        await late.start()
    assert await late.process.wait() != 0


def test_the_wheels_are_those_that_the_note_names():
    note = (RELEASES / "README.md").read_text()
    for wheel in RELEASES.glob("*/*.whl"):
        assert hashlib.sha256(wheel.read_bytes()).hexdigest() in note
