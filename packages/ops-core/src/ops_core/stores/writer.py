"""One writer per process: what is waiting is committed together.

The cost of a write is its commit. While one transaction is on its way, the next writes gather; the thread then takes
all of them into one transaction. Nothing waits when nothing is under way.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from ops_core.errors import OpsError, StoreUnavailable

Result = TypeVar("Result")
Work = Callable[[Connection], Result]

MOST = 500
"""So many writes share a transaction at most."""


@dataclass(slots=True)
class _Job:
    work: Work[Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Writer:
    """A thread that owns the writing connection.

    Writes are carried out in the order in which they were handed in, each wholly or not at all, also when whoever
    handed one in has stopped waiting for it.

    Args:
        engine: begins transactions that may write.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    async def do(self, work: Work[Result]) -> Result:
        """Carry out ``work`` in a transaction, perhaps with others, and return its result once it is committed.

        Raises:
            OpsError: as raised by ``work``; it has then changed nothing, and others are not affected.
            StoreUnavailable: the database refused; nothing is known to be written.
        """
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future())
        self._jobs.put(job)
        result: Result = await job.future
        return result

    def close(self) -> None:
        """Finish what was handed in, and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        closing = False
        while not closing:
            batch, closing = self._next_batch()
            if batch:
                self._carry_out(batch)
                _deliver(batch)

    def _next_batch(self) -> tuple[list[_Job], bool]:
        batch: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            batch.append(job)
            if len(batch) == MOST:
                return batch, False
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _carry_out(self, batch: list[_Job]) -> None:
        try:
            self._transaction(batch)
        except Exception as error:  # noqa: BLE001  (every caller is told; the thread must go on)
            if len(batch) == 1 or _concerns_all(error):
                for job in batch:
                    job.error = _explained(error)
                return
            for job in batch:  # one of them is at fault: each gets a transaction of its own
                self._carry_out([job])

    def _transaction(self, batch: list[_Job]) -> None:
        with self._engine.begin() as connection:
            for job in batch:
                job.error = None
                try:
                    job.result = job.work(connection)
                except OpsError as error:
                    job.error = error


def _concerns_all(error: Exception) -> bool:
    """Locked or gone: one by one they would wait for it again, each in turn. A full disk may have room for some."""
    full = getattr(getattr(error, "orig", None), "sqlite_errorname", "") == "SQLITE_FULL"
    return isinstance(error, OperationalError) and not full


def _explained(error: Exception) -> Exception:
    if isinstance(error, DBAPIError):  # its own text quotes the statement and its values
        return StoreUnavailable(f"the database refused a write: {type(error.orig).__name__}: {error.orig}")
    return error


def _deliver(batch: list[_Job]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in batch:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, jobs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, jobs)
        except RuntimeError:
            continue  # that loop has ended: nobody waits


def _resolve(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
