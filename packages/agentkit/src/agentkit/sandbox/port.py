"""Port of a sandbox: the calls that it takes, and the controls that it holds on this machine."""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from agentkit.errors import ToolError
from agentkit.messages import JsonValue
from agentkit.sandbox.terms import CallLimits, Grants, ProgramLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class CallUsage:
    """What a call took.

    Attributes:
        seconds: of the clock on the wall, from the moment it was handed over.
        cpu_seconds: of processors.
        memory_bytes: the most that it was seen to hold; 0 where it ended before anybody looked.
        network_bytes: sent to granted hosts and received from them.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    network_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """A function has returned.

    Attributes:
        value: what it returned, as JSON.
        stdout: what it printed.
        stderr: what it printed to standard error.
        usage: what it took.
        refused: what it asked for in vain and went on without, in words.
        left: which files it left in its own folder, in words; they have ended with it.
    """

    value: JsonValue
    stdout: str = ""
    stderr: str = ""
    usage: CallUsage = CallUsage()
    refused: tuple[str, ...] = ()
    left: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """A program has ended by itself.

    Attributes:
        exit_code: 0 as a rule for success.
        stdout: what it printed; what is not UTF-8 is replaced.
        stderr: as above, to standard error.
        usage: what it took.
    """

    exit_code: int
    stdout: str = ""
    stderr: str = ""
    usage: CallUsage = CallUsage()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTerms:
    """On what terms one call runs.

    Attributes:
        limits: what it may use.
        grants: what it may reach.
        deadline: when it is killed at the latest, in :func:`time.monotonic` seconds; ``None`` for the limits alone.
        name: what errors call it; the name of the function or program where not given.
        folder: from where a function takes relative paths; its own folder where not given.
        report: shown what a function reports while it works; called in the event loop.
        printed: shown what a function printed, to its output and to its errors, once it has ended, however it did.
    """

    limits: CallLimits = CallLimits()
    grants: Grants = Grants()
    deadline: float | None = None
    name: str = ""
    folder: str | None = None
    report: Callable[[str], None] = field(default=lambda _text: None)
    printed: Callable[[str, str], None] = field(default=lambda _output, _errors: None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramTerms:
    """On what terms a program runs that stays.

    Attributes:
        limits: what it may use.
        grants: what it may reach.
        environment: its own variables, beside ``PATH``, ``LANG``, ``HOME`` and ``TMPDIR``; nothing of this process.
        folder: where it starts, in its own folder or below a granted one; its own folder where not given.
        deadline: when it must have started, in :func:`time.monotonic` seconds; ``None`` for a minute.
        name: what errors call it; that of the program where not given.
    """

    limits: ProgramLimits = ProgramLimits()
    grants: Grants = Grants()
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    folder: str | None = None
    deadline: float | None = None
    name: str = ""


class RunningProgram(Protocol):
    """A program that stays until it ends by itself or is ended. What it writes has to be read, else it waits."""

    @property
    def stdin(self) -> StreamWriter:
        """Its standard input."""
        ...

    @property
    def stdout(self) -> StreamReader:
        """Its standard output. A line that is longer than it may be is a ``ValueError`` of ``readline``."""
        ...

    @property
    def stderr(self) -> StreamReader:
        """Its standard error."""
        ...

    @property
    def returncode(self) -> int | None:
        """Its exit status, negative for a signal; ``None`` while it runs."""
        ...

    @property
    def failure(self) -> ToolError | None:
        """Why it was killed or crashed; ``None`` while it runs, and where it ended by itself or was ended from here."""
        ...

    async def wait(self) -> int:
        """Wait for its end and for that of all that it has started, and return its exit status."""
        ...

    def terminate(self) -> None:
        """Ask it to end, by SIGTERM."""
        ...

    def kill(self) -> None:
        """Kill it with all that it has started."""
        ...


class SandboxBackend(Protocol):
    """Runs functions, and where it can also programs, one call apart from another.

    It is an async context manager; leaving it ends what still runs in it. Cancelling a call kills it, and is over when
    nothing of it is left.
    """

    @property
    def name(self) -> str:
        """``inprocess``, ``pool``, ``jail``, …"""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it holds on this machine, as tried when it was opened."""
        ...

    async def call(
        self,
        function: str,
        arguments: Mapping[str, JsonValue] | None = None,
        *,
        limits: CallLimits | None = None,
        grants: Grants | None = None,
        deadline: float | None = None,
    ) -> Returned:
        """Call a function by its name, ``package.module:name``, with JSON in and JSON out.

        Args:
            function: sync or async.
            arguments: by name.
            limits: what it may use; those of the sandbox where not given.
            grants: what it may reach; nothing where not given.
            deadline: when it is killed at the latest, in :func:`time.monotonic` seconds.

        Raises:
            ToolTimeout: it did not end in time.
            ToolStopped: it went over another limit; each has a class of its own.
            ToolCrashed: a signal ended it.
            FunctionRaised: it raised, or there is no such function.
            BadResult: it returned nothing that JSON can express.
            UsageError: the grants make no sense.
            SandboxUnavailable: no child could be made.
        """
        ...

    async def call_on(self, function: str, arguments: Mapping[str, JsonValue], terms: CallTerms) -> Returned:
        """The same, with all that can be said about it."""
        ...

    async def run_program(
        self,
        program: Sequence[str],
        *,
        stdin: bytes = b"",
        limits: CallLimits | None = None,
        grants: Grants | None = None,
        deadline: float | None = None,
        folder: str | None = None,
    ) -> Exited:
        """Run a program to its end; with its end, whatever it has started ends as well.

        Args:
            program: its name or path, and its arguments.
            stdin: what it reads there.
            limits: as for :meth:`call`.
            grants: as for :meth:`call`.
            deadline: as for :meth:`call`.
            folder: where it starts, above or at a granted path; a folder of its own where not given.

        Raises:
            SandboxRefused: this sandbox runs no programs.
            ToolTimeout, ToolStopped, ToolCrashed, UsageError, SandboxUnavailable: as for :meth:`call`.
        """
        ...

    async def run_code(
        self,
        code: str,
        *,
        limits: CallLimits | None = None,
        grants: Grants | None = None,
        deadline: float | None = None,
        folder: str | None = None,
    ) -> Exited:
        """Run the text of a Python script to its end, as :meth:`run_program` would.

        Raises:
            SandboxRefused, ToolTimeout, ToolStopped, ToolCrashed, UsageError, SandboxUnavailable: as above.
        """
        ...

    def open_program(
        self, program: Sequence[str], terms: ProgramTerms | None = None
    ) -> AbstractAsyncContextManager[RunningProgram]:
        """Start a program that stays, such as a server that is spoken to over its standard streams.

        When the context is left it is killed, with all that it has started, and nothing is left of it; so it is when
        this process dies. Between its start and that it may take as long as it likes.

        Args:
            program: its name or path, and its arguments.
            terms: on what terms; the usual ones where not given.

        Raises:
            SandboxRefused: this sandbox runs no programs, or the program cannot be executed in there.
            ToolTimeout, ToolStopped, ToolCrashed, UsageError, SandboxUnavailable: it did not start.
        """
        ...


