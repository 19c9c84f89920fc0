"""Self-test of a sandbox: a child tries what must be refused. Nothing here does harm where it is not refused."""

from __future__ import annotations

import os
import resource
import socket
from contextlib import suppress
from typing import Any


def attempt(canary: str, outsider: int) -> dict[str, Any]:
    """What was refused, and which limits hold.

    Args:
        canary: a file that the worker has just made and did not grant.
        outsider: process id of the worker.
    """
    return {
        "files": _is_refused(lambda: os.close(os.open(canary, os.O_RDONLY))),
        "network": _is_refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()),
        "sockets": _is_refused(lambda: socket.socket(socket.AF_UNIX).close()),
        "signals": _is_refused(lambda: os.kill(outsider, 0)),
        "processes": _is_refused(_fork),
        "limits": {
            "memory": _is_limited(resource.RLIMIT_AS) or _is_limited(resource.RLIMIT_DATA),
            "processes": _is_limited(resource.RLIMIT_NPROC),
        },
        "alone": os.getpid() < 16,
    }


def _is_refused(attempted: Any) -> bool:
    try:
        attempted()
    except OSError:
        return True
    return False


def _is_limited(kind: int) -> bool:
    return resource.getrlimit(kind)[0] != resource.RLIM_INFINITY


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
