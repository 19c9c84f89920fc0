"""Process of a server that speaks over its standard streams: in the jail, or unconfined.

:func:`running` is the only place that starts one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Protocol

from agentkit.errors import McpUnavailable, ToolError, UsageError
from agentkit.machine_errors import before_the_call, machine_error
from agentkit.mcp.executables import found, needed
from agentkit.mcp.servers import McpServer
from agentkit.sandbox import (
    Grants,
    ProgramLimits,
    ProgramTerms,
    RunningProgram,
    Sandboxes,
    SandboxUnavailable,
)

MAX_LINE = 8 * 1024 * 1024
"""Bytes of one message."""

_EXIT_SECONDS = 2.0
"""So long a process may take to end by itself, and after that to end when it is asked to."""

INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "SYSTEMROOT",
    "PATHEXT",
    "TEMP",
    "APPDATA",
    "USERPROFILE",
)
"""All that a server sees of the environment of this process; keys and tokens are not among them."""
JAILED = ("PATH", "LC_ALL", "TZ")
"""Of these, what it sees in the jail; the rest is the jail's own."""

AS_IT_IS = 'where it is trusted, sandbox = "none" runs it outside of the jail'


class Process(Protocol):
    """A program that runs; both kinds have this in common."""

    @property
    def returncode(self) -> int | None: ...
    async def wait(self) -> int: ...
    def kill(self) -> None: ...


class Streams(Protocol):
    """A process with its streams."""

    @property
    def process(self) -> Process: ...
    @property
    def stdin(self) -> StreamWriter: ...
    @property
    def stdout(self) -> StreamReader: ...
    @property
    def stderr(self) -> StreamReader: ...
    @property
    def why(self) -> str:
        """Why it has ended, where that is known."""
        ...


def running(
    server: McpServer,
    environment: Mapping[str, str],
    sandboxes: Sandboxes,
    granted: MutableMapping[str, Grants],
) -> AbstractAsyncContextManager[Streams]:
    """The program of a server, from its start to its end: nothing of it is left when the context is.

    Args:
        server: resolved, with a command.
        environment: of this process.
        sandboxes: that are open.
        granted: what servers see in the jail, by name: what is held already is not resolved again.

    Raises:
        McpUnavailable: it cannot be started.
    """
    if server.sandbox == "none":
        return _as_it_is(server, environment)
    return _jailed(server, environment, sandboxes, granted)


# --- in the jail --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _jailed(
    server: McpServer,
    environment: Mapping[str, str],
    sandboxes: Sandboxes,
    granted: MutableMapping[str, Grants],
) -> AsyncGenerator[Streams]:
    assert server.command is not None
    program = await asyncio.to_thread(found, server.command, environment)
    if program is None:
        raise McpUnavailable(f"{server.name}: the program cannot be started: No such file or directory")
    if server.name not in granted:
        granted[server.name] = await asyncio.to_thread(granted_to, server, program, environment)
    terms = _terms(server, granted[server.name], environment)
    try:
        with before_the_call():
            box = await sandboxes.get("jail")
    except SandboxUnavailable as error:
        raise McpUnavailable(f"{server.name}: {error}; {AS_IT_IS}") from None
    context = box.open_program([program, *server.args], terms)
    try:
        with before_the_call():
            inside = await context.__aenter__()
    except (ToolError, UsageError) as error:
        raise McpUnavailable(f"{server.name}: {error}") from None
    try:
        yield _Jailed(inside)
        inside.stdin.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(inside.wait(), _EXIT_SECONDS)
    finally:
        await context.__aexit__(*sys.exc_info())


def granted_to(server: McpServer, program: str, environment: Mapping[str, str]) -> Grants:
    """What a server sees in the jail: its installation, where it runs, and what is granted in words.

    Args:
        server: resolved, with a command.
        program: its path.
        environment: of this process.
    """
    beside = [*needed(program, environment), *([] if server.cwd is None else [server.cwd])]
    return Grants(read=(*server.read, *beside), write=tuple(server.write), hosts=tuple(server.hosts))


def _terms(server: McpServer, grants: Grants, environment: Mapping[str, str]) -> ProgramTerms:
    return ProgramTerms(
        limits=ProgramLimits(line_bytes=MAX_LINE),
        grants=grants,
        environment={name: environment[name] for name in JAILED if name in environment} | dict(server.env),
        folder=server.cwd,
        name=server.name,
    )


class _Jailed:
    def __init__(self, inside: RunningProgram) -> None:
        self.process: Process = inside
        self.stdin, self.stdout, self.stderr = inside.stdin, inside.stdout, inside.stderr
        self._inside = inside

    @property
    def why(self) -> str:
        failure = self._inside.failure
        return "" if failure is None else str(failure)


# --- as it is -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _as_it_is(server: McpServer, environment: Mapping[str, str]) -> AsyncGenerator[Streams]:
    process = await _started(server, environment)
    try:
        yield _Plain(process)
    finally:
        await _ended(process)


class _Plain:
    why = ""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.process: Process = process
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr


async def _started(server: McpServer, environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    """The process, in a session of its own. Raises McpUnavailable."""
    assert server.command is not None
    env = {name: environment[name] for name in INHERITED if name in environment}
    try:
        return await asyncio.create_subprocess_exec(
            server.command,
            *server.args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env | dict(server.env),
            cwd=server.cwd,
            start_new_session=True,
            limit=MAX_LINE,
        )
    except (OSError, ValueError) as error:
        trouble = machine_error(error, began=False)
        if trouble is not None:
            raise trouble from error
        why = (
            error.strerror
            if isinstance(error, OSError)
            else "its command, arguments or environment cannot be"
        )
        raise McpUnavailable(f"{server.name}: the program cannot be started: {why}") from None


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End a process with all that it has started: by closing its input, else by signals. Bounded in time."""
    if process.stdin is not None:
        process.stdin.close()
    for sign in (None, signal.SIGTERM):
        if sign is not None:
            _signal(process, sign)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _EXIT_SECONDS)
            break
    _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))  # what it left behind, too
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), _EXIT_SECONDS)


def _signal(process: asyncio.subprocess.Process, sign: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, sign)
        elif process.returncode is None:
            process.send_signal(sign)
