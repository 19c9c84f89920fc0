"""Writer: one for each process; waiting writes are committed together.

The cost of a write is its commit. While one transaction is on its way, the next writes gather; the thread then takes
all of them into one transaction, and those of one kind into the same statements. Nothing waits when nothing is under
way.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from ops_core.errors import OpsError, StoreUnavailable
from ops_core.stores.dialects import announce, concerns_all, failure, is_repeatable, reason
from ops_core.stores.sessions import OF_THE_MACHINE, of_the_machine
from ops_core.stores.transaction import Transaction
from ops_core.stores.watchdog import Watchdog

if TYPE_CHECKING:
    from ops_core.observability.metrics import WriterMetrics

Item = TypeVar("Item")
Result = TypeVar("Result")

Work: TypeAlias = Callable[[Transaction], Result]
"""One write."""

Together: TypeAlias = Callable[[Transaction, Sequence[Item]], Sequence[Result | OpsError]]
"""Writes of one kind; each is answered, in order, with its result or with the error that is its own."""

MOST = 500
"""So many writes share a transaction at most."""

MAX_BYTES = 4 << 20
"""A transaction that has so much to write takes nothing more in."""

MAX_WAITING = 5000
"""So many writes may wait; whoever comes then waits before that, which is how a flood is slowed down."""

REPEATS = 3
"""So often a transaction is carried out once more, where the database says that this may help."""


@dataclass(slots=True)
class _Job:
    work: Work[Any] | None
    together: Together[Any, Any] | None
    item: Any
    size: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Writer:
    """A thread that owns the writing connection.

    Writes are carried out in the order in which they were handed in, each wholly or not at all, also when whoever
    handed one in has stopped waiting for it. Of writes that may be done together the order among different kinds is
    free: nobody has seen one of them done who hands in the next.

    Args:
        engine: begins transactions that may write.
        patience: with a database that does not answer.
        teller: the name under which other processes are told what was written; ``None`` to tell nobody.
        metrics: told of each transaction, in the thread.
    """

    def __init__(
        self,
        engine: Engine,
        patience: Watchdog,
        teller: str | None = None,
        metrics: WriterMetrics | None = None,
    ) -> None:
        self._engine = engine
        self._patience = patience
        self._teller = teller
        self._metrics = metrics
        self._places = asyncio.Semaphore(MAX_WAITING)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        if metrics is not None:
            metrics.queue(lambda: self.waiting)
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    async def do(self, work: Work[Result], *, size: int = 0) -> Result:
        """Carry out ``work`` in a transaction, perhaps with others, and return its result once it is committed.

        Args:
            work: one write.
            size: bytes that it writes, roughly.

        Raises:
            OpsError: as raised by ``work``; it has then changed nothing, and others are not affected.
            StoreUnavailable: the database refused; nothing is known to be written.
        """
        result: Result = await self._handed_in(work, None, None, size)
        return result

    async def join(self, together: Together[Item, Result], item: Item, *, size: int = 0) -> Result:
        """As :meth:`do`, in one statement with all that wait for the same ``together`` at this moment."""
        result: Result = await self._handed_in(None, together, item, size)
        return result

    async def _handed_in(
        self, work: Work[Any] | None, together: Together[Any, Any] | None, item: Any, size: int
    ) -> Any:
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        job = _Job(work, together, item, size, loop, loop.create_future())
        self._jobs.put(job)
        return await job.future

    @property
    def waiting(self) -> int:
        """So many writes are handed in and not begun."""
        return self._jobs.qsize()

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
                self._deliver(batch)

    def _next_batch(self) -> tuple[list[_Job], bool]:
        batch: list[_Job] = []
        size = 0
        job = self._jobs.get()
        while job is not None:
            batch.append(job)
            size += job.size
            if len(batch) == MOST or size >= MAX_BYTES:
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
            self._count_failure()
            for job in batch:
                job.error = error.told
        except Exception as error:  # noqa: BLE001  (every caller is told; the thread must go on)
            self._count_failure()
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

    def _count_failure(self) -> None:
        if self._metrics is not None:
            self._metrics.failed()

    def _transaction(self, batch: list[_Job]) -> None:
        began = time.monotonic()
        with self._begun() as connection, self._patience.using(connection):
            writing = Transaction(connection)
            try:
                for jobs in _groups(batch):
                    _do(jobs, writing)
                if self._teller is not None:
                    announce(connection, self._teller, writing.hint)
            except OF_THE_MACHINE as error:
                connection.invalidate()
                raise _Unreachable(_explained(error)) from None
            _commit(connection)
        if self._metrics is not None:
            self._metrics.committed(len(batch), time.monotonic() - began)

    def _begun(self, *, again: bool = True) -> Connection:
        """A connection, in a transaction; another one where the session that there was is no good any more."""
        connection: Connection | None = None
        try:
            connection = self._engine.connect()
            connection.begin()
        except OF_THE_MACHINE as error:
            if connection is not None:
                connection.invalidate()
                connection.close()
            raise _Unreachable(_explained(error)) from None
        except (DBAPIError, StoreUnavailable) as error:
            if connection is not None:
                connection.close()
            if again and _is_lost(error):
                return self._begun(again=False)
            raise _Unreachable(_explained(error)) from None
        return connection

    def _deliver(self, batch: list[_Job]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
        for job in batch:
            by_loop.setdefault(job.loop, []).append(job)
        for loop, jobs in by_loop.items():
            try:
                loop.call_soon_threadsafe(self._resolve, jobs)
            except RuntimeError:
                continue  # that loop has ended: nobody waits

    def _resolve(self, jobs: list[_Job]) -> None:
        for job in jobs:
            self._places.release()
            if job.future.done():
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)


def _groups(batch: Sequence[_Job]) -> Iterator[list[_Job]]:
    """What is done together; a write that is done alone parts what came before it from what came after."""
    kinds: dict[Any, list[_Job]] = {}
    for job in batch:
        if job.together is not None:
            kinds.setdefault(job.together, []).append(job)
            continue
        yield from kinds.values()
        kinds = {}
        yield [job]
    yield from kinds.values()


def _do(jobs: Sequence[_Job], writing: Transaction) -> None:
    first = jobs[0]
    if first.together is not None:
        answers = first.together(writing, [job.item for job in jobs])
        for job, answer in zip(jobs, answers, strict=True):
            job.error = answer if isinstance(answer, OpsError) else None
            job.result = answer
    elif first.work is not None:
        first.error = None
        try:
            first.result = first.work(writing)
        except OpsError as error:
            first.error = error


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
        return StoreUnavailable(failure("a write", error))
    if isinstance(error, OF_THE_MACHINE):
        return StoreUnavailable(f"the database cannot be used for a write: {of_the_machine(error)}")
    return error


def _commit(connection: Connection) -> None:
    """Commit; whoever has handed something in is told where nobody knows whether that was done."""
    try:
        connection.commit()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise _Unreachable(_uncertain(reason(error))) from None
        raise
    except OF_THE_MACHINE as error:
        connection.invalidate()
        raise _Unreachable(_uncertain(of_the_machine(error))) from None


def _uncertain(why: str) -> StoreUnavailable:
    uncertain = StoreUnavailable(f"it is not known whether a write was committed: {why}")
    uncertain.is_uncertain = True
    return uncertain
