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
from sqlalchemy.exc import DBAPIError

from ops_core.errors import OpsError, StoreUnavailable
from ops_core.stores.dialects import concerns_all, is_repeatable, reason

Result = TypeVar("Result")
Work = Callable[[Connection], Result]

MOST = 500
"""So many writes share a transaction at most."""

REPEATS = 3
"""So often a transaction is carried out once more, where the database says that this may help."""


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

    def _carry_out(self, batch: list[_Job], repeats: int = REPEATS) -> None:
        try:
            self._transaction(batch)
        except _Unreachable as error:
            for job in batch:
                job.error = error.told
        except Exception as error:  # noqa: BLE001  (every caller is told; the thread must go on)
            if repeats and _is_lost(error):
                self._carry_out(batch, repeats - 1)
            elif len(batch) > 1 and not _concerns_all(error):
                for job in batch:  # one of them is at fault: each gets a transaction of its own
                    self._carry_out([job])
            elif repeats and isinstance(error, DBAPIError) and is_repeatable(error):
                self._carry_out(batch, repeats - 1)
            else:  # locked, full, gone: one by one they would only wait for it again, each in turn
                for job in batch:
                    job.error = _explained(error)

    def _transaction(self, batch: list[_Job]) -> None:
        with self._begun() as connection:
            for job in batch:
                job.error = None
                try:
                    job.result = job.work(connection)
                except OpsError as error:
                    job.error = error
            try:
                connection.commit()
            except DBAPIError as error:
                if error.connection_invalidated:
                    message = f"it is not known whether a write was committed: {reason(error)}"
                    raise _Unreachable(StoreUnavailable(message)) from None
                raise

    def _begun(self) -> Connection:
        """A connection, in a transaction."""
        connection: Connection | None = None
        try:
            connection = self._engine.connect()
            connection.begin()
        except DBAPIError as error:
            if connection is not None:
                connection.close()
            raise _Unreachable(_explained(error)) from None
        return connection


class _Unreachable(Exception):
    """No job is at fault, and none may be tried once more: it could take as long again, or be done twice."""

    def __init__(self, told: Exception) -> None:
        self.told = told


def _is_lost(error: Exception) -> bool:
    """The connection broke before the commit: nothing is written, and another connection may do."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _concerns_all(error: Exception) -> bool:
    return isinstance(error, DBAPIError) and (error.connection_invalidated or concerns_all(error))


def _explained(error: Exception) -> Exception:
    if isinstance(error, DBAPIError):  # its own text quotes the statement and its values
        return StoreUnavailable(f"the database refused a write: {reason(error)}")
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
