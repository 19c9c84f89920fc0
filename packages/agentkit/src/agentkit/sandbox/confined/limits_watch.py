"""Limits watch: usage of a child and its descendants, as the kernel counts it."""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from .mounts import max_files
from .proc import Proc, Use

TICK_MILLISECONDS = 20
"""So often it is looked at what no limit of the kernel holds by itself."""

IDLE_TICK_MILLISECONDS = 160
"""So seldom at the most, where no processor was used since it was looked at last: each time it is twice as long."""


def bury(proc: Proc) -> None:
    """End all children, and wait for them.

    A jail that is killed while it is made can leave its first process behind: it dies with its parent only once it has
    said so. Whoever is a child here and was not waited for cannot have given its number to somebody else.
    """
    with suppress(ChildProcessError):
        while True:
            for child in proc.children(os.getpid()):
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            os.waitpid(-1, 0)


def bytes_below(folder: str) -> int:
    """What the files below a folder take, and a little for each name."""
    total = 0
    for parent, folders, files in os.walk(folder):
        total += 4096 * len(folders)
        for name in files:
            with suppress(OSError):
                total += max(4096, os.lstat(os.path.join(parent, name)).st_blocks * 512)
    return total


@dataclass(slots=True, kw_only=True)
class Watch:
    """Looks after a child until it has ended.

    Attributes:
        proc: where its use is read.
        pid: the child.
        pidfd: the same, for good.
        inner: the first process of a namespace below it, with which all others in there end.
        program: what runs in that namespace, by itself.
        worker: connection to the worker; when it closes, or says anything, the child is killed.
        limits: what it may use.
        tree: its descendants count as well.
        folder: whose size is looked at, where no file system limits it.
        scratch: descriptors of folders of a jail, the number of whose files is looked at.
        base: what it held when it began, which does not count.
        peak: bytes of memory that it was seen with.
        over: which limit it was killed for.
        tick: milliseconds until it is looked at again.
        spent: seconds of processors that it had taken when it was looked at last.
    """

    proc: Proc
    pid: int
    pidfd: int
    worker: socket.socket
    limits: Mapping[str, Any]
    inner: int | None = None
    program: int | None = None
    tree: bool = False
    folder: str | None = None
    scratch: Sequence[int] = ()
    base: Use = field(default_factory=Use)
    peak: int = 0
    over: str | None = None
    tick: int = TICK_MILLISECONDS
    spent: float = 0.0

    def until_it_ends(self) -> dict[str, Any]:
        """How it ended and what it used; nothing of it is left then."""
        seconds = self.limits["seconds"]
        until = math.inf if seconds is None else time.monotonic() + seconds
        poll = select.poll()
        there = {self.pidfd} if self.inner is None else {self.pidfd, self.inner}
        for descriptor in (*there, self.worker.fileno()):
            poll.register(descriptor, select.POLLIN | select.POLLHUP)
        while there:
            ready = {descriptor for descriptor, _events in poll.poll(self.tick)}
            for descriptor in ready:
                poll.unregister(descriptor)
            if ready:
                there -= ready
                self.kill()  # what is left of it; whatever has ended, or said so, it is over
            elif self.over is None:
                self.over = "seconds" if time.monotonic() >= until else self._exceeded()
                if self.over is not None:
                    self.kill()
        _pid, status, used = os.wait4(self.pid, 0)
        bury(self.proc)
        return {
            "event": "ended",
            "status": status,
            "cpu": used.ru_utime + used.ru_stime,
            "memory": self.peak,
            "over": self.over,
        }

    def kill(self) -> None:
        """Kill it, and with it whatever is in its namespace."""
        first = (
            self.pidfd if self.inner is None else self.inner
        )  # whoever is outside tells how that one ended
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(first, signal.SIGKILL)

    def _exceeded(self) -> str | None:
        use = self.proc.use_of_tree(self.pid) if self.tree else self.proc.use(self.pid)
        memory = use.memory - self.base.memory
        self.peak = max(self.peak, memory)
        self.tick = TICK_MILLISECONDS if use.cpu > self.spent else min(2 * self.tick, IDLE_TICK_MILLISECONDS)
        self.spent = use.cpu
        if memory > self.limits["memory"]:
            return "memory"
        most = self.limits["cpu"]
        if most is not None and use.cpu - self.base.cpu > most:
            return "cpu"
        if use.processes - self.base.processes > self.limits["processes"]:
            return "processes"
        if any(map(self._is_full, self.scratch)):
            return "disk"
        if self.folder is not None and bytes_below(self.folder) > self.limits["disk"]:
            return "disk"
        return None

    def _is_full(self, folder: int) -> bool:
        about = os.fstatvfs(folder)
        return about.f_files - about.f_ffree > max_files(self.limits["disk"])
