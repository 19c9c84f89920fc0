"""Long-running program: its streams in the event loop, and its end."""

from __future__ import annotations

import asyncio
import os
from asyncio import StreamReader, StreamWriter
from contextlib import ExitStack

from agentkit.errors import ToolError, ToolTimeout
from agentkit.sandbox.child.call import exit_code, failure
from agentkit.sandbox.child.network import network
from agentkit.sandbox.child.process import ChildProcess
from agentkit.sandbox.errors import SandboxRefused
from agentkit.sandbox.port import ProgramTerms

_ERROR_LINE_BYTES = 1 << 16
_LONGEST_COMPLAINT = 2000


class Running:
    """A program in a jail; see :class:`~agentkit.sandbox.port.RunningProgram`. Belongs to one event loop.

    Args:
        child: with its supervisor.
        terms: on which it runs.
        what: what errors call it.
    """

    def __init__(self, child: ChildProcess, terms: ProgramTerms, what: str) -> None:
        self._child = child
        self._terms = terms
        self._what = what
        self._asked = False
        self._stack = ExitStack()
        child.opened = self._stack.enter_context(network(terms.grants.rules, what, None)).open
        self._stdin: StreamWriter | None = None
        self._stdout = StreamReader(limit=terms.limits.line_bytes)
        self._stderr = StreamReader(limit=_ERROR_LINE_BYTES)

    @property
    def stdin(self) -> StreamWriter:
        """Its standard input."""
        assert self._stdin is not None, "it has not started"
        return self._stdin

    @property
    def stdout(self) -> StreamReader:
        """Its standard output."""
        return self._stdout

    @property
    def stderr(self) -> StreamReader:
        """Its standard error."""
        return self._stderr

    @property
    def returncode(self) -> int | None:
        """Its exit status, negative for a signal; ``None`` while it runs."""
        return exit_code(self._child.report()["status"]) if self._child.is_gone else None

    @property
    def failure(self) -> ToolError | None:
        """Why it was killed or crashed, by no wish of its owner."""
        if not self._child.is_gone:
            return None
        report = self._child.report()
        over = self._child.over or report["over"]
        if over is None and self._asked:
            return None
        return failure(report["status"], over, report["cpu"], self._terms.limits, self._what)

    async def wait(self) -> int:
        """Wait for its end and for that of all that it has started, and return its exit status."""
        await self._child.until_gone()
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        """Ask it to end, by SIGTERM."""
        self._asked = True
        self._child.ask_to_end()

    def kill(self) -> None:
        """Kill it with all that it has started."""
        self._asked = True
        self._child.kill(None)

    async def start(self) -> None:
        """Hand it over, and wait until it runs.

        Raises:
            NeverBegan: the supervisor was gone before it began.
            SandboxRefused: it cannot be executed.
            SandboxUnavailable, ToolTimeout: it did not start.
        """
        try:
            complaint = await self._begun()
            self._check_start(complaint)
        except BaseException:
            await self.aclose()
            raise

    def _check_start(self, complaint: str) -> None:
        if self._child.is_gone and not self._child.began:
            self._child.report()
        if self._child.over == "seconds":
            message = f"{self._what} did not start in time"
            raise ToolTimeout(message)
        if complaint:
            message = f"{self._what} cannot be started in the jail: {complaint}; are its files granted?"
            raise SandboxRefused(message)

    async def _begun(self) -> str:
        """What it complained of, where it could not be executed: the last descriptor closes when it was."""
        with ExitStack() as theirs:
            reads, stdin = os.pipe()
            theirs.callback(os.close, reads)
            await self._speak(stdin)
            complaint = StreamReader(limit=_LONGEST_COMPLAINT)
            outs: list[int] = []
            for reader in (self._stdout, self._stderr, complaint):
                listens, writes = os.pipe()
                theirs.callback(os.close, writes)
                outs.append(writes)
                await self._listen(listens, reader)
            await self._child.hand_over((reads, *outs))
        await self._child.begun()
        return (await complaint.read(_LONGEST_COMPLAINT)).decode(errors="replace").strip()

    async def _speak(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(StreamReader()), os.fdopen(descriptor, "wb", buffering=0)
        )
        self._stdin = StreamWriter(transport, protocol, None, loop)

        def give_up() -> None:
            if not transport.is_closing():
                transport.abort()

        self._stack.callback(give_up)

    async def _listen(self, descriptor: int, reader: StreamReader) -> None:
        """Bytes are taken as long as not too many wait to be read: then whoever writes has to wait."""
        transport, _protocol = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
        )
        self._stack.callback(transport.close)

    async def aclose(self) -> None:
        """End it at once. Nothing of it is left then."""
        try:
            if not self._child.is_gone:
                self.kill()
                await self._child.gone()
        finally:
            self._child.close()
            self._stack.close()
