"""Supervisor of several workers: one that dies is replaced, the others go on, and all of them end together.

A worker has a connection to its supervisor. It says there when it is ready, and stops when the connection closes: so
it is stopped in the same way by a supervisor that was told to end and by one that was killed, and a signal that comes
to the whole group of processes is not a second one for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from ops_core.concurrency.shutdown import ECHO_SECONDS, STOPPING
from ops_core.processes.worker import READY

log = logging.getLogger("ops_core.processes.supervisor")

STEADY_SECONDS = 10.0
"""A worker that was ready for so long counts as healthy, however it ends."""

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0

NO_PROCESS = 69
"""Instead of an exit code: the system has no room for another process now."""

PATIENCE = 5
"""After so many starts in vain, one after another, of each of the workers, there is none that could start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorOptions:
    """What is supervised.

    Attributes:
        command: a worker; its standard input is its connection to the supervisor.
        processes: so many at a time.
        stop_seconds: a worker that was told to stop is killed after so long.
    """

    command: Sequence[str]
    processes: int
    stop_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """How a worker's process ended.

    Attributes:
        code: its exit code; negative for a signal.
        ready_seconds: so long it has worked; ``None`` when it was never ready.
    """

    code: int
    ready_seconds: float | None

    @property
    def in_vain(self) -> bool:
        """It never began to work."""
        return self.ready_seconds is None

    @property
    def in_good_order(self) -> bool:
        """It was told to stop, by whomever, and handed its tasks over: nothing says that the next one will fail."""
        return self.code == 0 and not self.in_vain

    @property
    def steady(self) -> bool:
        """It did not fail for being started."""
        return self.ready_seconds is not None and self.ready_seconds >= STEADY_SECONDS

    def __str__(self) -> str:
        if self.code >= 0:
            return f"code {self.code}"
        with suppress(ValueError):
            return signal.Signals(-self.code).name
        return f"signal {-self.code}"


def pause_before(failures: int) -> float:
    """Seconds until a worker is replaced that has failed so many times in a row."""
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 20)) if failures else 0.0


@dataclass(slots=True)
class _Slot:
    """The place of one worker.

    Attributes:
        number: tells it from the others.
        process: that is in it now, or was the last.
        ready: when that began to work, by the loop's clock.
        in_vain: so many starts in a row did not come so far.
        failures: so many times in a row it ended before it was steady.
    """

    number: int
    process: Process | None = None
    ready: float | None = None
    in_vain: int = 0
    failures: int = 0
    connection: socket.socket | None = field(default=None, repr=False)

    def ready_seconds(self, now: float) -> float | None:
        """How long the worker has been ready."""
        return None if self.ready is None else now - self.ready

    def stop(self) -> None:
        """Tell the worker to hand over its tasks and end."""
        if self.connection is not None:
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def kill(self) -> None:
        """End the worker at once."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()


class Supervisor:
    """Keeps workers running.

    Args:
        options: see :class:`SupervisorOptions`.
        announce: called when the first worker is ready.
    """

    def __init__(self, options: SupervisorOptions, announce: Callable[[], None]) -> None:
        self._options = options
        self._announce = announce
        self._slots = [_Slot(number) for number in range(1, options.processes + 1)]
        self._closing = asyncio.Event()
        self._at_once = asyncio.Event()
        self._first_ready = asyncio.Event()
        self._given_up: int | None = None

    async def run(self) -> int:
        """Work until a signal asks to stop or no worker can be started; return the code of the last one that tried.

        Stopping takes ``stop_seconds`` at most. A second signal kills the workers.
        """
        with self._signals():
            async with asyncio.TaskGroup() as group:
                first, *others = self._slots
                keeping = [group.create_task(self._keep(first))]
                try:
                    if await self._begins():  # where one cannot start, the others need not say so, too
                        keeping += [group.create_task(self._keep(slot)) for slot in others]
                    await self._closing.wait()
                    for slot in self._slots:
                        slot.stop()
                    await self._ended(keeping)
                finally:
                    self._closing.set()
                    for slot in self._slots:
                        slot.kill()
        return self._given_up or 0

    async def _begins(self) -> bool:
        waits = [asyncio.create_task(event.wait()) for event in (self._first_ready, self._closing)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if self._first_ready.is_set():
            self._announce()
        return not self._closing.is_set()

    async def _ended(self, keeping: Sequence[asyncio.Task[None]]) -> None:
        hurry = asyncio.create_task(self._at_once.wait())
        everybody = asyncio.create_task(_all(keeping))
        limit = self._options.stop_seconds
        await asyncio.wait({hurry, everybody}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not everybody.done():
            log.warning("workers that did not end in time are killed; what they had goes on elsewhere")

    # --- one worker -----------------------------------------------------------------------------------------------

    async def _keep(self, slot: _Slot) -> None:
        """Have a worker in this place, again and again."""
        while not self._closing.is_set():
            fate = await self._work(slot)
            if self._closing.is_set():
                return
            slot.in_vain = slot.in_vain + 1 if fate.in_vain else 0
            slot.failures = 0 if fate.steady else 1 if fate.in_good_order else slot.failures + 1
            if self._hopeless():
                log.error(
                    "worker %d ended with %s before it was ready; none can be started", slot.number, fate
                )
                self._given_up = fate.code if fate.code > 0 else 70
                self._closing.set()
                return
            pause = pause_before(slot.failures)
            log.warning("worker %d ended with %s; another one starts in %.1f s", slot.number, fate, pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._closing.wait()

    def _hopeless(self) -> bool:
        if not self._first_ready.is_set():
            return True
        return all(slot.in_vain >= PATIENCE for slot in self._slots)

    async def _work(self, slot: _Slot) -> Fate:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        slot.connection, slot.process, slot.ready = ours, None, None
        with ours:
            try:
                with theirs:
                    slot.process = await asyncio.create_subprocess_exec(
                        *self._options.command, stdin=theirs.fileno()
                    )
            except OSError as error:
                log.error("worker %d: no process: %s", slot.number, os.strerror(error.errno or 0))
                return Fate(code=NO_PROCESS, ready_seconds=None)
            log.info("worker %d started", slot.number, extra={"pid": slot.process.pid})
            if self._closing.is_set():  # meanwhile
                slot.stop()
            listening = asyncio.create_task(self._listen(slot, ours))
            try:
                code = await slot.process.wait()
            finally:
                slot.connection = None
                listening.cancel()
                await asyncio.wait({listening})
        return Fate(code=code, ready_seconds=slot.ready_seconds(loop.time()))

    async def _listen(self, slot: _Slot, connection: socket.socket) -> None:
        """Hear that the worker is ready."""
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        with suppress(OSError):  # it was reset; that the worker has ended is seen otherwise
            said = await loop.sock_recv(connection, len(READY))
            if said == READY:
                slot.ready = loop.time()
                self._first_ready.set()

    # --- signals --------------------------------------------------------------------------------------------------

    @contextmanager
    def _signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        first: list[float] = []

        def told() -> None:
            self._closing.set()
            first.append(loop.time())
            if first[-1] - first[0] > ECHO_SECONDS:
                self._at_once.set()

        heeded = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
        for number in heeded:
            loop.add_signal_handler(number, told)
        try:
            yield
        finally:
            for number in heeded:
                loop.remove_signal_handler(number)


async def _all(tasks: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)
