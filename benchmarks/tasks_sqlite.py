"""Submit → done on SQLite through the whole engine, against the same rows written by hand.

    python benchmarks/tasks_sqlite.py             measure
    python benchmarks/tasks_sqlite.py --profile   where the time goes, thread by thread

Every commit is flushed to the disk (WAL, synchronous=FULL), here as there. BENCH_FOLDER names the folder of the
databases; it must be on a real disk.
"""

import asyncio
import os
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from harness import Numbers, Report, lanes, percentile, spending
from sampler import profile
from scripted import Scripted, add, has_failures

from agentkit import Agent, Recorded
from agentkit.transcript.codec import encode_step, kind_of
from agentkit.transcript.steps import Finished, ModelReplied, RunStarted, ToolReturned
from ops_core.assembly import Ops, open_ops
from ops_core.config.catalog import Catalog
from ops_core.config.sandbox import Sandboxing
from ops_core.processes.event_loop import run_lasting
from ops_core.settings import Settings
from ops_core.stores import migrations, open_store
from ops_core.task import NewTask

SUBMITTERS = 20
SHORT = ()  # the beginning, one reply, the end: three steps
TEN = (2, 1, 1)  # calls in each turn; with the beginning, the last reply and the end these are ten steps
NEW = NewTask(agent="agent", input="go")

# --- by hand -----------------------------------------------------------------------------------------------------

INSERT = """INSERT INTO task (id, tenant, agent, status, input, labels, priority, run_after, max_attempts,
    created_at, updated_at) VALUES (?1, 'default', 'agent', 'pending', '"go"', '{}', 0, ?2, 5, ?2, ?2)"""
CLAIM = """UPDATE task SET status = 'running', epoch = epoch + 1, attempt = attempt + 1, steps_at_claim = steps,
    lease_owner = 'by hand', lease_until = ?1 + 15, started_at = ?1, updated_at = ?1
    WHERE id IN (SELECT id FROM task WHERE status IN ('pending', 'waiting') AND run_after <= ?1
    ORDER BY priority DESC, run_after, id LIMIT ?2) RETURNING id, epoch, input"""
COUNT = """UPDATE task SET steps = steps + 1, model_calls = model_calls + ?3, tool_calls = tool_calls + ?4,
    input_tokens = input_tokens + 100 * ?3, updated_at = ?5 WHERE id = ?1 AND epoch = ?2 AND status = 'running'
    RETURNING steps"""
STEP = "INSERT INTO step (tenant, task_id, seq, epoch, at, kind, body) VALUES ('default', ?, ?, ?, ?, ?, ?)"
FINISH = """UPDATE task SET status = 'completed', output = '"done"', steps = steps + ?3, run_after = NULL,
    lease_owner = NULL, lease_until = NULL, finished_at = ?4, updated_at = ?4
    WHERE id = ?1 AND epoch = ?2 AND status = 'running'"""


@contextmanager
def fresh_file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER")) as folder:
        yield Path(folder) / "tasks.db"


@contextmanager
def by_hand() -> Iterator[sqlite3.Connection]:
    """An empty database with our tables and indexes, and our pragmas."""
    with fresh_file() as path:
        migrations.upgrade(open_store(f"sqlite:///{path}"))
        connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
        yield connection
        connection.close()


def bodies(calls: Sequence[int]) -> list[tuple[str, str]]:
    """Kind and stored form of the steps of one run, without its last."""
    steps = [RunStarted(run_id=str(uuid.uuid4()), agent="agent", input="go")]
    for reply in Scripted(calls).replies.values():
        steps.append(ModelReplied(parts=reply.parts, usage=reply.usage, model=reply.model, seconds=1e-6))
        steps.extend(
            ToolReturned(call_id=call.id, tool="add", output=3, seconds=1e-6) for call in reply.tool_calls
        )
    return [(kind_of(step), encode_step(step)) for step in steps]


LAST = encode_step(Finished(status="completed", output="done"))