class State(StrEnum):
    """How a control is held."""

    ENFORCED = "enforced"
    """By the kernel, or by the worker at the end of the pipe: it cannot be passed."""
    POLLED = "polled"
    """It is looked at every few milliseconds, and whoever went over it is killed."""
    NONE = "none"
    """Not at all."""


class Capability(StrEnum):
    """What is held back."""

    FILES = "files"
    NETWORK = "network"
    PROCESSES = "processes"
    SIGNALS = "signals"
    ENVIRONMENT = "environment"
    MEMORY = "memory"
    CPU = "cpu"
    DISK = "disk"
    DESCRIPTORS = "descriptors"
    OUTPUT = "output"
    TIME = "time"


NEEDED = (Capability.FILES, Capability.NETWORK, Capability.PROCESSES, Capability.SIGNALS, Capability.MEMORY)
"""Without any one of these it is no sandbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What was found when a sandbox was opened.

    Attributes:
        backend: the name of the sandbox.
        controls: each with how it is held.
        means: by what, in a few words; for people.
    """

    backend: str
    controls: Mapping[Capability, State]
    means: str

    @property
    def missing(self) -> tuple[Capability, ...]:
        """Controls that a sandbox needs and that are not held at all."""
        return tuple(control for control in NEEDED if self.controls[control] is State.NONE)
