"""Process information and settings of the kernel, through ``/proc``.

Loaded into every jail: nothing is imported here that takes long.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import TypeAlias

Ids: TypeAlias = tuple[tuple[int, int], ...]

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Use:
    """What processes hold at a moment.

    Args:
        memory: bytes that are theirs.
        cpu: seconds so far.
        processes: with their threads.
    """

    __slots__ = ("cpu", "memory", "processes")

    def __init__(self, *, memory: int = 0, cpu: float = 0.0, processes: int = 0) -> None:
        self.memory = memory
        self.cpu = cpu
        self.processes = processes

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

    def folders(self, pid: int, paths: Iterable[str]) -> list[int]:
        """Descriptors of folders as a process sees them; those that cannot be looked at are left out."""
        found: list[int] = []
        for path in paths:
            with suppress(OSError):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
                found.append(os.open(f"{pid}/root{path}", flags, dir_fd=self.descriptor))
        return found

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

    def map_ids(self, pid: str, users: Ids, groups: Ids) -> None:
        """Give a new namespace of users its ids: inside and outside of each.

        Raises:
            OSError: the kernel refused.
        """
        if len(groups) == 1:  # who maps only itself must renounce other groups first
            self.write(f"{pid}/setgroups", "deny")
        for name, ids in (("gid_map", groups), ("uid_map", users)):
            self.write(f"{pid}/{name}", "".join(f"{inside} {outside} 1\n" for inside, outside in ids))

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
