"""Ports: the parts of the platform that can be replaced (store, dispatcher, clock)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeVar

from agentkit.errors import RunError
from agentkit.ports import Scope
from agentkit.transcript.steps import ApprovalGiven, Note, Recorded, Step, ToolReturned, Turn
from ops_core.bulk import Count, TaskSelection
from ops_core.errors import TaskUnreadable
from ops_core.halt import Halt, NewHalt
from ops_core.spending import Charge, Spent
from ops_core.task import Approval, Claimed, Lease, NewTask, Task, TaskStatus, Thread
from ops_core.workers import Announcement, Worker

Clock: TypeAlias = Callable[[], float]
"""Seconds since the epoch. Only the store's clock decides anything; a store on a server uses the server's."""

Item = TypeVar("Item")

UNREADABLE_SECONDS = 5.0
"""A worker that cannot read a task leaves it to others for so long before it may be asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitResult:
    """The answer to a submit.

    Attributes:
        task: the task.
        created: ``False`` for a repeated submit that found its task.
    """

    task: Task
    created: bool


PAGE_BYTES = 2 << 20
"""Size of the texts on a page: a page is bounded in bytes, too, since one item may have megabytes."""


class Page(list[Item]):
    """Items in their order.

    Attributes:
        more: whether others follow.
    """

    more: bool = False


class Appended(list[Recorded]):
    """Steps that were recorded.

    Attributes:
        cancel_requested: the cancellation of their task was requested before. ``False`` where they end it.
    """

    cancel_requested: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks a list shows. Empty fields do not filter.

    Attributes:
        status: in one of these.
        agent: of this agent.
        label: ``key`` or ``key=value``.
        thread: of the thread of this id.
        before: older than the task of this id (a list is newest first).
        limit: at most so many.
        max_bytes: a page ends behind the task with which its inputs and outputs exceed this size; it has at least one.
        texts: whether inputs and outputs are read; without them both are ``None``.
    """

    status: Collection[TaskStatus] = ()
    agent: str | None = None
    label: str | None = None
    thread: str | None = None
    before: str | None = None
    limit: int = 50
    max_bytes: int = PAGE_BYTES
    texts: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadFilter:
    """Which threads a list shows.

    Attributes:
        before: those behind the thread with this ``updated_at`` and id in the list.
        limit: at most so many.
    """

    before: tuple[float, str] | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalFilter:
    """Which open approvals a list shows.

    Attributes:
        before: those behind the one of this task's id and step's number in the list.
        limit: at most so many.
    """

    before: tuple[str, int] | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryLater:
    """Why and when a released task is to be tried again.

    Attributes:
        delay_seconds: not earlier than this.
        error: what went wrong; shown on the task until it ends.
        counted: it was an attempt, if it recorded nothing.
    """

    delay_seconds: float
    error: RunError
    counted: bool = True

    @classmethod
    def by_a_newer_release(cls, problem: TaskUnreadable) -> RetryLater:
        """A task that cannot be read here is left to workers that can read it, and is no worse for it."""
        error = RunError(code=problem.code, message=str(problem), actor=problem.actor, transient=True)
        return cls(delay_seconds=UNREADABLE_SECONDS, error=error, counted=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewResult:
    """What a heartbeat learns.

    Attributes:
        lost: leases on tasks that another worker owns, or that have ended.
        cancelled: leases on tasks whose cancellation was requested.
    """

    lost: frozenset[Lease] = field(default_factory=frozenset[Lease])
    cancelled: frozenset[Lease] = field(default_factory=frozenset[Lease])


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepTerms:
    """When a lease that has run out says that its worker is gone.

    Attributes:
        quiet_seconds: where nobody has swept for longer, nobody could renew a lease.
        grace_seconds: so long living workers then have to renew theirs; 0 for not at all.
        gone: names of workers whose processes have ended: their leases are not waited for.
    """

    quiet_seconds: float = 0.0
    grace_seconds: float = 0.0
    gone: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """What a sweep has done.

    Attributes:
        released: ids of tasks that can be claimed again.
        ended: ids of tasks that it ended (out of time, out of attempts, cancelled).
        due: a task could be claimed now.
        more: it did as much as a sweep may; there may be others.
    """

    released: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    due: bool = False
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """How full a store is.

    Attributes:
        tasks: how many are pending, running and waiting.
        due: so many could be claimed now, if nothing is halted.
        oldest_due_seconds: so long ago the first of them became due; 0 for none.
        expired_leases: running tasks whose worker was silent for too long, and which no sweep has taken yet.
        workers: so many hold at least one lease.
        moment: the time by the store's clock, in seconds since the epoch.
        halts: so many are in force.
        estimated: there are so many tasks that pending, waiting or due ones were not all counted.
    """

    tasks: Mapping[TaskStatus, int]
    due: int
    oldest_due_seconds: float
    expired_leases: int
    workers: int
    moment: float
    halts: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Oldest:
    """The oldest task of an agent in a status.

    Attributes:
        agent: its name.
        status: running or waiting.
        seconds: time since it has this status.
    """

    agent: str
    status: TaskStatus
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """Who works, and what takes long.

    Attributes:
        idle: number of workers that are alive and hold no task.
        busy: number of workers that are alive and hold one.
        oldest: of each agent, the oldest task that runs and the oldest that waits.
        unserved: agents that have a task which is due, and no living worker that can run it.
    """

    idle: int = 0
    busy: int = 0
    oldest: Sequence[Oldest] = ()
    unserved: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """What another process has written, told so that nobody has to wait until they look. It may be lost.

    Attributes:
        due: a task may be claimed that could not be claimed before.
        cancelled: ids of running tasks whose cancellation was requested.
        ended: ids of tasks that have ended.
        halts: something was halted, or a halt was lifted.
    """

    due: bool = False
    cancelled: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    halts: bool = False


class SpendingStore(Protocol):
    """What is known about the spending of tenants."""

    async def spent(self, tenant: str | None) -> Spent:
        """What a tenant has spent today, by the database's clock; all tenants together for ``None``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HaltFilter:
    """Which halts a list shows, the newest first.

    Attributes:
        in_force: only those that were not lifted.
        before: older than the halt of this id.
        limit: at most so many.
    """

    in_force: bool = True
    before: str | None = None
    limit: int = 50


