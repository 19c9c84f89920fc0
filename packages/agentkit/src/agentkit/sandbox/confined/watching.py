"""What a child and its descendants use, as the kernel counts it."""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

TICK_MILLISECONDS = 20
"""So often it is looked at what no limit of the kernel holds by itself."""

IDLE_TICK_MILLISECONDS = 160
"""So seldom at the most, where no processor was used since it was looked at last: each time it is twice as long."""

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What processes hold at a moment.

    Attributes:
        memory: bytes that are theirs.
        cpu: seconds so far.
        processes: with their threads.
    """

    memory: int = 0
    cpu: float = 0.0
    processes: int = 0

    def __add__(self, other: Use) -> Use:
        return Use(
            memory=self.memory + other.memory,
            cpu=self.cpu + other.cpu,
            processes=self.processes + other.processes,
        )


class Proc:
    """``/proc`` as it was when the fork server began; a root that hides it does not matter.

    Args:
        descriptor: of the folder.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def use(self, pid: int) -> Use:
        """What one process uses; nothing where it is gone."""
        try:
            status = self._read(f"{pid}/status")
            counted = self._read(f"{pid}/stat").rpartition(b")")[2].split()
        except OSError:
            return Use()
        fields = dict(line.split(b":", 1) for line in status.splitlines() if b":" in line)
        kibibytes = sum(
            int(fields.get(name, b"0").split()[0]) for name in (b"RssAnon", b"RssShmem", b"VmSwap")
        )
        cpu = sum(int(ticks) for ticks in counted[11:15]) / _TICKS_PER_SECOND
        return Use(memory=kibibytes * 1024, cpu=cpu, processes=int(counted[17]))

    def use_of_tree(self, pid: int) -> Use:
        """What a process and all its descendants use."""
        whole, todo = Use(), [pid]
        while todo:
            one = todo.pop()
            whole += self.use(one)
            todo += self.children(one)
        return whole

    def address_space(self) -> int:
        """Bytes of address space of this process."""
        try:
            return int(self._read("self/statm").split()[0]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return 0

    def data(self) -> int:
        """Bytes of private memory of this process that it may write to."""
        try:
            return int(self._read("self/statm").split()[5]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return 0

    def write(self, path: str, text: str) -> None:
        """Write a file of the kernel.

        Raises:
            OSError: it does not take it.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self.descriptor)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def children(self, pid: int) -> list[int]:
        """The processes that a process has made and that are still there."""
        found: list[int] = []
        with suppress(OSError):
            tasks = os.open(
                f"{pid}/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.descriptor
            )
            try:
                names = os.listdir(tasks)
            finally:
                os.close(tasks)
            for task in names:
                with suppress(OSError):
                    found += map(int, self._read(f"{pid}/task/{task}/children").split())
        return found

    def _read(self, path: str) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.descriptor)
        try:
            return os.read(descriptor, 1 << 16)
        finally:
            os.close(descriptor)


def bury() -> None:
    """Wait for all children, of which none lives on."""
    with suppress(ChildProcessError):
        while True:
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
        worker: connection to the worker; when it closes, or says anything, the child is killed.
        limits: what it may use.
        tree: its descendants count as well.
        folder: whose size is looked at, where no file system limits it.
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
    tree: bool = False
    folder: str | None = None
    base: Use = Use()
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
        bury()
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
        if self.folder is not None and bytes_below(self.folder) > self.limits["disk"]:
            return "disk"
        return None
