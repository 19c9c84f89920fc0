"""Opspawn as one candidate of a comparison of task engines: the phases and the counting are the harness's own.

    BENCH_HARNESS=FOLDER BENCH_VARIANT=pg python benchmarks/c_opscore.py

FOLDER holds the harness (``common.py``, ``servers.py``), whose servers must be running. Variants:

    pg       PostgreSQL; wake-ups by NOTIFY; client and worker are two processes
    rabbit   PostgreSQL; wake-ups through RabbitMQ
    sqlite   one file, synchronous=FULL; client and worker in one process

A task is an agent's run: a model that answers at once (``noop``: three steps), after a second (``sleep``), or after
four calls of a tool (``wf``: ten steps). BENCH_WORKERS sets the number of worker processes.
"""

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import ClassVar

import psycopg
from scripted import Scripted, add

from agentkit import Agent
from agentkit.messages import ModelReply, ModelRequest
from ops_core.assembly import Ops, open_ops
from ops_core.config.catalog import Catalog
from ops_core.config.sandbox import Sandboxing
from ops_core.processes.event_loop import run_lasting
from ops_core.settings import Settings
from ops_core.stores import migrations, open_store
from ops_core.task import NewTask

sys.path.insert(0, os.environ["BENCH_HARNESS"])
from common import DIR, MQ_URL, PG_DSN, SECS, Candidate, Counter, cpu, main

VARIANT = os.environ.get("BENCH_VARIANT", "pg")
WORKERS = int(os.environ.get("BENCH_WORKERS", "1"))
NAME = f"opspawn-{VARIANT}" + (f"-{WORKERS}" if WORKERS > 1 else "")
FILE = DIR / "opspawn.db"
DSN = f"{PG_DSN}_opspawn"  # a database of its own: what others made in theirs is refused
DONE = "SELECT count(*) FROM task WHERE finished_at IS NOT NULL AND status = 'completed'"
COUNTED = Counter(NAME)


class Counting(Scripted):
    """Counts the runs that come to their last reply, outside of the system."""

    def __init__(self, calls: tuple[int, ...], seconds: float = 0.0) -> None:
        super().__init__(calls)
        self.seconds = seconds
        self.last = max(self.replies)

    async def reply(self, request: ModelRequest, on_delta: object = None) -> ModelReply:
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if len(request.messages) == self.last:
            COUNTED.add()
        return self.replies[len(request.messages)]


def catalog() -> Catalog:
    return Catalog(
        [
            Agent(Counting(()), name="noop"),
            Agent(Counting((), SECS), name="sleep"),
            Agent(Counting((2, 1, 1)), name="wf", tools=[add]),
        ],
        sandboxing=Sandboxing(default="inprocess"),
    )


def settings() -> Settings:
    return Settings(
        store_url=f"sqlite:///{FILE}" if VARIANT == "sqlite" else DSN,
        dispatcher_url=MQ_URL if VARIANT == "rabbit" else "local://",
        concurrency=1000,
    )


async def work() -> None:
    async with open_ops(settings(), catalog()) as ops, ops.working():
        await asyncio.Event().wait()


class Opspawn(Candidate):
    name = NAME
    servers = {"sqlite": (), "pg": ("pg",), "rabbit": ("pg", "rabbit")}[VARIANT]
    has_steps = True
    modes: ClassVar = {"worker_limit": 1000, "workers": WORKERS, "variant": VARIANT}
    worker_cwd = Path(__file__).parent
    ops: Ops

    async def setup(self) -> None:
        for file in (FILE, Path(f"{FILE}-wal"), Path(f"{FILE}-shm")):
            file.unlink(missing_ok=True)
        if VARIANT != "sqlite":
            await asyncio.to_thread(self._create)
        store = open_store(settings().store_url)
        await asyncio.to_thread(migrations.downgrade, store, "base")
        await asyncio.to_thread(migrations.upgrade, store)
        self._context = open_ops(settings(), catalog())
        self.ops = await self._context.__aenter__()
        self._working = None

    def _create(self) -> None:
        with (
            psycopg.connect(PG_DSN, autocommit=True) as connection,
            suppress(psycopg.errors.DuplicateDatabase),
        ):
            connection.execute(f'CREATE DATABASE "{DSN.rpartition("/")[2]}"')

    async def close(self) -> None:
        await self._context.__aexit__(None, None, None)

    async def reset(self) -> None:
        await self.ops.engine.purge(0.0)

    async def submit(self, kind: str) -> str:
        return (await self.ops.engine.submit(NewTask(agent=kind, input="go"))).task.id

    async def stored_done(self) -> int:
        return await asyncio.to_thread(self._done)

    def _done(self) -> int:
        connect = sqlite3.connect if VARIANT == "sqlite" else psycopg.connect
        with closing(connect(FILE if VARIANT == "sqlite" else DSN)) as connection:
            return connection.execute(DONE).fetchone()[0]

    async def result(self, handle: str) -> None:
        task = await self.ops.engine.until_ended("default", handle)
        if task.status != "completed":
            raise RuntimeError(f"task {handle} is {task.status}: {task.error}")

    def worker_cmd(self, mode: str) -> list[str]:
        return [sys.executable, __file__, "workers" if WORKERS > 1 else "worker"]

    async def wait_counter(self, target: int, poll: float = 0.005) -> None:
        if WORKERS == 1:  # several processes lose counts of each other: then the store alone says it
            await super().wait_counter(target, poll)

    # --- embedded: the worker is part of this process ---

    def start_worker(self, mode: str) -> None:
        if VARIANT != "sqlite":
            super().start_worker(mode)
            return
        self._working = asyncio.ensure_future(self._work())
        self.worker = type("Here", (), {"pid": os.getpid()})

    async def _work(self) -> None:
        async with self.ops.working():
            await asyncio.Event().wait()

    def stop_worker(self) -> None:
        if VARIANT != "sqlite":
            super().stop_worker()
        elif self.worker:
            self._working.cancel()
            self.worker = None

    def cpus(self) -> dict[str, float]:
        return {"client+worker": cpu([os.getpid()])} if VARIANT == "sqlite" else super().cpus()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["worker"]:
            run_lasting(work())
        case ["workers"]:
            several = [subprocess.Popen([sys.executable, __file__, "worker"]) for _ in range(WORKERS)]
            for one in several:
                one.wait()
        case _:
            main(Opspawn)
