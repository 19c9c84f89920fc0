"""Engine: the verbs on tasks. Every surface and every worker calls it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import replace

from agentkit.transcript.steps import (
    ApprovalAsked,
    ApprovalGiven,
    Finished,
    Recorded,
    Settlement,
    Unreadable,
    expiry,
)
from ops_core.bulk import MAX_TASKS, MAX_TOGETHER, BulkVerb, Count, Handled, Outcome, TaskSelection
from ops_core.errors import (
    ApprovalConflict,
    ApprovalNotFound,
    InvalidRequest,
    StoreUnavailable,
    TaskUnreadable,
    TransitionRefused,
)
from ops_core.halt import Halt, NewHalt
from ops_core.halt_watch import SETTLED_SECONDS, HaltWatch
from ops_core.ports import (
    ApprovalFilter,
    Dispatcher,
    HaltFilter,
    Page,
    RenewResult,
    RetryLater,
    Store,
    SubmitResult,
    SweepResult,
    SweepTerms,
    TaskFilter,
    ThreadFilter,
)
from ops_core.spending import Spent
from ops_core.task import TURNS_SEEN, Approval, Claimed, Lease, NewTask, Task, Thread
from ops_core.workers import Announcement

log = logging.getLogger("ops_core.engine")

POLL_SECONDS = 0.5
"""How often a watcher looks at the store, in case that another process has written there."""

MAX_UNHEARD = 1000
"""So many cancellations that belong to other processes are remembered; the heartbeat brings them in any case."""

PURGED_TOGETHER = 100
"""Number of tasks that are deleted in one transaction: others that write wait for it, and a file's journal holds it."""

PAGE = 200
"""So many steps a watcher reads at a time."""