class HaltStore(Protocol):
    """What somebody has halted. From the moment at which :meth:`halt` returns, nothing is claimed that it holds."""

    async def halt(self, tenant: str, new: NewHalt) -> Halt:
        """Halt something, or find the halt that was ordered under the same key. TaskNotFound, TransitionRefused for a
        task that has ended, IdempotencyConflict for a key that was used for another halt.
        """
        ...

    async def lift(self, tenant: str, halt_id: str, *, by: str = "", reason: str = "") -> Halt:
        """Lift a halt, or HaltNotFound; one that was lifted before stays as it is. What it held is due again."""
        ...

    async def halts(self, tenant: str, wanted: HaltFilter) -> Sequence[Halt]:
        """Halts of a tenant."""
        ...

    async def halts_in_force(self) -> Sequence[Halt]:
        """Those that were not lifted, of all tenants: for workers."""
        ...


class Measured(Protocol):
    """A store that can say how full it is. Of all tenants together: it is for operators, not for callers."""

    async def stats(self) -> Stats:
        """How full it is. Costs one statement that looks at every task that has not ended.

        Raises:
            StoreUnavailable: the database refused.
        """
        ...

    async def activity(self) -> Activity:
        """Who works, and what takes long. Its cost depends on the number of agents and of running tasks only."""
        ...


class BulkStore(Protocol):
    """Verbs on many tasks of a tenant at once."""

    async def select(self, tenant: str, selection: TaskSelection, limit: int) -> Sequence[str]:
        """Ids of tasks that fit, in the order in which the verb is for them."""
        ...

    async def count(self, tenant: str, selection: TaskSelection) -> Count:
        """How many fit, and when the oldest and the newest were submitted."""
        ...

    async def cancel_all(self, tenant: str, ids: Sequence[str]) -> Mapping[str, str]:
        """Cancel these tasks as ``cancel`` does, in one transaction; for each an :class:`~ops_core.bulk.Outcome`."""
        ...

    async def retry_all(
        self, tenant: str, ids: Sequence[str], *, refuse_busy: bool = False
    ) -> Mapping[str, str]:
        """Retry these tasks as ``retry`` does, in one transaction; for each its outcome, or the code of an error."""
        ...


