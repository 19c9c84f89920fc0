"""Workers that are alive, and what each of them holds. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_HELD = 100
"""Number of tasks of one worker that are listed; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a worker says about itself when it starts.

    Attributes:
        name: the owner of its leases.
        version: of its release.
        agents: that it can run.
        capacity: number of runs that it carries at a time.
    """

    name: str
    version: str
    agents: Sequence[str]
    capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldTask:
    """A task under a worker's lease.

    Attributes:
        task_id: its id.
        agent: whose run it is.
        since: when the worker claimed it.
        until: when the lease runs out, unless it is renewed.
    """

    task_id: str
    agent: str
    since: float | None
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker, as the store knows it. All moments are by the database's clock.

    Attributes:
        name: the owner of its leases.
        version: of its release; ``None`` for one that did not announce itself, as `opspawn run` does not.
        agents: that it can run.
        capacity: number of runs that it carries at a time.
        started_at: when it announced itself.
        seen_at: its last heartbeat.
        until: it counts as alive until then.
        running: number of tasks that it holds, of all tenants.
        held: the tenant's tasks among them, the oldest first, at most :data:`MAX_HELD`.
        looked_at: when this was read.
    """

    name: str
    version: str | None = None
    agents: Sequence[str] = ()
    capacity: int | None = None
    started_at: float | None = None
    seen_at: float | None = None
    until: float
    running: int = 0
    held: Sequence[HeldTask] = ()
    looked_at: float

    @property
    def is_alive(self) -> bool:
        """Its last heartbeat is no older than its lease lasts."""
        return self.until >= self.looked_at
