"""Workers: the names under which they hold leases, those that are alive, and what each of them holds.

A lease says who holds it. Where the holder ran on this very machine, the kernel knows whether it still does, and nobody
needs to wait for the lease to run out.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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


_OWNER = re.compile(r"-(?P<pid>\d+)-(?P<place>[0-9a-f]{12})\.(?P<began>\d+)-[0-9a-f]{8}$")


def worker_name() -> str:
    """A name for the leases of this process: says where it is, and is unique."""
    pid, place, began = os.getpid(), place_of_processes(), _began(os.getpid())
    where = f"{pid}" if place is None or began is None else f"{pid}-{place}.{began}"
    return f"{socket.gethostname()[:100]}-{where}-{secrets.token_hex(4)}"


_PLACE = re.compile(r"(?P<host>.+)-(?P<pid>\d{1,18})(-[0-9a-f]{12}\.\d+)?-[0-9a-f]{8}")


def place_in(owner: str) -> tuple[str | None, int | None]:
    """The host and the process that a worker's name tells; ``None`` for both where it tells none."""
    found = _PLACE.fullmatch(owner)
    return (None, None) if found is None else (found["host"], int(found["pid"]))


@cache
def place_of_processes() -> str | None:
    """Within what a number means one process: this boot of this machine, and this container of it.

    ``None`` where the system does not tell.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        inside = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return None
    return hashlib.sha256(f"{boot} {inside}".encode()).hexdigest()[:12]


def has_ended(owner: str) -> bool:
    """Whether the process with this name was one of this place and is no more; ``False`` where that is not certain."""
    found = _OWNER.search(owner)
    if found is None or found["place"] != place_of_processes():
        return False
    pid = int(found["pid"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # of another user, but there
        return False
    began = _began(pid)
    return began is not None and began != found["began"]


def _began(pid: int) -> str | None:
    """When a process began, in ticks since the boot; of one that has ended and was not waited for, ``ended``."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = told.rpartition(")")[2].split()  # the name before it may hold anything
    return "ended" if fields[0] in ("Z", "X") else fields[19]