class Engine:
    """Tasks, from their submission to their end.

    Args:
        store: the truth.
        dispatcher: wakes workers after something became due.
        refuse_busy: a task of a thread is not accepted while another one of it has not ended, instead of waiting.
        turns_seen: so many of the last turns of its thread a run is shown.
    """

    def __init__(
        self,
        store: Store,
        dispatcher: Dispatcher,
        *,
        refuse_busy: bool = False,
        turns_seen: int = TURNS_SEEN,
    ) -> None:
        self.store = store
        self.dispatcher = dispatcher
        self._refuse_busy = refuse_busy
        self._turns_seen = turns_seen
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._carried: dict[str, Callable[[], None]] = {}
        self.halt_watch = HaltWatch(store)
        self._unheard: set[str] = set()  # ids of tasks whose cancellation nobody here could be told

    @asynccontextmanager
    async def listening(self, *, wake: bool = True) -> AsyncGenerator[None]:
        """While the context lasts, what other processes write is heard here, where the store can tell.

        Args:
            wake: wake workers when others make something due; not where the dispatcher has done so.
        """
        ear = asyncio.create_task(self._listen(wake=wake))
        try:
            yield
        finally:
            ear.cancel()
            await asyncio.wait({ear})

    async def _listen(self, *, wake: bool) -> None:
        async with aclosing(self.store.hints()) as hints:
            async for hint in hints:
                if hint.halts:
                    await self.halt_watch.refresh_quietly()
                if hint.due and wake:
                    await self.dispatcher.wake()
                for task_id in hint.cancelled:
                    self._cancel_carried(task_id)
                for task_id in (*hint.cancelled, *hint.ended):
                    self.notify(task_id)

    # --- people ---------------------------------------------------------------------------------------------------

    async def submit(self, new: NewTask) -> SubmitResult:
        """Accept a task; it is durable when this returns.

        Raises:
            IdempotencyConflict: the key was used for another request.
            ThreadBusy: a task of its thread has not ended, and it is not to wait.
        """
        if new.thread is not None:
            refuse = new.thread.refuse or self._refuse_busy
            new = replace(new, thread=replace(new.thread, refuse=refuse, seen=self._turns_seen))
        inserted = await self.store.insert(new)
        if inserted.created:
            await self.dispatcher.wake()
        return inserted

    async def repeated(self, new: NewTask) -> SubmitResult | None:
        """The task that was accepted under the key of this one; ``None`` where there is none.

        Raises:
            IdempotencyConflict: the key was used for another request.
        """
        return await self.store.repeated(new)

    async def get(self, tenant: str, task_id: str) -> Task:
        """One task.

        Raises:
            TaskNotFound: there is none of this id.
        """
        return await self.store.get(tenant, task_id)

    async def list(self, tenant: str, wanted: TaskFilter) -> Page[Task]:
        """Tasks, newest first."""
        return await self.store.list(tenant, wanted)

    async def steps(
        self, tenant: str, task_id: str, after: int = -1, limit: int | None = None
    ) -> Page[Recorded]:
        """Steps with a number greater than ``after``, in order.

        Raises:
            TaskNotFound: there is no task of this id.
        """
        return await self.store.steps(tenant, task_id, after, limit)

    async def cancel(self, tenant: str, task_id: str) -> Task:
        """Cancel a task; one that has ended stays as it is.

        Raises:
            TaskNotFound: there is none of this id.
        """
        task = await self.store.cancel(tenant, task_id)
        if not task.status.terminal:
            self._cancel_carried(task_id)
        self.notify(task_id)
        await self.wake_next_in_thread(task)
        return task

    def _cancel_carried(self, task_id: str) -> None:
        if task_id in self._carried:
            self._carried[task_id]()
            return
        if len(self._unheard) >= MAX_UNHEARD:  # carried elsewhere, or claimed here a moment ago
            self._unheard.clear()
        self._unheard.add(task_id)

    async def retry(self, tenant: str, task_id: str, idempotency_key: str | None = None) -> SubmitResult:
        """A new task that carries on what a failed or cancelled one has recorded, with a budget of its own.

        A task is retried once; asked again, the answer is the task that carries it on.

        Raises:
            TaskNotFound: there is none of this id.
            TransitionRefused: it neither failed nor was cancelled.
            ThreadBusy: a task of its thread has not ended, and it is not to wait.
            IdempotencyConflict: the key was used for another request.
        """
        retry = self.store.retry(
            tenant, task_id, refuse_busy=self._refuse_busy, idempotency_key=idempotency_key
        )
        inserted = await retry
        if inserted.created:
            await self.dispatcher.wake()
        return inserted

    async def handle(self, tenant: str, selection: TaskSelection) -> Handled:
        """Cancel or retry the tasks that fit, up to :data:`~ops_core.bulk.MAX_TASKS` of them, batch by batch.

        Each batch is one transaction. Where the store fails behind the first one, the answer says what was done, and
        that there are more: nothing is done that is not told.

        Raises:
            StoreUnavailable: nothing was done.
        """
        handled = Handled(last=selection.after, more=True)
        seen = 0
        while handled.more and seen < MAX_TASKS:
            try:
                await self._handle_some(tenant, replace(selection, after=handled.last), handled)
            except StoreUnavailable as error:
                if not seen or error.is_uncertain:
                    raise
                break
            seen = handled.outcomes.total()
        if seen:
            await self.dispatcher.wake()
        return handled

    async def _handle_some(self, tenant: str, selection: TaskSelection, handled: Handled) -> None:
        found = await self.store.select(tenant, selection, MAX_TOGETHER + 1)
        ids = found[:MAX_TOGETHER]
        if ids:
            if selection.verb is BulkVerb.CANCEL:
                outcomes = await self.store.cancel_all(tenant, ids)
            else:
                outcomes = await self.store.retry_all(tenant, ids, refuse_busy=self._refuse_busy)
            handled.outcomes.update(outcomes.values())
            handled.last = ids[-1]
            for task_id, outcome in outcomes.items():
                if outcome == Outcome.CANCELLING:
                    self._cancel_carried(task_id)
                self.notify(task_id)
        handled.more = len(found) > len(ids)

    async def count(self, tenant: str, selection: TaskSelection) -> Count:
        """How many tasks fit, and when the oldest and the newest were submitted."""
        return await self.store.count(tenant, selection)

    async def answer(self, tenant: str, task_id: str, given: ApprovalGiven) -> Task:
        """Record a person's answer to an open approval; a waiting task goes on. The same answer again changes nothing.

        Raises:
            TaskNotFound: there is no task of this id.
            ApprovalNotFound: the task has no such approval.
            ApprovalConflict: it was answered otherwise, or ``given.digest`` is that of another question.
            ApprovalExpired: it is too late.
            TransitionRefused: the task has ended.
        """
        while True:
            steps = await self.store.steps(tenant, task_id)
            to_record = _answer_to(steps, task_id, given)
            if to_record is None:
                return await self.store.get(tenant, task_id)
            step, until = to_record
            if await self.store.answer(tenant, task_id, step, len(steps), until):
                break
        self.notify(task_id)
        await self.dispatcher.wake()
        return await self.store.get(tenant, task_id)

    async def settle(
        self, tenant: str, task_id: str, call: str, given: ApprovalGiven, *, late: bool = False
    ) -> Task:
        """Record what came of a call that waits for a person; a waiting task goes on with that as the call's result.

        Args:
            tenant: whose task it is.
            task_id: its id.
            call: id of the call, or of its approval.
            given: the answer; its ``approval_id`` is found here.
            late: what came of the call is what a worker has reported of it after it had lost its lease.

        Raises:
            InvalidRequest: no worker has.
            TaskNotFound, ApprovalNotFound, ApprovalConflict, ApprovalExpired, TransitionRefused: as :meth:`answer`.
        """
        asked = [
            recorded.step
            for recorded in await self.store.steps(tenant, task_id)
            if isinstance(recorded.step, ApprovalAsked)
            and call in (recorded.step.call_id, recorded.step.approval_id)
        ]
        approval_id = asked[-1].approval_id if asked else call  # where there is none, that is said
        if late and asked:
            reported = await self.store.late_result(tenant, task_id, asked[-1].call_id)
            if reported is None:
                message = f"no worker has reported a late result of call {asked[-1].call_id}"
                raise InvalidRequest(message, field="late")
            settlement = Settlement(output=reported.output, error=reported.error)
            given = replace(given, approved=False, settlement=settlement)
        return await self.answer(tenant, task_id, replace(given, approval_id=approval_id))

    async def approvals(self, tenant: str, wanted: ApprovalFilter) -> Sequence[Approval]:
        """Open approvals, those of the newest tasks first."""
        return await self.store.approvals(tenant, wanted)

    # --- halts ----------------------------------------------------------------------------------------------------

    async def halt(self, tenant: str, new: NewHalt) -> Halt:
        """Halt something. When this returns, nothing of it is begun any more, by no worker.

        Raises:
            TaskNotFound: there is no such task.
            TransitionRefused: the task has ended.
            IdempotencyConflict: the key was used for another halt.
        """
        halt = await self.store.halt(tenant, new)
        log.info("%s", halt)
        await self.halt_watch.refresh_quietly()
        await asyncio.sleep(SETTLED_SECONDS)  # until then a worker that has looked before may begin
        return halt

    async def lift(self, tenant: str, halt_id: str, *, by: str = "", reason: str = "") -> Halt:
        """Lift a halt; one that was lifted before stays as it is. What it held goes on.

        Raises:
            HaltNotFound: there is none of this id.
        """
        halt = await self.store.lift(tenant, halt_id, by=by, reason=reason)
        log.info("halt %s was lifted%s", halt.id, f" by {by}" if by else "")
        await self.halt_watch.refresh_quietly()
        await self.dispatcher.wake()
        return halt

    async def halts(self, tenant: str, wanted: HaltFilter) -> Sequence[Halt]:
        """Halts of a tenant, the newest first."""
        return await self.store.halts(tenant, wanted)

    # --- threads --------------------------------------------------------------------------------------------------

    async def thread(self, tenant: str, thread_id: str) -> Thread:
        """One thread.

        Raises:
            ThreadNotFound: there is none of this id.
        """
        return await self.store.thread(tenant, thread_id)

    async def threads(self, tenant: str, wanted: ThreadFilter) -> Sequence[Thread]:
        """Threads, those first in which something happened last."""
        return await self.store.threads(tenant, wanted)

    async def forget_thread(self, tenant: str, thread_id: str) -> int:
        """Delete a thread with its tasks and their steps; how many tasks it were.

        Raises:
            ThreadNotFound: there is none of this id.
            ThreadBusy: a task of it has not ended.
        """
        return await self.store.forget_thread(tenant, thread_id)

    async def wake_next_in_thread(self, task: Task) -> None:
        """After the end of a task of a thread: the next one may be due."""
        if task.thread_id is not None:
            await self.dispatcher.wake()

    async def spent(self, tenant: str | None) -> Spent:
        """What a tenant has spent today; all tenants together for ``None``."""
        return await self.store.spent(tenant)

    # --- watching -------------------------------------------------------------------------------------------------

    async def watch(self, tenant: str, task_id: str, after: int = -1) -> AsyncGenerator[Recorded]:
        """Steps as they are recorded, from ``after`` on; ends when the task has ended and all are told.

        Raises:
            TaskNotFound: there is no task of this id.
        """
        with _enrolled(self._watchers, task_id) as changed:
            while True:
                changed.clear()
                task = await self.store.get(tenant, task_id)  # before the steps: a last step is never missed
                steps = await self.store.steps(tenant, task_id, after, PAGE)
                for recorded in steps:
                    yield recorded
                    after = recorded.seq
                if not steps.more:
                    if task.status.terminal:
                        return
                    await _until(changed, POLL_SECONDS)

    async def until_ended(self, tenant: str, task_id: str, timeout_seconds: float | None = None) -> Task:
        """The task when it has ended, or as it is after ``timeout_seconds``.

        Raises:
            TaskNotFound: there is none of this id.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                with _enrolled(self._waiters, task_id) as changed:
                    while not (task := await self.store.get(tenant, task_id)).status.terminal:
                        await _until(changed, POLL_SECONDS)
                        changed.clear()
                    return task
        return await self.store.get(tenant, task_id)

    def notify(self, task_id: str, *, status: bool = True) -> None:
        """Tell whoever looks on in this process that something was written about a task.

        Args:
            task_id: of the task.
            status: its status may be another one, too; who waits for its end is not woken for each step.
        """
        for looking_on in (self._watchers, self._waiters) if status else (self._watchers,):
            for event in looking_on.get(task_id, ()):
                event.set()

    # --- workers --------------------------------------------------------------------------------------------------

    async def claim(
        self,
        owner: str,
        slots: int,
        lease_seconds: float,
        agents: Collection[str],
        only: Collection[str] | None = None,
    ) -> Sequence[Claimed]:
        """Take up to ``slots`` due tasks; with ``only``, none but these ids."""
        claimed = await self.store.claim(owner, slots, lease_seconds, agents, only)
        for one in claimed:
            self.notify(one.task.id, status=False)
        return claimed

    @contextmanager
    def carrying(self, task_id: str, cancel: Callable[[], None]) -> Generator[None]:
        """While a task is carried in this process, a cancellation that is requested here calls ``cancel`` at once."""
        self._carried[task_id] = cancel
        if task_id in self._unheard:
            self._unheard.discard(task_id)
            cancel()
        try:
            yield
        finally:
            if self._carried.get(task_id) is cancel:
                del self._carried[task_id]

    async def wait(self, lease: Lease, seen: int, until: float | None = None) -> None:
        """Put a task to waiting for an answer, until this moment by the database's clock at the latest.

        Args:
            lease: on the task.
            seen: how many steps its worker knows.
            until: ``None`` for ever.

        Raises:
            LeaseLost: another worker owns the task.
        """
        await self.store.wait(lease, seen, until)
        self.notify(lease.task_id)
        await self.dispatcher.wake()

    async def release(self, lease: Lease, later: RetryLater | None = None) -> None:
        """Give a task back, at once or for later.

        Raises:
            LeaseLost: another worker owns the task.
        """
        await self.store.release(lease, later)
        self.notify(lease.task_id)
        if later is None:
            await self.dispatcher.wake()

    async def renew(
        self, leases: Collection[Lease], lease_seconds: float, worker: Announcement | None = None
    ) -> RenewResult:
        """Prolong leases, and learn which are lost and which tasks are to be cancelled.

        With ``worker``, say that it is alive.
        """
        return await self.store.renew(leases, lease_seconds, worker)

    async def sweep(self, terms: SweepTerms | None = None) -> SweepResult:
        """Take tasks from dead workers, end what is out of time, and wake workers when something is due."""
        swept = await self.store.sweep(terms=terms)
        for task_id in swept.ended:
            self.notify(task_id)
        if swept.due:
            await self.dispatcher.wake()
        return swept

    async def purge(self, older_seconds: float) -> int:
        """Delete all tasks that ended longer ago, of every tenant, with their steps; returns how many it were.

        Args:
            older_seconds: by the database's clock.
        """
        purged = 0
        while some := await self.store.purge(older_seconds, PURGED_TOGETHER):
            purged += some
        while purged and await self.store.shrink():
            pass
        return purged

    async def purgeable(self, older_seconds: float) -> Count:
        """How many tasks :meth:`purge` would delete, and when the first and the last of them ended."""
        return await self.store.purgeable(older_seconds)


def _answer_to(
    steps: Sequence[Recorded], task_id: str, given: ApprovalGiven
) -> tuple[ApprovalGiven, float | None] | None:
    """What is to be recorded, and until when it may be; ``None`` where this very answer is there already."""
    asked: tuple[ApprovalAsked, float | None] | None = None
    for recorded in steps:
        match recorded.step:
            case ApprovalAsked(approval_id=given.approval_id) as question:
                asked = question, expiry(recorded.at, question)
            case ApprovalGiven(approval_id=given.approval_id) as before:
                if before == replace(given, digest=before.digest) and given.digest in ("", before.digest):
                    return None
                who = f" by {before.by}" if before.by else ""
                message = f"it was {_said(before)}{who} before"
                raise ApprovalConflict(message)
            case Unreadable(problem=problem):
                message = f"step {recorded.seq}: {problem}"
                raise TaskUnreadable(message)
            case Finished():
                message = "the task has ended; its approvals are closed"
                raise TransitionRefused(message)
            case _:
                pass
    if asked is None:
        message = f"task {task_id} has no approval {given.approval_id}"
        raise ApprovalNotFound(message)
    question, until = asked
    if given.digest not in ("", question.digest):
        message = "the answer is for a call with other arguments: look at it again"
        raise ApprovalConflict(message, field="digest")
    return replace(given, digest=question.digest), until


def _said(answer: ApprovalGiven) -> str:
    if answer.settlement is not None:
        return "settled"
    return "approved" if answer.approved else "denied"


async def _until(changed: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await changed.wait()


@contextmanager
def _enrolled(events: dict[str, set[asyncio.Event]], task_id: str) -> Generator[asyncio.Event]:
    event = asyncio.Event()
    events.setdefault(task_id, set()).add(event)
    try:
        yield event
    finally:
        others = events[task_id]
        others.discard(event)
        if not others:
            del events[task_id]