class TaskStore(Protocol):
    """What people do with tasks, and see of them.

    Methods that take a tenant see that tenant's tasks only and raise TaskNotFound for all others.
    """

    async def insert(self, new: NewTask) -> SubmitResult:
        """Accept a task; one of a thread is due when all that were accepted for it before have ended.

        Raises:
            IdempotencyConflict: the key was used with another fingerprint.
            ThreadBusy: it does not want to wait for its turn.
        """
        ...

    async def get(self, tenant: str, task_id: str) -> Task:
        """One task."""
        ...

    async def list(self, tenant: str, wanted: TaskFilter) -> Page[Task]:
        """Tasks, newest first."""
        ...

    async def steps(
        self, tenant: str, task_id: str, after: int = -1, limit: int | None = None
    ) -> Page[Recorded]:
        """Steps with a number greater than ``after``, in order; with a ``limit``, about :data:`PAGE_BYTES` at most."""
        ...

    async def cancel(self, tenant: str, task_id: str) -> Task:
        """End a task that no worker holds, ask the worker of one that is running; a task that has ended stays."""
        ...

    async def answer(
        self, tenant: str, task_id: str, step: ApprovalGiven, seen: int, until: float | None = None
    ) -> bool:
        """Record a person's answer and make a waiting task due; ``False`` when not just ``seen`` steps exist.

        Raises TransitionRefused for a task that has ended, and ApprovalExpired where it is ``until``, or later, by
        the database's clock.
        """
        ...

    async def approvals(self, tenant: str, wanted: ApprovalFilter) -> Sequence[Approval]:
        """Questions to people that are open, those of the newest tasks first."""
        ...

    async def late_result(self, tenant: str, task_id: str, call_id: str) -> ToolReturned | None:
        """What the last worker that lost its lease in this call has reported of it; ``None`` where none has."""
        ...

    async def repeated(self, new: NewTask) -> SubmitResult | None:
        """The task that was accepted under the key of this one; ``None`` where there is none. IdempotencyConflict."""
        ...

    async def retry(
        self, tenant: str, task_id: str, *, refuse_busy: bool = False, idempotency_key: str | None = None
    ) -> SubmitResult:
        """A new task that carries on the steps of one that failed or was cancelled; else TransitionRefused.

        A task is carried on by one new task only: asked again, the answer is the same task, which was not created.
        In a thread it has the last turn; with ``refuse_busy`` it is refused where it would have to wait for it.
        IdempotencyConflict: the key was used for another request.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteFilter:
    """Which notes are meant: those that fit all that is given.

    Attributes:
        agent: what this agent remembers.
        key: about the person or thing of this key.
        ids: of these ids.
        behind: behind the note of this moment, agent, key and id, where they are listed.
        limit: at most so many, where they are listed.
    """

    agent: str | None = None
    key: str | None = None
    ids: Collection[str] | None = None
    behind: tuple[float, str, str, str] | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptNote:
    """A note and whose it is."""

    scope: Scope
    note: Note


class NoteStore(Protocol):
    """What agents remember; see :class:`agentkit.ports.Memory` for what is promised. Vectors are packed."""

    async def put_note(self, scope: Scope, note: Note, vector: bytes, embedder: str) -> None:
        """Keep a note, in the place of one of the same id; ``embedder`` names who made the vector."""
        ...

    async def find_notes(self, scope: Scope, query: bytes, embedder: str, limit: int) -> Sequence[Note]:
        """The most similar notes of this scope among those of ``embedder``, with their scores."""
        ...

    async def list_notes(self, tenant: str, wanted: NoteFilter) -> Sequence[KeptNote]:
        """Notes, the newest first."""
        ...

    async def forget_notes(self, tenant: str, wanted: NoteFilter) -> int:
        """Delete notes for good, so that nothing of them is left in the database's files; how many it were."""
        ...


class ThreadStore(Protocol):
    """What is kept of conversations. Raises ThreadNotFound for those of other tenants."""

    async def thread(self, tenant: str, thread_id: str) -> Thread:
        """One thread."""
        ...

    async def threads(self, tenant: str, wanted: ThreadFilter) -> Sequence[Thread]:
        """Threads, those first in which something happened last."""
        ...

    async def earlier(self, tenant: str, task_id: str) -> Sequence[Turn]:
        """What the run of a task is shown of its thread, oldest first; nothing for a task without one.

        From the moment at which the task becomes due this is the same for ever: all of it has ended before, and while
        a task of the thread has not ended, ``purge`` deletes nothing of it.
        """
        ...

    async def forget_thread(self, tenant: str, thread_id: str) -> int:
        """Delete a thread with its tasks and their steps; how many tasks it were. ThreadBusy if one has not ended."""
        ...


