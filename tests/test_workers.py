"""Several worker processes on one store: one that dies is replaced, the others go on, all end when they are told."""

import asyncio
import os
import re
import runpy
import shutil
import signal
import sys
from collections import Counter
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from ops_core.assembly import open_ops
from ops_core.config.catalog import Catalog
from ops_core.settings import Settings
from ops_core.stores import migrations, open_store
from ops_core.task import NewTask

HERE = Path(__file__).parent
pytestmark = pytest.mark.timeout(180)
QUICK = {
    "OPSPAWN_LEASE_SECONDS": "1",
    "OPSPAWN_SWEEP_SECONDS": "0.2",
    "OPSPAWN_GRACE_SECONDS": "0.5",
    "OPSPAWN_LOG_FORMAT": "text",
}


class Workers:
    """``opspawn worker`` in a directory of its own, and a group of processes of its own."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OPSPAWN_")}
        self.environment = {**inherited, **QUICK, **settings}
        self.process: asyncio.subprocess.Process
        shutil.copy(HERE / "naps.py", directory)

    async def start(self, *arguments: str) -> None:
        """Start it, and wait until it says that it works."""
        opspawn = Path(sys.executable).with_name("opspawn")
        with (self.directory / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                opspawn, "worker", "--app", "naps:catalog", *arguments,
                cwd=self.directory, env=self.environment, stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        if not await self.process.stdout.readline():
            pytest.fail(f"no worker: {self.log()}")

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def pids(self) -> list[int]:
        """Of the workers that the supervisor has started, in order."""
        return [int(pid) for pid in re.findall(r"worker \d+ started.* pid=(\d+)", self.log())]

    def notes(self, what: str) -> list[tuple[int, str]]:
        """Process and key of each note."""
        file = self.directory / "notes.log"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [(int(pid), key) for noted, pid, key in lines if noted == what]

    async def until_group_is_empty(self) -> None:
        async with asyncio.timeout(30):
            while True:
                try:
                    os.killpg(self.process.pid, 0)
                except ProcessLookupError:
                    return
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        if not hasattr(self, "process"):
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()


async def until(happened) -> None:
    async with asyncio.timeout(60):
        while not happened():
            await asyncio.sleep(0.02)


@pytest.fixture
def postgres_url(postgres):
    with postgres.database() as name:
        migrations.upgrade(open_store(postgres.url(name)))
        yield postgres.url(name)


@pytest.fixture(params=["local", "rabbitmq"])
def dispatcher_url(request):
    if request.param == "local":
        return "local://"
    return request.getfixturevalue("rabbit").url(queue="test-workers")


@pytest.fixture
async def workers(tmp_path):
    made: list[Workers] = []

    def make(**settings: str) -> Workers:
        made.append(Workers(tmp_path, **settings))
        return made[-1]

    yield make
    for one in made:
        await one.close()


@asynccontextmanager
async def caller(store_url: str, dispatcher_url: str = "local://", **settings):
    """A process that only submits."""
    given = {"store_url": store_url, "dispatcher_url": dispatcher_url, **settings}
    async with open_ops(Settings.model_validate(given), Catalog()) as ops:
        yield ops.engine


async def submitted(engine, agent: str, count: int = 1, **fields) -> list[str]:
    new = [NewTask(agent=agent, input=f"{number}", **fields) for number in range(count)]
    return [(await engine.submit(one)).task.id for one in new]


async def test_workers_share_replace_each_other_and_end_together(
    workers, tmp_path, postgres_url, dispatcher_url, request
):
    group = workers(OPSPAWN_STORE_URL=postgres_url, OPSPAWN_DISPATCHER_URL=dispatcher_url)
    await group.start("--processes", "3", "--concurrency", "2")
    async with caller(postgres_url, dispatcher_url) as engine:
        # E9: as many tasks as there are slots; all are begun before one has ended
        ids = await submitted(engine, "napper", 6)
        await until(lambda: len(group.notes("began")) == 6)
        assert Counter(pid for pid, _key in group.notes("began")) == dict.fromkeys(group.pids(), 2)

        if dispatcher_url != "local://":  # E1, E3: nothing hangs on a message or a connection while tasks run
            rabbit = request.getfixturevalue("rabbit")
            unanswered = '[rabbit_amqqueue:info_all(<<"/">>, [messages_unacknowledged])]'
            assert set(re.findall(r"messages_unacknowledged,(\d+)", rabbit.tell(unanswered))) == {"0"}
            assert rabbit.close_connections() >= 3

        # E2, E6: one is killed; another one takes its place, its tasks go on, the others notice nothing
        killed, *others = group.pids()
        os.kill(killed, signal.SIGKILL)
        await until(lambda: len(group.notes("began")) == 8)
        await until(lambda: len(group.pids()) == 4)
        (tmp_path / "go").touch()
        for task_id in ids:
            task = await engine.until_ended("default", task_id, 60)
            assert task.status == "completed", task
        ended = group.notes("ended")
        assert len(ended) == len({key for _pid, key in ended}) == 6
        interrupted = {key for pid, key in group.notes("began") if pid == killed}
        assert Counter(key for _pid, key in group.notes("began")) == {
            key: 2 if key in interrupted else 1 for _pid, key in ended
        }
        assert set(others) <= {pid for pid, _key in ended}
        assert all(Path(f"/proc/{pid}").exists() for pid in others)

        # E8: the signal comes to every process of the group, and once more through the supervisor
        (tmp_path / "go").unlink()
        held = await submitted(engine, "napper", 3)
        await until(lambda: len(group.notes("began")) == 11)
        os.killpg(group.process.pid, signal.SIGTERM)
        async with asyncio.timeout(15):
            assert await group.process.wait() == 0
        await group.until_group_is_empty()
        for task_id in held:  # handed over: no lease has to run out, no attempt is counted
            task = await engine.get("default", task_id)
            assert (task.status, task.attempt) == ("pending", 0), group.log()


async def test_workers_end_when_their_supervisor_is_killed(workers, tmp_path):
    store_url = f"sqlite:///{tmp_path}/ops.db"
    group = workers(OPSPAWN_STORE_URL=store_url)
    await group.start("--processes", "2")
    async with caller(store_url) as engine:
        (held,) = await submitted(engine, "napper")
        await until(lambda: group.notes("began"))
        await until(lambda: len(group.pids()) == 2)
        group.process.kill()
        assert await group.process.wait() == -signal.SIGKILL
        await group.until_group_is_empty()
        task = await engine.get("default", held)
        assert (task.status, task.attempt) == ("pending", 0)


async def test_a_task_that_kills_its_worker_is_given_up_and_the_others_go_on(workers, tmp_path):
    store_url = f"sqlite:///{tmp_path}/ops.db"
    group = workers(OPSPAWN_STORE_URL=store_url)
    (tmp_path / "go").touch()
    await group.start("--processes", "1")
    async with caller(store_url) as engine:
        (poison,) = await submitted(engine, "killer", max_attempts=2)
        task = await engine.until_ended("default", poison, 90)
        assert task.status == "failed"
        assert task.error is not None
        assert task.error.code == "worker_lost"
        # the first start counts for nothing, as it has recorded what the model said
        assert 2 <= len(group.notes("began")) <= 3
        (fine,) = await submitted(engine, "napper")
        assert (await engine.until_ended("default", fine, 60)).status == "completed"


async def test_a_blocked_event_loop_counts_as_a_dead_worker(workers, tmp_path, postgres_url, monkeypatch):
    """Its task goes on elsewhere, and what it writes afterwards is refused."""
    blocked = workers(OPSPAWN_STORE_URL=postgres_url)
    await blocked.start()
    monkeypatch.chdir(tmp_path)
    agents = runpy.run_path(str(HERE / "naps.py"))["catalog"]()
    quick = {"lease_seconds": 1.0, "sweep_seconds": 0.2, "store_url": postgres_url, "grace_seconds": 0.5}
    async with open_ops(Settings.model_validate(quick), agents) as ops:
        (task_id,) = await submitted(ops.engine, "hog")
        await until(lambda: blocked.notes("began"))
        async with ops.working():
            task = await ops.engine.until_ended("default", task_id, 60)
            await until(lambda: "the lease was lost" in blocked.log())
        assert (task.status, task.output) == ("completed", "done")
        steps = [recorded.step for recorded in await ops.engine.steps("default", task_id)]
        kinds = Counter(type(step).__name__ for step in steps)
        assert kinds["ToolReturned"] == kinds["Finished"] == 1
        assert "fresh" in str(steps)
        assert "zombie" not in str(steps)
        assert [pid for pid, _key in blocked.notes("began")] == [blocked.process.pid, os.getpid()]
        # it is not broken: it goes on with other tasks
        (tmp_path / "go").touch()
        (again,) = await submitted(ops.engine, "napper")
        assert (await ops.engine.until_ended("default", again, 60)).status == "completed"
    assert [pid for pid, _key in blocked.notes("ended")][-1] == blocked.process.pid
