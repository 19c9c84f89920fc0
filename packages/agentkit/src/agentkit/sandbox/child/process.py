"""Child process of a call, from when it is given to a supervisor until nothing of it is left."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from agentkit.errors import MachineError
from agentkit.machine_errors import machine_error_in
from agentkit.sandbox.confined import framing
from agentkit.sandbox.confined.function_call import LONGEST_MESSAGE
from agentkit.sandbox.errors import SandboxUnavailable

PATIENCE_SECONDS = 5.0
"""After a child was killed its supervisor says so within this time, or is killed itself."""

START_SECONDS = 60.0
"""So long a child may take to be made, on a machine that has much else to do; the limits of the call begin after it."""

_MAX_DESCRIPTORS = 64

log = logging.getLogger("agentkit")


class NeverBegan(Exception):
    """The supervisor went away before it began: another one may be asked."""


@dataclass(kw_only=True)
class ChildProcess:
    """A child with its supervisor. Belongs to one event loop.

    Attributes:
        supervisor: connection to it, for this child alone.
        spec: what is to be done.
        mounts: descriptors of mounts of what is granted, in its order; ``None`` where the supervisor makes one.
        deadline: when it is killed at the latest, in :func:`time.monotonic` seconds.
        seconds: after which it is killed, from when it began; ``None`` for no such limit, and then the deadline is one
            of beginning alone.
        over: the limit for which it was killed from here.
        began: it was given the word to begin, and may have done something.
        opened: is given the descriptors of the doors of its jail, when it begins.
    """

    supervisor: socket.socket
    spec: Mapping[str, Any]
    mounts: Sequence[int | None] = ()
    deadline: float | None = None
    seconds: float | None = None
    over: str | None = None
    began: bool = False
    opened: Callable[[Sequence[int]], None] = field(default=lambda _doors: None)
    _pidfds: list[int] = field(default_factory=list[int])
    _buffer: bytearray = field(default_factory=bytearray)
    _report: dict[str, Any] | None = None
    _handed_over: bool = False
    _truncated: bool = False
    _killed: bool = False
    _timer: asyncio.TimerHandle | None = None
    _insisting: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._heard_first = self._loop.create_future()
        self._gone = self._loop.create_future()

    async def hand_over(self, descriptors: tuple[int, ...]) -> None:
        """Give the supervisor what is to be done, and listen to it.

        Raises:
            NeverBegan: there is no supervisor any more.
        """
        length, body = framing.packed({**self.spec, "mounts": [mount is not None for mount in self.mounts]})
        mounts = [mount for mount in self.mounts if mount is not None]
        try:
            socket.send_fds(self.supervisor, [length], (*descriptors, *reversed(mounts)))
            await self._loop.sock_sendall(self.supervisor, body)
        except OSError:
            raise NeverBegan from None
        self._handed_over = True
        self._loop.add_reader(self.supervisor.fileno(), self._hear)
        self._allow(START_SECONDS, "start")

    async def begun(self) -> None:
        """Wait until it has begun, or has ended without; cancelled, kill it first."""
        await self._until(self._heard_first)

    async def ended(self) -> None:
        """Wait until nothing of it is left; cancelled, kill it first."""
        try:
            await self._until(self._gone)
        finally:
            self._allow(None, "")

    async def _until(self, moment: asyncio.Future[None]) -> None:
        try:
            await asyncio.shield(moment)
        except asyncio.CancelledError:
            self.kill(None)
            await self.gone()
            raise

    async def until_gone(self) -> None:
        """Wait until nothing of it is left, and do nothing about it."""
        await asyncio.shield(self._gone)

    async def gone(self) -> None:
        """Wait for the end of what was killed, however often this is cancelled: that is told afterwards."""
        until = self._loop.time() + PATIENCE_SECONDS + 1
        cancelled: asyncio.CancelledError | None = None
        while not self._gone.done() and self._loop.time() < until:
            try:
                await asyncio.wait({self._gone}, timeout=until - self._loop.time())
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    @property
    def is_gone(self) -> bool:
        """Nothing of it is left."""
        return self._gone.done()

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
            _send(self._pidfds[0], signal.SIGKILL)
        elif not self._handed_over:  # there is nothing to wait for
            self._resolve()
        else:  # it has not begun: its supervisor sees the end of the connection
            with suppress(OSError):
                self.supervisor.shutdown(socket.SHUT_WR)

    def ask_to_end(self) -> None:
        """Send the program itself SIGTERM; what it makes of that is its own business."""
        if len(self._pidfds) > 2 and not self.is_gone:
            _send(self._pidfds[2], signal.SIGTERM)

    def report(self) -> dict[str, Any]:
        """How it ended, once it has.

        Raises:
            SandboxUnavailable: the child could not be made.
            MachineError: not now.
            NeverBegan: see there.
            OSError: this process had no room for the descriptors of the child, which was killed.
        """
        if self._truncated:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        killed = {"status": signal.SIGKILL, "over": None, "cpu": 0.0, "memory": 0}
        report = self._report
        if self.over == "start":
            message = f"no child could be made within {START_SECONDS:g} s"
            raise MachineError(message, began=False)
        if report is None:
            if self.began or self._killed:  # the supervisor was killed: the child died with it
                return killed
            raise NeverBegan
        if report["event"] == "unable":
            if self._killed:
                return killed
            why = str(report["why"])[:LONGEST_MESSAGE]
            raise machine_error_in(why) or SandboxUnavailable(why)
        return report

    def close(self) -> None:
        """Let go of it; it is killed where it is still there."""
        for timer in (self._timer, self._insisting):
            if timer is not None:
                timer.cancel()
        with suppress(OSError, ValueError):
            self._loop.remove_reader(self.supervisor.fileno())
        self.supervisor.close()
        for pidfd in self._pidfds:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
        self._pidfds.clear()

    def _allow(self, seconds: float | None, over: str) -> None:
        """Kill it after so many seconds from now, or at the deadline where that is sooner."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None and self.deadline is not None:
            left = max(0.0, self.deadline - time.monotonic())
            seconds, over = (left, "seconds") if left < seconds else (seconds, over)
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self.kill, over)

    def _insist(self) -> None:
        """The supervisor does not say that the child is gone: with it, the kernel ends the child as well."""
        if not self._gone.done():
            log.warning("the supervisor of a call in the sandbox does not answer, and is killed")
            for pidfd in self._pidfds[:2]:
                _send(pidfd, signal.SIGKILL)
            self._bury()

    def _bury(self) -> None:
        """No supervisor will tell the end: see to it from here."""
        if not self._pidfds:
            self._resolve()
            return
        first = self._pidfds[0]  # of its namespace: it is over when all others in there are
        _send(first, signal.SIGKILL)

        def over() -> None:
            self._loop.remove_reader(first)
            self._resolve()

        self._loop.add_reader(first, over)

    def _hear(self) -> None:
        try:
            piece, descriptors, flags, _from = socket.recv_fds(self.supervisor, 1 << 16, _MAX_DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            piece, descriptors, flags = b"", [], 0
        self._pidfds += descriptors
        self._truncated |= bool(flags & socket.MSG_CTRUNC)
        if not piece:
            self._loop.remove_reader(self.supervisor.fileno())
            if self._report is None:
                self._bury()
            else:
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
        message = framing.unpacked(body)
        if message["event"] == "started":
            self.began = True
            if self._truncated:  # which of them is missing is not known: it cannot be served
                self.kill(None)
                return
            first = len(self._pidfds) - message["doors"]
            doors, self._pidfds[first:] = self._pidfds[first:], []
            self.opened(doors)
            self._allow(self.seconds, "seconds")
            if self._killed:
                self.kill(None)
            _set(self._heard_first)
            return
        self._report = message
        self._resolve()

    def _resolve(self) -> None:
        _set(self._heard_first)
        _set(self._gone)


def _set(moment: asyncio.Future[None]) -> None:
    if not moment.done():
        moment.set_result(None)


def _send(pidfd: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(pidfd, number)