class LeaseStore(Protocol):
    """What workers do.

    Methods that take a lease are fenced: when the lease is no longer the task's they change nothing and raise
    LeaseLost.
    """

    async def claim(
        self,
        owner: str,
        slots: int,
        lease_seconds: float,
        agents: Collection[str],
        only: Collection[str] | None = None,
    ) -> Sequence[Claimed]:
        """Take up to ``slots`` due tasks of these agents; raises their epochs, and records the first step of those
        that have none, unless they belong to a thread.

        Tenants take turns; within a tenant the highest priority goes first, and at one priority agents take turns.
        Nothing is taken that is halted. Fewer than ``slots`` are returned only when no more are due.
        With ``only``, none but these ids is taken.
        """
        ...

    async def append(self, lease: Lease, step: Step) -> Recorded:
        """Record a step of a running task; a :class:`~agentkit.transcript.steps.Finished` ends the task with it."""
        ...

    async def append_all(self, lease: Lease, steps: Sequence[Step], charge: Charge | None = None) -> Appended:
        """Record several steps, all or none; nothing may follow a :class:`~agentkit.transcript.steps.Finished`.

        The answer says also whether somebody has requested the task's cancellation, in whichever process.

        With ``charge`` the tenant's spending is changed in the same transaction. Raises SpendingReached, and records
        nothing, where what is to be reserved does not fit into what the tenant has left for the day: also not
        together with what other workers reserve at the same time.
        """
        ...

    async def attach(self, lease: Lease, returned: ToolReturned) -> bool:
        """Keep what came of a call that was begun under a lease which is lost; ``False`` where no such call was.

        It becomes no step and changes nothing of the run: it is told with the task, and with the question about the
        call. What was reported first of a call and a lease stays. Of a task that was retried, the last one has it.
        """
        ...

    async def wait(self, lease: Lease, seen: int, until: float | None = None) -> None:
        """Put a running task to waiting. If more than ``seen`` steps are recorded by now, it is due at once.

        With ``until`` it is due at that moment by the database's clock, whatever happens.
        A task whose cancellation was requested is ended as cancelled instead; so it is by ``release``.
        """
        ...

    async def release(self, lease: Lease, later: RetryLater | None = None) -> None:
        """Give a running task back: due at once and not counted as an attempt, or to be tried again later.

        An attempt that is tried again counts if it recorded nothing (that the run or a call began is nothing). So do
        hand-overs that recorded nothing, from the sixth in a row on, and each of these is due a little later.
        """
        ...

    async def renew(
        self, leases: Collection[Lease], lease_seconds: float, worker: Announcement | None = None
    ) -> RenewResult:
        """Prolong these leases. Never raises LeaseLost: what was lost is in the answer.

        With ``worker``, it counts as alive for as long as a lease lasts, in the same transaction.
        """
        ...

    async def leave(self, worker: str) -> None:
        """Forget a worker that stops, by its name; its leases stay as they are."""
        ...

    async def workers(self, tenant: str) -> Sequence[Worker]:
        """Workers that are alive, were alive lately, or hold a lease, by name; of tasks, those of the tenant."""
        ...


class Upkeep(Protocol):
    """What nobody asks for, and what must happen all the same."""

    async def sweep(self, limit: int = 500, terms: SweepTerms | None = None) -> SweepResult:
        """Take tasks from dead workers and end what is out of time."""
        ...

    async def lease_owners(self, place: str) -> Collection[str]:
        """The names of workers that hold a lease, among those with ``place`` in their names."""
        ...

    async def purge(self, older_seconds: float, limit: int = 1000) -> int:
        """Delete up to ``limit`` tasks that ended longer ago, with their steps; returns how many it were."""
        ...

    async def purgeable(self, older_seconds: float) -> Count:
        """How many tasks :meth:`purge` would delete, and when the first and the last of them ended."""
        ...

    async def shrink(self) -> bool:
        """Give a bounded part of a file's free space back to the system; whether there is more. Nothing on a server."""
        ...

    def hints(self) -> AsyncGenerator[Hint]:
        """What other processes write, as it is committed; ends at once where nobody can be heard."""
        ...

    async def check(self, *, writes: bool = False) -> None:
        """Raises StoreUnavailable or SchemaMismatch where the store cannot be read; with ``writes``, nor be written."""
        ...


class Store(
    TaskStore,
    BulkStore,
    ThreadStore,
    NoteStore,
    LeaseStore,
    Upkeep,
    Measured,
    SpendingStore,
    HaltStore,
    Protocol,
):
    """Keeps tasks and their steps. Every method is one transaction; what it returns is durable.

    Any method may raise StoreUnavailable.
    """


class Dispatcher(Protocol):
    """Wakes workers. A wake-up is a hint: it may be lost, doubled or late, and holds nothing of value.

    Within one process none is lost: after every ``wake`` at least one call of ``woken``, under way or the next one,
    returns ``True``. Several wake-ups may be heard as one. Where wake-ups pass between processes, one that came in
    while a runner had no free slot is left to the others: whoever takes all that it has slots for passes the word on.
    """

    async def wake(self) -> None:
        """Say that there may be work. Never raises and never waits for long."""
        ...

    async def woken(self, timeout_seconds: float) -> bool:
        """Wait for a wake-up; ``False`` when none came in time. Only a runner with a free slot waits."""
        ...
