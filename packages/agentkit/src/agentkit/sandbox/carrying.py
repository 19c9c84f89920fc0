"""One call, from the moment a supervisor has it until nothing of it is left."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from agentkit.sandbox.broker import Broker
from agentkit.sandbox.confined import wire
from agentkit.sandbox.confined.calling import LONGEST_MESSAGE
from agentkit.sandbox.errors import SandboxUnavailable
from agentkit.sandbox.port import CallTerms, CallUsage
from agentkit.sandbox.streams import Stream

PATIENCE_SECONDS = 5.0
"""After a child was killed its supervisor says so within this time, or is killed itself."""

START_SECONDS = 60.0
"""So long a child may take to be made, on a machine that has much else to do; the limits of the call begin after it."""

log = logging.getLogger("agentkit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a call ended.

    Attributes:
        status: as waitpid(2) tells it.
        over: which limit it was killed for, if any.
        stdout: what it printed.
        stderr: what it printed to standard error.
        result: what it left as its result.
        usage: what it took.
    """

    status: int
    over: str | None
    stdout: str
    stderr: str
    result: bytes
    usage: CallUsage


class NeverBegan(Exception):
    """The supervisor went away before the call began: another one may be asked."""


@dataclass(kw_only=True)
class Carried:
    """A call under way. Belongs to one event loop.

    Attributes:
        supervisor: connection to it, for this call alone.
        spec: what is to be done.
        terms: on what terms.
        stdin: descriptor of its standard input; ``None`` where it has none.
    """

    supervisor: socket.socket
    spec: Mapping[str, Any]
    terms: CallTerms
    stdin: int | None = None
    over: str | None = None
    _pidfds: list[int] = field(default_factory=list[int])
    _buffer: bytearray = field(default_factory=bytearray)
    _report: dict[str, Any] | None = None
    _began: bool = False
    _killed: bool = False
    _timer: asyncio.TimerHandle | None = None
    _insisting: asyncio.TimerHandle | None = None

    async def carry(self) -> Ending:
        """Hand it over, and wait until it is gone; cancelled, kill it first.

        Raises:
            SandboxUnavailable: the child could not be made.
            NeverBegan: see there.
        """
        limits = self.terms.limits
        began = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._over = self._loop.create_future()
        with ExitStack() as stack:
            stack.callback(self._close)
            stdout, stderr, result = (
                Stream(most, partial(self.kill, what))
                for most, what in (
                    (limits.output_bytes, "output"),
                    (limits.output_bytes, "output"),
                    (limits.result_bytes, "result"),
                )
            )
            for stream in (stdout, stderr, result):
                stack.callback(stream.close)
            broker = stack.enter_context(Broker(self.terms))
            handed = (stdout.writes, stderr.writes, result.writes, broker.childs_end)
            try:
                await self._hand_over(handed if self.stdin is None else (self.stdin, *handed))
            finally:
                for stream in (stdout, stderr, result):
                    stream.handed_over()
                broker.handed_over()
            await self._ended()
            for stream in (stdout, stderr, result):
                stream.close()
        report = self._checked_report()
        usage = CallUsage(
            seconds=time.monotonic() - began, cpu_seconds=report["cpu"], memory_bytes=report["memory"]
        )
        return Ending(
            status=report["status"],
            over=self.over or report["over"],
            stdout=stdout.text(),
            stderr=stderr.text(),
            result=bytes(result.data),
            usage=usage,
        )

    def kill(self, over: str | None) -> None:
        """Kill the child and all that it has started, now.

        Args:
            over: the limit it is killed for.
        """
        if self.over is None:
            self.over = over
        if not self._killed:
            self._killed = True
            self._insisting = self._loop.call_later(PATIENCE_SECONDS, self._insist)
        if self._pidfds:
            _kill(self._pidfds[0])
        else:  # it has not begun: its supervisor sees the end of the connection
            with suppress(OSError):
                self.supervisor.shutdown(socket.SHUT_WR)

    def _allow(self, seconds: float, over: str) -> None:
        """Kill it after so many seconds from now, or at the deadline where that is sooner."""
        if self._timer is not None:
            self._timer.cancel()
        if self.terms.deadline is not None:
            left = max(0.0, self.terms.deadline - time.monotonic())
            seconds, over = (left, "seconds") if left < seconds else (seconds, over)
        self._timer = self._loop.call_later(seconds, self.kill, over)

    async def _hand_over(self, descriptors: tuple[int, ...]) -> None:
        length, body = wire.packed(dict(self.spec))
        try:
            socket.send_fds(self.supervisor, [length], descriptors)
            await self._loop.sock_sendall(self.supervisor, body)
        except OSError:
            raise NeverBegan from None
        self._loop.add_reader(self.supervisor.fileno(), self._hear)

    async def _ended(self) -> None:
        self._allow(START_SECONDS, "start")
        try:
            await asyncio.shield(self._over)
        except asyncio.CancelledError:
            self.kill(None)
            await self._gone()
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def _gone(self) -> None:
        """Wait for the end of what was killed, however often this is cancelled."""
        until = self._loop.time() + PATIENCE_SECONDS + 1
        while not self._over.done() and self._loop.time() < until:
            with suppress(asyncio.CancelledError):
                await asyncio.wait({self._over}, timeout=until - self._loop.time())

    def _insist(self) -> None:
        """The supervisor does not say that the child is gone: with it, the kernel ends the child as well."""
        if not self._over.done():
            log.warning("the supervisor of a call in the sandbox does not answer, and is killed")
            for pidfd in self._pidfds:
                _kill(pidfd)
            self._resolve()

    def _hear(self) -> None:
        try:
            piece, descriptors, _flags, _from = socket.recv_fds(self.supervisor, 1 << 16, 4)
        except BlockingIOError:
            return
        except OSError:
            piece, descriptors = b"", []
        self._pidfds += descriptors
        if not piece:
            self._loop.remove_reader(self.supervisor.fileno())
            self._resolve()
            return
        self._buffer += piece
        while len(self._buffer) >= 4:
            size = 4 + int.from_bytes(self._buffer[:4], "big")
            if len(self._buffer) < size:
                break
            body = bytes(self._buffer[4:size])
            del self._buffer[:size]
            self._heard(body)

    def _heard(self, body: bytes) -> None:
        message = wire.unpacked(body)
        if message["event"] == "started":
            self._began = True
            self._allow(self.terms.limits.seconds, "seconds")
            if self._killed:
                self.kill(None)
            return
        self._report = message
        self._resolve()

    def _resolve(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _checked_report(self) -> dict[str, Any]:
        report = self._report
        if self.over == "start":
            message = f"no child could be made within {START_SECONDS:g} s"
            raise SandboxUnavailable(message)
        if report is None:
            if self._began or self._killed:  # the supervisor was killed: the child died with it
                return {"status": signal.SIGKILL, "over": None, "cpu": 0.0, "memory": 0}
            raise NeverBegan
        if report["event"] == "unable":
            if self._killed:
                return {"status": signal.SIGKILL, "over": None, "cpu": 0.0, "memory": 0}
            raise SandboxUnavailable(str(report["why"])[:LONGEST_MESSAGE])
        return report

    def _close(self) -> None:
        if self._insisting is not None:
            self._insisting.cancel()
        with suppress(OSError, ValueError):
            self._loop.remove_reader(self.supervisor.fileno())
        self.supervisor.close()
        for pidfd in self._pidfds:
            os.close(pidfd)
        self._pidfds.clear()


def _kill(pidfd: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
