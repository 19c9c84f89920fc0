"""SQL store: the verbs of :mod:`ops_core.stores.sql` behind the port."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import uuid_utils
from sqlalchemy import Connection, Engine, event, inspect, select, table, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from agentkit.ports import Scope
from agentkit.transcript.codec import encode_step
from agentkit.transcript.steps import ApprovalGiven, Note, Recorded, Step, ToolReturned, Turn
from ops_core.bulk import Count, TaskSelection
from ops_core.errors import SchemaMismatch, StoreUnavailable
from ops_core.halt import Halt, NewHalt
from ops_core.ports import (
    Activity,
    Appended,
    ApprovalFilter,
    Clock,
    HaltFilter,
    Hint,
    KeptNote,
    NoteFilter,
    Page,
    RenewResult,
    RetryLater,
    Stats,
    SubmitResult,
    SweepResult,
    SweepTerms,
    TaskFilter,
    ThreadFilter,
)
from ops_core.spending import Charge, Spent
from ops_core.stores.dialects import (
    READERS,
    empty_the_log,
    failure,
    file_of,
    give_back,
    is_file,
    is_in_memory,
    reading_engine,
    reason,
    writing_engine,
)
from ops_core.stores.notifications import hints_from
from ops_core.stores.rows import new_task_values
from ops_core.stores.sessions import OF_THE_MACHINE, Sessions, of_the_machine
from ops_core.stores.sql import (
    bulk,
    decisions,
    halts,
    late_results,
    maintenance,
    notes,
    queries,
    spending,
    submit,
    threads,
    workers,
)
from ops_core.stores.sql import steps as progress
from ops_core.stores.sql.leases import Claiming, Wanted, release_task, wait_task
from ops_core.stores.sql.stats import read_stats
from ops_core.stores.tables import REVISION
from ops_core.stores.watchdog import PATIENCE_SECONDS, Watchdog
from ops_core.stores.writer import Work, Writer
from ops_core.task import Approval, Claimed, Lease, NewTask, Task, Thread
from ops_core.workers import Announcement, Worker

if TYPE_CHECKING:
    from ops_core.observability.metrics import WriterMetrics

Result = TypeVar("Result")

FRESH_SECONDS = 2.0
"""A write that was tried says for so long that the database takes writes."""

ROW_BYTES = 200
"""What a row takes besides its texts, roughly."""


class SqlStore:
    """Tasks and steps in an SQL database; see :class:`ops_core.ports.Store` for what is promised.

    An async context manager. Writes go through one thread, which combines them; reads through a few others.

    Args:
        url: as :func:`~ops_core.stores.dialects.parse_url` returns it.
        clock: the database's clock, where the database is a file and has none of its own.
        metrics: told of each transaction that writes.
        patience_seconds: so long a database may be silent in a transaction; then its connection is given up.
    """

    def __init__(
        self,
        url: URL,
        clock: Clock,
        metrics: WriterMetrics | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self.url = url
        self._patience = Watchdog(patience_seconds)
        self._watching: asyncio.Task[None] | None = None
        self._metrics = metrics
        self._write_engine: Engine = writing_engine(url, clock)
        # a database in memory is one connection, so its reads take their turn among the writes
        self._read_engine: Engine | None = None if is_in_memory(url) else reading_engine(url, clock)
        self._sessions = Sessions()
        event.listen(self._write_engine, "invalidate", self._lost_server)
        self._file = file_of(url)
        for engine in (self._write_engine, self._read_engine):
            if self._file is not None and engine is not None:
                self._file.watch(engine)
        self._readers: ThreadPoolExecutor | None = None
        self._writer: Writer | None = None
        self._claiming = Claiming()
        self._written_until = 0.0
        self._name = secrets.token_hex(8)

    async def __aenter__(self) -> Self:
        if self._file is not None:
            self._file.forget()
        self._readers = ThreadPoolExecutor(max_workers=READERS, thread_name_prefix="store-reader")
        teller = None if is_file(self.url) else self._name
        self._writer = Writer(self._write_engine, self._patience, teller, self._metrics)
        if not is_file(self.url):
            self._watching = asyncio.create_task(self._patience.watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        writer, readers = self._opened()
        self._writer = self._readers = (
            None  # from here on everybody is refused; nobody waits for a writer that is gone
        )
        await asyncio.get_running_loop().run_in_executor(readers, writer.close)
        readers.shutdown(wait=True)
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        self._write_engine.dispose()
        if self._read_engine is not None:
            self._read_engine.dispose()

    def _lost_server(self, _connection: Any, _record: Any, _error: BaseException | None) -> None:
        """What can no longer be written to may have been replaced: nobody reads or listens there any longer, either."""
        if self._read_engine is not None:
            self._sessions.renew()
            self._read_engine.dispose()

    @property
    def migrates_itself(self) -> bool:
        """Whether the database is this program's own: a schema that processes share is changed on purpose only."""
        return is_file(self.url)

    @property
    def migration_engine(self) -> Engine:
        """For the migrations, while the store is not open."""
        return self._write_engine

    def revision(self) -> str | None:
        """The revision of the schema in the database; ``None`` for an empty one. Blocks; for a store not yet open.

        Raises:
            StoreUnavailable: the database cannot be opened.
        """
        try:
            with self._write_engine.begin() as connection:
                return schema_revision(connection)
        except DBAPIError as error:
            message = f"the store {self.url.database} cannot be used: {reason(error)}"
            if "unable to open" in message or "readonly" in message:
                message += "; it must be writable, and so must its folder"
            raise StoreUnavailable(message) from None
        finally:
            self.disconnect()

    def disconnect(self) -> None:
        """Close the connections of a store that is not open, once it was looked at or migrated.

        Files stay open until the process ends: of two processes, one would close the last connection, which changes
        the file's journal, while the other one opens its first.
        """
        if not is_file(self.url):
            self._write_engine.dispose()

    def _opened(self) -> tuple[Writer, ThreadPoolExecutor]:
        if self._writer is None or self._readers is None:
            message = "the store is not open: use `async with open_store(…) as store`"
            raise StoreUnavailable(message)
        return self._writer, self._readers

    async def _write(self, work: Work[Result]) -> Result:
        writer, _readers = self._opened()
        return await writer.do(work)

    async def _read(self, work: Callable[[Connection], Result]) -> Result:
        writer, readers = self._opened()
        engine = self._read_engine
        if engine is None:
            return await writer.do(lambda writing: work(writing.connection))
        return await asyncio.get_running_loop().run_in_executor(
            readers, _in_transaction, engine, self._patience, work
        )

    # --- the port ------------------------------------------------------------------------------------------------

    async def insert(self, new: NewTask) -> SubmitResult:
        """Accept a task; as in :meth:`append`, it is put into its stored form here."""
        values = new_task_values(new, new_id())
        writer, _readers = self._opened()
        return await writer.join(
            submit.insert_tasks, submit.Submitted(new, values), size=len(values["input"]) + ROW_BYTES
        )

    async def get(self, tenant: str, task_id: str) -> Task:
        """One task."""
        return await self._read(partial(queries.get_task, tenant=tenant, task_id=task_id))

    async def list(self, tenant: str, wanted: TaskFilter) -> Page[Task]:
        """Tasks, newest first."""
        return await self._read(partial(queries.list_tasks, tenant=tenant, wanted=wanted))

    async def steps(
        self, tenant: str, task_id: str, after: int = -1, limit: int | None = None
    ) -> Page[Recorded]:
        """Steps in order."""
        return await self._read(
            partial(queries.list_steps, tenant=tenant, task_id=task_id, after=after, limit=limit)
        )

    async def claim(
        self,
        owner: str,
        slots: int,
        lease_seconds: float,
        agents: Collection[str],
        only: Collection[str] | None = None,
    ) -> Sequence[Claimed]:
        """Take due tasks."""
        wanted = Wanted(owner=owner, slots=slots, lease_seconds=lease_seconds, agents=agents, only=only)
        return await self._write(partial(self._claiming.claim, wanted=wanted))

    async def append(self, lease: Lease, step: Step) -> Recorded:
        """Record a step, the last one too."""
        (recorded,) = await self.append_all(lease, (step,))
        return recorded

    async def append_all(self, lease: Lease, steps: Sequence[Step], charge: Charge | None = None) -> Appended:
        """Record steps; they are put into their stored form here, not in the thread that all writes share."""
        bodies = tuple(encode_step(step) for step in steps)
        writer, _readers = self._opened()
        written = progress.Written(lease, steps, bodies, 0 if charge is None else charge.unsettled)
        size = sum(map(len, bodies)) + ROW_BYTES
        if charge is not None and charge.of_tenant:
            return await writer.join(spending.record_charged, spending.Charged(written, charge), size=size)
        return await writer.join(progress.record_steps, written, size=size)

    async def wait(self, lease: Lease, seen: int, until: float | None = None) -> None:
        """Put a task to waiting."""
        await self._write(partial(wait_task, lease=lease, seen=seen, until=until))

    async def release(self, lease: Lease, later: RetryLater | None = None) -> None:
        """Give a task back."""
        await self._write(partial(release_task, lease=lease, later=later))

    async def renew(
        self, leases: Collection[Lease], lease_seconds: float, worker: Announcement | None = None
    ) -> RenewResult:
        """Prolong leases, and say that a worker is alive."""
        beat = partial(workers.beat, leases=leases, lease_seconds=lease_seconds, worker=worker)
        return await self._write(beat)

    async def leave(self, worker: str) -> None:
        """Forget a worker that stops."""
        await self._write(partial(workers.forget_worker, name=worker))

    async def workers(self, tenant: str) -> Sequence[Worker]:
        """Workers, and what they hold."""
        return await self._read(partial(workers.list_workers, tenant=tenant))

    async def cancel(self, tenant: str, task_id: str) -> Task:
        """Cancel, or ask the worker to."""
        return await self._write(partial(decisions.cancel_task, tenant=tenant, task_id=task_id))

    async def select(self, tenant: str, selection: TaskSelection, limit: int) -> Sequence[str]:
        """Tasks that a verb is for."""
        return await self._read(partial(bulk.select_tasks, tenant=tenant, selection=selection, limit=limit))

    async def count(self, tenant: str, selection: TaskSelection) -> Count:
        """How many they are."""
        return await self._read(partial(bulk.count_tasks, tenant=tenant, selection=selection))

    async def cancel_all(self, tenant: str, ids: Sequence[str]) -> Mapping[str, str]:
        """Cancel many."""
        return await self._write(partial(bulk.cancel_tasks, tenant=tenant, ids=ids))

    async def retry_all(
        self, tenant: str, ids: Sequence[str], *, refuse_busy: bool = False
    ) -> Mapping[str, str]:
        """Carry on many."""
        retry = partial(bulk.retry_tasks, tenant=tenant, ids=ids, new_id=new_id, refuse_busy=refuse_busy)
        return await self._write(retry)

    async def answer(
        self, tenant: str, task_id: str, step: ApprovalGiven, seen: int, until: float | None = None
    ) -> bool:
        """Record a person's answer."""
        answer = partial(decisions.answer_approval, tenant=tenant, task_id=task_id)
        return await self._write(partial(answer, step=step, seen=seen, until=until))

    async def attach(self, lease: Lease, returned: ToolReturned) -> bool:
        """Keep the result of a worker that has lost its lease."""
        return await self._write(partial(late_results.attach_late_result, lease=lease, returned=returned))

    async def late_result(self, tenant: str, task_id: str, call_id: str) -> ToolReturned | None:
        """A result that came late."""
        wanted = partial(late_results.get_late_result, tenant=tenant, task_id=task_id, call_id=call_id)
        return await self._read(wanted)

    async def approvals(self, tenant: str, wanted: ApprovalFilter) -> Sequence[Approval]:
        """Open approvals."""
        return await self._read(partial(queries.list_approvals, tenant=tenant, wanted=wanted))

    async def repeated(self, new: NewTask) -> SubmitResult | None:
        """The task that was accepted under the key of this one."""
        return await self._read(partial(submit.find_repeated, new=new))

    async def retry(
        self, tenant: str, task_id: str, *, refuse_busy: bool = False, idempotency_key: str | None = None
    ) -> SubmitResult:
        """A new task that carries an ended one on."""
        asked = submit.Retry(
            tenant=tenant, task_id=task_id, new_id=new_id(), refuse_busy=refuse_busy,
            idempotency_key=idempotency_key,
        )  # fmt: skip
        return await self._write(partial(submit.retry_task, asked=asked))

    async def thread(self, tenant: str, thread_id: str) -> Thread:
        """One thread."""
        return await self._read(partial(threads.get_thread, tenant=tenant, thread_id=thread_id))

    async def threads(self, tenant: str, wanted: ThreadFilter) -> Sequence[Thread]:
        """Threads, those first in which something happened last."""
        return await self._read(partial(threads.list_threads, tenant=tenant, wanted=wanted))

    async def earlier(self, tenant: str, task_id: str) -> Sequence[Turn]:
        """What the run of a task is shown of its thread."""
        return await self._read(partial(threads.list_earlier, tenant=tenant, task_id=task_id))

    async def forget_thread(self, tenant: str, thread_id: str) -> int:
        """Delete a thread and its tasks."""
        return await self._write(partial(threads.forget_thread, tenant=tenant, thread_id=thread_id))

    async def put_note(self, scope: Scope, note: Note, vector: bytes, embedder: str) -> None:
        """Keep a note."""
        put = partial(notes.put_note, scope=scope, note=note, vector=vector, embedder=embedder)
        writer, _readers = self._opened()
        await writer.do(put, size=len(note.text) + len(vector) + ROW_BYTES)

    async def find_notes(self, scope: Scope, query: bytes, embedder: str, limit: int) -> Sequence[Note]:
        """The most similar notes."""
        find = partial(notes.find_notes, scope=scope, query=query)
        return await self._read(partial(find, embedder=embedder, limit=limit))

    async def list_notes(self, tenant: str, wanted: NoteFilter) -> Sequence[KeptNote]:
        """Notes, the newest first."""
        return await self._read(partial(notes.list_notes, tenant=tenant, wanted=wanted))

    async def forget_notes(self, tenant: str, wanted: NoteFilter) -> int:
        """Delete notes for good."""
        forgotten = await self._write(partial(notes.forget_notes, tenant=tenant, wanted=wanted))
        if is_file(self.url) and self._read_engine is not None:
            _writer, readers = self._opened()
            await asyncio.get_running_loop().run_in_executor(readers, empty_the_log, self._read_engine)
        return forgotten

    async def sweep(self, limit: int = 500, terms: SweepTerms | None = None) -> SweepResult:
        """Take tasks from dead workers and end what is out of time."""
        terms = SweepTerms() if terms is None else terms
        return await self._write(partial(maintenance.sweep_tasks, limit=limit, terms=terms))

    async def lease_owners(self, place: str) -> Collection[str]:
        """The names of workers at a place that hold a lease."""
        return await self._read(partial(maintenance.lease_owners, place=place))

    async def purge(self, older_seconds: float, limit: int = 1000) -> int:
        """Delete what ended long ago."""
        return await self._write(partial(maintenance.purge_tasks, older_seconds=older_seconds, limit=limit))

    async def purgeable(self, older_seconds: float) -> Count:
        """How many tasks that would be."""
        return await self._read(partial(maintenance.count_purgeable, older_seconds=older_seconds))

    async def shrink(self) -> bool:
        """Make the file smaller."""
        if not is_file(self.url) or self._read_engine is None:
            return False
        _writer, readers = self._opened()
        loop = asyncio.get_running_loop()
        more = await loop.run_in_executor(readers, give_back, self._read_engine)
        if not more:  # the file itself is cut when its log is written back
            await loop.run_in_executor(readers, empty_the_log, self._read_engine)
        return more

    def hints(self) -> AsyncGenerator[Hint]:
        """What other processes have written."""
        return hints_from(self.url, self._name, self._sessions)

    async def stats(self) -> Stats:
        """How full it is; see :class:`ops_core.ports.Measured`."""
        return await self._read(read_stats)

    async def activity(self) -> Activity:
        """Who works, and what takes long."""
        return await self._read(workers.read_activity)

    async def halt(self, tenant: str, new: NewHalt) -> Halt:
        """Halt something."""
        return await self._write(partial(halts.put_halt, tenant=tenant, new=new, new_id=new_id()))

    async def lift(self, tenant: str, halt_id: str, *, by: str = "", reason: str = "") -> Halt:
        """Lift a halt."""
        return await self._write(
            partial(halts.lift_halt, tenant=tenant, halt_id=halt_id, by=by, reason=reason)
        )

    async def halts(self, tenant: str, wanted: HaltFilter) -> Sequence[Halt]:
        """Halts of a tenant."""
        return await self._read(partial(halts.list_halts, tenant=tenant, wanted=wanted))

    async def halts_in_force(self) -> Sequence[Halt]:
        """Those that were not lifted."""
        return await self._read(halts.halts_in_force)

    async def spent(self, tenant: str | None) -> Spent:
        """What was spent today."""
        return await self._read(partial(spending.read_spent, tenant=tenant))

    async def check(self, *, writes: bool = False) -> None:
        """Reachable, and of the schema that this release knows? With ``writes``: does it take a write?"""
        found = await self._read(schema_revision)
        if found != REVISION:
            what = "no schema" if found is None else f"the schema {found}"
            message = f"the database has {what}, this release works with {REVISION}: run `opspawn migrate`"
            raise SchemaMismatch(message)
        if writes and time.monotonic() > self._written_until:
            await self._write(maintenance.try_write)
            self._written_until = time.monotonic() + FRESH_SECONDS


def new_id() -> str:
    """A UUIDv7 (RFC 9562) as text: sorts by the moment at which it was made."""
    return str(uuid_utils.uuid7())


def schema_revision(connection: Connection) -> str | None:
    """The schema's revision in the database; ``None`` where it has none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(select(text("version_num")).select_from(table("alembic_version"))).scalar()


def _in_transaction(
    engine: Engine, patience: Watchdog, work: Callable[[Connection], Result], *, again: bool = True
) -> Result:
    try:
        with engine.begin() as connection, patience.using(connection):
            return _unless_of_the_machine(work, connection)
    except DBAPIError as error:
        if error.connection_invalidated and again:  # it was lost while it was idle: the pool has dropped it
            return _in_transaction(engine, patience, work, again=False)
        message = failure("a read", error)
        raise StoreUnavailable(message) from None
    except OF_THE_MACHINE as error:
        message = f"the database cannot be used for a read: {of_the_machine(error)}"
        raise StoreUnavailable(message) from None


def _unless_of_the_machine(work: Callable[[Connection], Result], connection: Connection) -> Result:
    try:
        return work(connection)
    except OF_THE_MACHINE:
        connection.invalidate()  # nobody knows what was sent
        raise