@contextmanager
def commit(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("COMMIT")


def tasks_by_hand(
    connection: sqlite3.Connection, together: int, steps: Sequence[tuple[str, str]] | None
) -> None:
    """Some tasks from their insertion to their end.

    Args:
        together: so many tasks share each commit.
        steps: all but the last, each with a commit; ``None`` to keep no steps at all, which leaves three commits.
    """
    with commit(connection):
        for _ in range(together):
            connection.execute(INSERT, (str(uuid.uuid4()), time.time()))
    with commit(connection):
        claimed = connection.execute(CLAIM, (time.time(), together)).fetchall()
    for seq, (kind, body) in enumerate(steps or ()):
        with commit(connection):
            for task_id, epoch, _input in claimed:
                counts = (kind == "model_replied", kind == "tool_returned")
                connection.execute(COUNT, (task_id, epoch, *counts, time.time())).fetchall()
                connection.execute(STEP, (task_id, seq, epoch, time.time(), kind, body))
    with commit(connection):
        for task_id, epoch, _input in claimed:
            connection.execute(FINISH, (task_id, epoch, steps is not None, time.time()))
            if steps is not None:
                connection.execute(STEP, (task_id, len(steps), epoch, time.time(), "finished", LAST))


def rate_by_hand(count: int, together: int, calls: Sequence[int] | None) -> Numbers:
    steps = None if calls is None else bodies(calls)
    with by_hand() as connection:
        with spending() as spent:
            for _ in range(count // together):
                tasks_by_hand(connection, together, steps)
        _require(
            connection.execute("SELECT count(*) FROM task WHERE status = 'completed'").fetchone()[0], count
        )
    return _rates(count, 0 if steps is None else len(steps) + 1, spent.wall, spent.cpu)


def latency_by_hand(count: int, calls: Sequence[int] | None) -> Numbers:
    steps = None if calls is None else bodies(calls)
    with by_hand() as connection:
        return _latencies([_timed(partial(tasks_by_hand, connection, 1, steps)) for _ in range(count)])


# --- through the engine ------------------------------------------------------------------------------------------


class Ended:
    """Counts the runs that have ended: told after the commit of their last step."""

    def __init__(self) -> None:
        self.count = 0
        self.failures = 0
        self.enough = asyncio.Event()
        self.wanted = 0

    def __call__(self, _task_id: str, event: object) -> None:
        if isinstance(event, Recorded) and has_failures([event]):
            self.failures += 1
        if isinstance(event, Recorded) and isinstance(event.step, Finished):
            self.count += 1
            if self.count == self.wanted:
                self.enough.set()

    async def wait_for(self, more: int) -> None:
        self.wanted = self.count + more
        self.enough.clear()
        await self.enough.wait()


def catalog(calls: Sequence[int]) -> Catalog:
    return Catalog([Agent(Scripted(calls), tools=[add])], sandboxing=Sandboxing(default="inprocess"))


async def submit_all(ops: Ops, ended: Ended, count: int) -> None:
    waiting = asyncio.create_task(ended.wait_for(count))
    await asyncio.sleep(0)
    await lanes(count, SUBMITTERS, lambda _number: ops.engine.submit(NEW))
    await waiting
    _require(ended.failures, 0)


async def _rate(count: int, calls: Sequence[int]) -> Numbers:
    ended = Ended()
    with fresh_file() as path:
        async with (
            open_ops(Settings(store_url=f"sqlite:///{path}"), catalog(calls)) as ops,
            ops.working(ended),
        ):
            await submit_all(ops, ended, SUBMITTERS)
            with spending() as spent:
                await submit_all(ops, ended, count)
        with sqlite3.connect(path) as connection:
            done = connection.execute(
                "SELECT count(*), min(steps) FROM task WHERE status = 'completed'"
            ).fetchone()
        _require(done, (count + SUBMITTERS, Scripted(calls).steps))
    return _rates(count, Scripted(calls).steps, spent.wall, spent.cpu)


def rate(count: int, calls: Sequence[int]) -> Numbers:
    return run_lasting(_rate(count, calls))


async def _latency(count: int, calls: Sequence[int]) -> Numbers:
    async def one(ops: Ops) -> None:
        inserted = await ops.engine.submit(NEW)
        await ops.engine.until_ended(NEW.tenant, inserted.task.id)

    with fresh_file() as path:
        async with open_ops(Settings(store_url=f"sqlite:///{path}"), catalog(calls)) as ops, ops.working():
            await one(ops)
            seconds = []
            for _ in range(count):
                began = time.perf_counter()
                await one(ops)
                seconds.append(time.perf_counter() - began)
    return _latencies(seconds)


def latency(count: int, calls: Sequence[int]) -> Numbers:
    return run_lasting(_latency(count, calls))


# --- numbers -----------------------------------------------------------------------------------------------------


def _rates(tasks: int, steps: int, wall: float, cpu: float) -> Numbers:
    found = {"tasks/s": tasks / wall, "CPU s per 1,000": 1000 * cpu / tasks}
    return {**found, "steps/s": steps * tasks / wall} if steps else found


def _latencies(seconds: Sequence[float]) -> Numbers:
    return {"p50 ms": 1000 * percentile(seconds, 50), "p99 ms": 1000 * percentile(seconds, 99)}


def _timed(work: partial[None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _require(found: object, wanted: object) -> None:
    if found != wanted:
        raise RuntimeError(f"not what was to be measured: {found}, not {wanted}")


def main() -> None:
    report = Report("tasks_sqlite", max_seconds=400)
    report.compare(
        "tasks of three steps, 20 submitters",
        {
            "by hand, three commits, no steps": partial(rate_by_hand, 400, 1, None),
            "by hand, a commit for each step": partial(rate_by_hand, 400, 1, SHORT),
            "by hand, 20 tasks in each commit": partial(rate_by_hand, 2000, 20, SHORT),
            "engine": partial(rate, 1000, SHORT),
        },
        seconds=40,
    )
    report.compare(
        "tasks of ten steps, 20 submitters",
        {
            "by hand, three commits, no steps": partial(rate_by_hand, 400, 1, None),
            "by hand, a commit for each step": partial(rate_by_hand, 200, 1, TEN),
            "by hand, 20 tasks in each commit": partial(rate_by_hand, 1000, 20, TEN),
            "engine": partial(rate, 400, TEN),
        },
        seconds=40,
    )
    for question, calls in (("three", SHORT), ("ten", TEN)):
        report.compare(
            f"one task of {question} steps at a time",
            {
                "by hand, three commits, no steps": partial(latency_by_hand, 100, None),
                "by hand, a commit for each step": partial(latency_by_hand, 100, calls),
                "engine": partial(latency, 100, calls),
            },
        )


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case ["--profile"]:
            for title, count, calls in (("three", 3000, SHORT), ("ten", 1000, TEN)):
                print(f"\ntasks of {title} steps", file=sys.stderr)
                profile(partial(rate, count, calls))
        case _:
            raise SystemExit(__doc__)
