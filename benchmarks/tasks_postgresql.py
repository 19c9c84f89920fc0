"""Submit → done on PostgreSQL, client and workers in processes of their own, against the same rows written by hand.

    python benchmarks/tasks_postgresql.py             measure, with one worker process and with two
    python benchmarks/tasks_postgresql.py --once      one round of the engine only, with what each process used

The floor writes three rows for a task (insert, claim, finish), each with a commit of its own, over 20 connections.
Every commit is flushed to the disk. The server is private: a folder in TMPDIR, which must be on a real disk.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
from harness import Numbers, Report, lanes, percentile
from scripted import Scripted, add

from agentkit import Agent, tool
from ops_core.assembly import Ops, open_ops
from ops_core.config.catalog import Catalog
from ops_core.config.sandbox import Sandboxing
from ops_core.processes.event_loop import run_lasting
from ops_core.settings import Settings
from ops_core.stores import migrations, open_store
from ops_core.task import NewTask
from ops_core.testing.servers.postgresql import PostgresServer

SUBMITTERS = CONNECTIONS = 20
SHORT, TEN = (), (2, 1, 1)
TICK = os.sysconf("SC_CLK_TCK")

# --- by hand -----------------------------------------------------------------------------------------------------

TABLE = """CREATE TABLE by_hand (id bigserial PRIMARY KEY, status text NOT NULL, payload jsonb, result jsonb,
    worker text, lease timestamptz, created timestamptz DEFAULT now(), done timestamptz)"""
INDEX = "CREATE INDEX ON by_hand (id) WHERE status = 'queued'"
INSERT = """INSERT INTO by_hand (status, payload) VALUES ('queued', '{"a": 1}') RETURNING id"""
CLAIM = """UPDATE by_hand SET status = 'running', worker = 'w', lease = now() + interval '30s' WHERE id IN (SELECT id
    FROM by_hand WHERE status = 'queued' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id"""
FINISH = """UPDATE by_hand SET status = 'done', result = '{"ok": true}', done = now() WHERE id = %s"""


async def one_by_hand(connection: psycopg.AsyncConnection) -> None:
    await connection.execute(INSERT)
    while not (row := await (await connection.execute(CLAIM)).fetchone()):
        pass  # SKIP LOCKED may find only rows that others hold just now
    await connection.execute(FINISH, (row[0],))


async def by_hand(server: PostgresServer, count: int, connections: int) -> Numbers:
    with server.database() as name:
        server.execute(TABLE, name)
        server.execute(INDEX, name)
        opened = [
            await psycopg.AsyncConnection.connect(server.url(name), autocommit=True, prepare_threshold=1)
            for _ in range(connections)
        ]
        free = list(opened)
        seconds: list[float] = []

        async def one(_number: int) -> None:
            connection = free.pop()
            began = time.perf_counter()
            await one_by_hand(connection)
            seconds.append(time.perf_counter() - began)
            free.append(connection)

        await lanes(10 * connections, connections, one)
        seconds.clear()
        before, began = used_by([os.getpid(), server.pid]), time.perf_counter()
        await lanes(count, connections, one)
        wall = time.perf_counter() - began
        cpu = used_by([os.getpid(), server.pid]) - before
        for connection in opened:
            await connection.close()
    return {
        "tasks/s": count / wall,
        "CPU s per 1,000": 1000 * cpu / count,
        "p50 ms": 1000 * percentile(seconds, 50),
    }


# --- through the engine ------------------------------------------------------------------------------------------


def catalog() -> Catalog:
    @tool(effect="pure")
    async def wait(a: int, b: int) -> int:
        """Wait for a second."""
        await asyncio.sleep(1.0)
        return a + b

    return Catalog(
        [
            Agent(Scripted(SHORT), name="short", tools=[add]),
            Agent(Scripted(TEN), name="ten", tools=[add]),
            Agent(Scripted([1], tool="wait"), name="wait", tools=[wait]),
        ],
        sandboxing=Sandboxing(default="inprocess"),
    )


STEPS = {"short": Scripted(SHORT).steps, "ten": Scripted(TEN).steps, "wait": Scripted([1]).steps}


async def work(url: str, dispatcher: str) -> None:
    """A worker process: until its input ends."""
    settings = Settings(store_url=url, dispatcher_url=dispatcher, concurrency=1000)
    async with open_ops(settings, catalog()) as ops, ops.working():
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


@dataclass
class Fleet:
    ops: Ops
    server: PostgresServer
    database: str
    workers: Sequence[int]

    def used(self) -> Numbers:
        return {
            "client": used_by([os.getpid()]),
            "workers": used_by(self.workers),
            "server": used_by([self.server.pid]),
        }

    async def run(self, agent: str, count: int) -> float:
        """Submit tasks and wait until the store says that all are done; seconds."""
        before = self.done()
        began = time.perf_counter()
        await lanes(
            count, SUBMITTERS, lambda _number: self.ops.engine.submit(NewTask(agent=agent, input="go"))
        )
        while self.done() < before + count:  # noqa: ASYNC110  (the store is asked, as another process would)
            await asyncio.sleep(0.02)
        return time.perf_counter() - began

    def done(self) -> int:
        with self.server.connected(self.database) as connection:
            statement = "SELECT count(*) FROM task WHERE finished_at IS NOT NULL AND status = 'completed'"
            return connection.exec_driver_sql(statement).scalar_one()


@asynccontextmanager
async def fleet(server: PostgresServer, count: int, dispatcher: str = "local://") -> AsyncGenerator[Fleet]:
    with server.database() as name:
        url = server.url(name)
        migrations.upgrade(open_store(url))
        with processes(count, url, dispatcher) as workers:
            settings = Settings(store_url=url, dispatcher_url=dispatcher)
            async with open_ops(settings, catalog()) as ops:
                made = Fleet(ops, server, name, workers)
                await made.run("short", 50)
                await made.run("ten", 20)
                yield made


@contextmanager
def processes(count: int, url: str, dispatcher: str) -> Iterator[Sequence[int]]:
    command = [sys.executable, __file__, "--worker", url, dispatcher]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for one in started:
            assert one.stdout is not None
            one.stdout.readline()
        yield [one.pid for one in started]
    finally:
        for one in started:
            one.communicate(timeout=30)


async def rates(
    server: PostgresServer, agent: str, count: int, workers: int, dispatcher: str = "local://"
) -> Numbers:
    async with fleet(server, workers, dispatcher) as made:
        before = made.used()
        wall = await made.run(agent, count)
        used = {who: spent - before[who] for who, spent in made.used().items()}
    cpu = {f"CPU {who}": 1000 * spent / count for who, spent in used.items()}
    return {
        "tasks/s": count / wall,
        "steps/s": STEPS[agent] * count / wall,
        "CPU s per 1,000": sum(cpu.values()),
        **cpu,
    }


async def latency(server: PostgresServer, count: int, workers: int, dispatcher: str = "local://") -> Numbers:
    async with fleet(server, workers, dispatcher) as made:
        seconds = []
        for _ in range(count):
            began = time.perf_counter()
            submitted = await made.ops.engine.submit(NewTask(agent="short", input="go"))
            await made.ops.engine.until_ended("default", submitted.task.id)
            seconds.append(time.perf_counter() - began)
    return {"p50 ms": 1000 * percentile(seconds, 50), "p99 ms": 1000 * percentile(seconds, 99)}


async def waits(server: PostgresServer, count: int, workers: int, dispatcher: str = "local://") -> Numbers:
    async with fleet(server, workers, dispatcher) as made:
        before = made.used()
        wall = await made.run("wait", count)
        peak = max(peak_mb(pid) for pid in made.workers)
        cpu = sum(made.used().values()) - sum(before.values())
    return {"wall s": wall, "worker peak MB": peak, "CPU s": cpu}


async def sleeps(count: int) -> Numbers:
    began = time.perf_counter()
    await asyncio.gather(*(asyncio.sleep(1.0) for _ in range(count)))
    return {"wall s": time.perf_counter() - began}


# --- counting ----------------------------------------------------------------------------------------------------


def used_by(roots: Sequence[int]) -> float:
    """CPU seconds of processes and of their children, those that have ended included."""
    total = 0
    for pid in family(roots):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15] if pid in roots else fields[11:13]))
    return total / TICK


def family(roots: Sequence[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(folder.name))
    found, waiting = set(), list(roots)
    workers = {pid for pid in roots if pid != os.getpid()}
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            # what the client has started is counted by itself
            waiting += [] if pid == os.getpid() and pid not in workers else children.get(pid, [])
    return found


def peak_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no VmHWM for {pid}")


def now(measure: "partial") -> Numbers:
    return run_lasting(measure())


def main() -> None:
    report = Report("tasks_postgresql", max_seconds=900)
    with PostgresServer(durable=True) as server:
        for agent, count in (("short", 3000), ("ten", 600)):
            report.compare(
                f"tasks of {STEPS[agent]} steps, {SUBMITTERS} submitters",
                {
                    "by hand, three commits, 20 connections": partial(
                        now, partial(by_hand, server, 1000, CONNECTIONS)
                    ),
                    "engine, one worker": partial(now, partial(rates, server, agent, count, 1)),
                    "engine, two workers": partial(now, partial(rates, server, agent, count, 2)),
                },
                seconds=60,
            )
        report.compare(
            "one task at a time",
            {
                "by hand, three commits, 1 connection": partial(now, partial(by_hand, server, 200, 1)),
                "engine, one worker": partial(now, partial(latency, server, 100, 1)),
                "engine, two workers": partial(now, partial(latency, server, 100, 2)),
            },
        )
        report.compare(
            "1,000 times one second",
            {
                "bare asyncio sleeps": partial(now, partial(sleeps, 1000)),
                "engine, one worker": partial(now, partial(waits, server, 1000, 1)),
                "engine, two workers": partial(now, partial(waits, server, 1000, 2)),
            },
            warm_up=False,
        )


def once(workers: int) -> None:
    with PostgresServer(durable=True) as server:
        print("floor", now(partial(by_hand, server, 1000, CONNECTIONS)))
        print("floor, 1 connection", now(partial(by_hand, server, 200, 1)))
        for agent, count in (("short", 3000), ("ten", 600)):
            print(agent, now(partial(rates, server, agent, count, workers)))
        print("latency", now(partial(latency, server, 100, workers)))
        print("waits", now(partial(waits, server, 1000, workers)))


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case ["--once", *rest]:
            once(int(rest[0]) if rest else 1)
        case ["--worker", url, dispatcher]:
            run_lasting(work(url, dispatcher))
        case _:
            raise SystemExit(__doc__)
