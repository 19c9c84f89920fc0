"""Terms of a call: its limits and its grants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from agentkit.errors import UsageError
from agentkit.net.hosts import HostRule
from agentkit.sandbox.held_paths import HeldPath, outermost

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """What one call may use. There is no "unlimited".

    Attributes:
        seconds: of the clock on the wall.
        cpu_seconds: of processors, all its threads together.
        memory_bytes: beyond what the interpreter had when the call began; in a jail, of all its processes together.
        processes: with their threads; in the pool there is one process, and the rest are threads.
        descriptors: that are open at a time, in each process.
        output_bytes: of standard output, and as many of standard error.
        result_bytes: of the result, as JSON.
        disk_bytes: of the files that it makes in its own folder.
    """

    seconds: float = 30.0
    cpu_seconds: float = 30.0
    memory_bytes: int = 256 * MIB
    processes: int = 64
    descriptors: int = 256
    output_bytes: int = 1 * MIB
    result_bytes: int = 4 * MIB
    disk_bytes: int = 64 * MIB

    def __post_init__(self) -> None:
        _check(self, "a call")

    def as_sent(self) -> dict[str, float | None]:
        """As the fork server reads it."""
        return {"seconds": self.seconds, **_sent(self)}


Limits = CallLimits
"""Its name in ``agentkit.sandbox``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramLimits:
    """What a program may use that runs as long as it is wanted. Neither the clock nor what it says is limited.

    Attributes:
        memory_bytes: of all its processes together.
        processes: with their threads.
        descriptors: that are open at a time, in each process.
        disk_bytes: of the files that it makes in its own folder.
        line_bytes: of the longest line of its standard output; twice as much is kept of what nobody has read yet, and
            then it has to wait.
        cpu_seconds: of processors, for each process; ``None`` for as many as it takes.
    """

    memory_bytes: int = 512 * MIB
    processes: int = 64
    descriptors: int = 1024
    disk_bytes: int = 64 * MIB
    line_bytes: int = 8 * MIB
    cpu_seconds: float | None = None

    def __post_init__(self) -> None:
        _check(self, "a program")

    def as_sent(self) -> dict[str, float | None]:
        """As the fork server reads it."""
        return {"seconds": None, **_sent(self)}


def _check(limits: CallLimits | ProgramLimits, what: str) -> None:
    for name in limits.__slots__:
        value = getattr(limits, name)
        if value is not None and not 0 < value < inf:
            message = f"limits of {what}: {name} must be positive and finite, not {value!r}"
            raise UsageError(message)


def _sent(limits: CallLimits | ProgramLimits) -> dict[str, float | None]:
    return {
        "cpu": limits.cpu_seconds,
        "memory": limits.memory_bytes,
        "processes": limits.processes,
        "descriptors": limits.descriptors,
        "disk": limits.disk_bytes,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """What one call may reach beyond its own folder. Nothing, unless it is written here.

    Paths are resolved when this is made, and never again; a call whose paths have been replaced is refused.

    Attributes:
        read: files and folders, by absolute path.
        write: files and folders that may be changed as well.
        hosts: through the broker, which checks the address it connects to.
        secrets: names of values that are put into the environment of this call alone.
        held_read: ``read``, resolved and held open, without what ``write`` holds.
        held_write: ``write``, resolved and held open.
    """

    read: tuple[Path | str, ...] = ()
    write: tuple[Path | str, ...] = ()
    hosts: tuple[HostRule | str, ...] = ()
    secrets: tuple[str, ...] = ()
    held_read: tuple[HeldPath, ...] = field(init=False, repr=False, compare=False)
    held_write: tuple[HeldPath, ...] = field(init=False, repr=False, compare=False)

    @property
    def rules(self) -> tuple[HostRule, ...]:
        """The granted hosts.

        Raises:
            UsageError: one is written wrongly.
        """
        return tuple(HostRule.of(host) if isinstance(host, str) else host for host in self.hosts)

    def __post_init__(self) -> None:
        write = outermost(map(HeldPath, self.write))
        object.__setattr__(self, "held_write", write)
        object.__setattr__(self, "held_read", outermost(map(HeldPath, self.read), write))

    def check_paths(self) -> None:
        """See whether the paths are still what they were when they were granted.

        Raises:
            UsageError: one is not absolute, does not exist, is the whole machine, or has been replaced.
        """
        for held in (*self.held_read, *self.held_write):
            held.check()

    def environment(self, known: Mapping[str, str]) -> dict[str, str]:
        """The granted secrets, by name.

        Raises:
            UsageError: one is not known here.
        """
        missing = [name for name in self.secrets if name not in known]
        if missing:
            message = f"secrets that are granted and not set here: {', '.join(missing)}"
            raise UsageError(message)
        return {name: known[name] for name in self.secrets}


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """How a tool is to run.

    Attributes:
        sandbox: ``pool``, ``jail`` or ``inprocess``; ``None`` for what is usual where it runs.
        limits: what a call may use; ``None`` for what is usual in the sandbox.
        grants: what a call may reach.
        folder: from where calls take relative paths, above or at a granted path; their own folder where not given.
        reaches_out: data can leave with a call, or cannot, whatever the tool says itself; ``None`` for what it says.
    """

    sandbox: str | None = None
    limits: CallLimits | None = None
    grants: Grants = Grants()
    folder: str | None = None
    reaches_out: bool | None = None

    def __post_init__(self) -> None:
        if self.sandbox not in {None, "inprocess", "pool", "jail"}:
            message = f"a tool runs inprocess, in the pool or in the jail, not in {self.sandbox!r}"
            raise UsageError(message)
        _ = self.grants.rules
