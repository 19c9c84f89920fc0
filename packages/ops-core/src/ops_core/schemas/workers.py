"""Bodies of workers and of the leases that they hold."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import ConfigDict, Field

from ops_core.schemas.fields import Strict, moment
from ops_core.task import Task, TaskStatus
from ops_core.workers import HeldTask, Worker, place_in


class LeaseBody(Strict):
    """The claim of a worker on a task."""

    worker: str = Field(description="Name of the worker.")
    since: datetime | None = Field(description="When it claimed the task.")
    until: datetime = Field(
        description="Nobody else may claim the task before this moment; heartbeats move it."
    )
    expired_seconds: float | None = Field(
        default=None,
        description="Time since the lease has run out: the worker is gone or silent, and another one takes the task "
        "over. `null` while the lease holds.",
    )

    @classmethod
    def of(cls, task: Task) -> LeaseBody | None:
        """The lease of a task that is running."""
        if task.status is not TaskStatus.RUNNING or task.lease_owner is None or task.lease_until is None:
            return None
        return cls(
            worker=task.lease_owner,
            since=None if task.status_since is None else moment(task.status_since),
            until=moment(task.lease_until),
            expired_seconds=task.lease_expired_seconds,
        )


class HeldTaskBody(Strict):
    """A task that a worker holds."""

    task_id: str
    agent: str
    since: datetime | None = Field(description="When the worker claimed it.")
    until: datetime = Field(description="Its lease runs out then, unless the worker renews it.")
    expired_seconds: float | None = Field(
        default=None, description="Time since the lease has run out; `null` while it holds."
    )

    @classmethod
    def of(cls, held: HeldTask, looked_at: float) -> HeldTaskBody:
        """A task under a lease."""
        return cls(
            task_id=held.task_id,
            agent=held.agent,
            since=None if held.since is None else moment(held.since),
            until=moment(held.until),
            expired_seconds=looked_at - held.until if held.until < looked_at else None,
        )


class WorkerBody(Strict):
    """A worker."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "host-1-10194-86c142f3",
                    "host": "host-1",
                    "pid": 10194,
                    "version": "0.1.0",
                    "agents": ["assistant"],
                    "capacity": 100,
                    "alive": True,
                    "started_at": "2026-11-22T09:00:00.120000Z",
                    "seen_at": "2026-11-22T12:20:00.500000Z",
                    "silent_seconds": 1.5,
                    "running": 1,
                    "tasks": [
                        {
                            "task_id": "01996c2e-5d1a-7c3e-9f60-2b1f3c8a4d77",
                            "agent": "assistant",
                            "since": "2026-11-22T12:19:00.500000Z",
                            "until": "2026-11-22T12:20:15.500000Z",
                            "expired_seconds": None,
                        }
                    ],
                }
            ]
        }
    )

    name: str = Field(description="The owner of its leases; logs name it, too.")
    host: str | None = Field(description="Where it runs; `null` where its name does not say.")
    pid: int | None = Field(description="Its process there.")
    version: str | None = Field(
        description="Its release; `null`, as all that follows from an announcement, for a process that did not "
        "announce itself: `opspawn run` carries its own task only."
    )
    agents: list[str] = Field(description="The agents that it can run.")
    capacity: int | None = Field(description="Number of runs that it carries at a time.")
    alive: bool = Field(description="Its last heartbeat is no older than a lease lasts.")
    started_at: datetime | None
    seen_at: datetime | None = Field(description="Its last heartbeat.")
    silent_seconds: float | None = Field(description="Time since then, by the database's clock.")
    running: int = Field(description="Number of tasks that it holds.")
    tasks: list[HeldTaskBody] = Field(description="Those it has held for longest, at most 100.")

    @classmethod
    def of(cls, worker: Worker) -> WorkerBody:
        """A worker as the store knows it."""
        host, pid = place_in(worker.name)
        return cls(
            name=worker.name,
            host=host,
            pid=pid,
            version=worker.version,
            agents=list(worker.agents),
            capacity=worker.capacity,
            alive=worker.is_alive,
            started_at=None if worker.started_at is None else moment(worker.started_at),
            seen_at=None if worker.seen_at is None else moment(worker.seen_at),
            silent_seconds=None if worker.seen_at is None else max(0.0, worker.looked_at - worker.seen_at),
            running=worker.running,
            tasks=[HeldTaskBody.of(held, worker.looked_at) for held in worker.held],
        )


class WorkerPage(Strict):
    """Workers by name: those that are alive, that fell silent in the last ten minutes, or that hold a lease."""

    items: list[WorkerBody]

    @classmethod
    def of(cls, workers: Sequence[Worker]) -> WorkerPage:
        """All of them."""
        return cls(items=[WorkerBody.of(worker) for worker in workers])
