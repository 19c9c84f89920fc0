"""Names of workers, and whether the process behind one on this machine has ended.

A lease says who holds it. Where the holder ran on this very machine, the kernel knows whether it still does, and nobody
needs to wait for the lease to run out.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
from functools import cache
from pathlib import Path

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
