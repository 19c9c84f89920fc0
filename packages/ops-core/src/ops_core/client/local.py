"""The client of an engine in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace

from agentkit.tracing import Trace
from agentkit.transcript.steps import Recorded
from ops_core.bulk import BulkVerb
from ops_core.catalog import Catalog
from ops_core.client.batches import whole_batch
from ops_core.client.paging import all_tasks
from ops_core.engine import Engine
from ops_core.halt import HaltKind
from ops_core.intake import accept, accept_many, answer, batch_result
from ops_core.listing import (
    PAGE_DEFAULT,
    approval_filter,
    checked_key,
    halt_filter,
    halt_id_of,
    note_filter,
    notes_to_forget,
    task_filter,
    task_id_of,
    thread_filter,
    thread_id_of,
)
from ops_core.recalling import recall
from ops_core.task import DEFAULT_TENANT
from ops_core.wire import (
    AgentBody,
    ApprovalPage,
    ApprovalRequest,
    BatchItem,
    BatchResult,
    BulkBody,
    BulkRequest,
    HaltBody,
    HaltPage,
    HaltRequest,
    LiftRequest,
    NoteBody,
    NotePage,
    RecallRequest,
    SettleRequest,
    SpendingBody,
    TaskBody,
    TaskPage,
    TaskRequest,
    ThreadBody,
    ThreadPage,
    WorkerBody,
    WorkerPage,
    selection_of,
)


class LocalClient:
    """A :class:`Client` of an engine in this process. What it submits is run by whoever works on the store.

    Args:
        engine: where the tasks are.
        catalog: the agents that can be run.
    """

    def __init__(self, engine: Engine, catalog: Catalog) -> None:
        self._engine = engine
        self._catalog = catalog

    async def submit(
        self, request: TaskRequest, *, idempotency_key: str | None = None, wait: int | None = None
    ) -> TaskBody:
        """Submit a task."""
        key = None if idempotency_key is None else checked_key(idempotency_key)
        task = (await accept(self._engine, self._catalog, request, key, Trace.current())).task
        if wait is not None:
            task = await self._engine.until_ended(DEFAULT_TENANT, task.id, wait)
        return TaskBody.of(task)

    async def submit_many(
        self, items: Sequence[BatchItem], *, idempotency_key: str | None = None
    ) -> Sequence[BatchResult]:
        """Submit many tasks."""
        return await whole_batch(items, self._submit_batch, idempotency_key)

    async def _submit_batch(self, items: Sequence[BatchItem], key: str | None) -> Sequence[BatchResult]:
        results = await accept_many(self._engine, self._catalog, items, Trace.current(), idempotency_key=key)
        return [batch_result(result) for result in results]

    async def get(self, task_id: str) -> TaskBody:
        """One task."""
        return TaskBody.of(await self._engine.get(DEFAULT_TENANT, task_id_of(task_id)))

    async def list(
        self,
        *,
        status: Collection[str] = (),
        agent: str | None = None,
        label: str | None = None,
        thread_id: str | None = None,
        cursor: str | None = None,
        limit: int = PAGE_DEFAULT,
        view: str = "full",
    ) -> TaskPage:
        """One page of tasks."""
        of = {"agent": agent, "label": label, "thread_id": thread_id, "cursor": cursor}
        asked = task_filter(status=status, limit=limit, view=view, **of)
        return TaskPage.of(await self._engine.list(DEFAULT_TENANT, asked), asked)

    def tasks(
        self, *, status: Collection[str] = (), agent: str | None = None, label: str | None = None
    ) -> AsyncIterator[TaskBody]:
        """All tasks."""
        return all_tasks(self, status, agent, label)

    async def steps(self, task_id: str, after: int = -1) -> Sequence[Recorded]:
        """All steps."""
        return await self._engine.steps(DEFAULT_TENANT, task_id_of(task_id), after)

    def watch(self, task_id: str, after: int = -1) -> AsyncIterator[Recorded]:
        """Steps as they are recorded."""
        return self._engine.watch(DEFAULT_TENANT, task_id_of(task_id), after)

    async def wait_for_end(self, task_id: str, timeout_seconds: float | None = None) -> TaskBody:
        """The task when it has ended."""
        return TaskBody.of(
            await self._engine.until_ended(DEFAULT_TENANT, task_id_of(task_id), timeout_seconds)
        )

    async def cancel(self, task_id: str) -> TaskBody:
        """Cancel a task."""
        return TaskBody.of(await self._engine.cancel(DEFAULT_TENANT, task_id_of(task_id)))

    async def retry(self, task_id: str, *, idempotency_key: str | None = None) -> TaskBody:
        """The task that carries on another one."""
        key = None if idempotency_key is None else checked_key(idempotency_key)
        return TaskBody.of((await self._engine.retry(DEFAULT_TENANT, task_id_of(task_id), key)).task)

    async def cancel_many(self, request: BulkRequest) -> BulkBody:
        """Cancel the tasks that fit."""
        return await self._handle(BulkVerb.CANCEL, request)

    async def retry_many(self, request: BulkRequest) -> BulkBody:
        """Carry on the tasks that fit."""
        return await self._handle(BulkVerb.RETRY, request)

    async def _handle(self, verb: BulkVerb, request: BulkRequest) -> BulkBody:
        selection = selection_of(verb, request)
        if request.dry_run:
            return BulkBody.counted(await self._engine.count(DEFAULT_TENANT, selection))
        return BulkBody.of(await self._engine.handle(DEFAULT_TENANT, selection), selection)

    async def answer(self, task_id: str, approval_id: str, request: ApprovalRequest) -> TaskBody:
        """Answer an open approval."""
        task = await answer(self._engine, self._catalog, task_id_of(task_id), approval_id, request)
        return TaskBody.of(task)

    async def settle(self, task_id: str, request: SettleRequest) -> TaskBody:
        """Say what came of a call."""
        given = request.as_step("")
        task = await self._engine.settle(DEFAULT_TENANT, task_id_of(task_id), request.call, given)
        return TaskBody.of(task)

    async def approvals(self, *, cursor: str | None = None, limit: int = PAGE_DEFAULT) -> ApprovalPage:
        """One page of open approvals."""
        asked = approval_filter(cursor=cursor, limit=limit)
        return ApprovalPage.of(await self._engine.approvals(DEFAULT_TENANT, asked), asked)

    async def halt(self, request: HaltRequest, *, idempotency_key: str | None = None) -> HaltBody:
        """Halt something."""
        new = request.as_new(None if idempotency_key is None else checked_key(idempotency_key))
        if new.kind is HaltKind.TASK:
            new = replace(new, target=task_id_of(new.target))
        return HaltBody.of(await self._engine.halt(DEFAULT_TENANT, new))

    async def halts(
        self, *, in_force: bool = True, cursor: str | None = None, limit: int = PAGE_DEFAULT
    ) -> HaltPage:
        """One page of halts."""
        asked = halt_filter(in_force=in_force, cursor=cursor, limit=limit)
        return HaltPage.of(await self._engine.halts(DEFAULT_TENANT, asked), asked)

    async def lift(self, halt_id: str, request: LiftRequest) -> HaltBody:
        """Lift a halt."""
        told = {"by": request.by, "reason": request.reason}
        return HaltBody.of(await self._engine.lift(DEFAULT_TENANT, halt_id_of(halt_id), **told))

    async def threads(self, *, cursor: str | None = None, limit: int = PAGE_DEFAULT) -> ThreadPage:
        """One page of threads."""
        asked = thread_filter(cursor=cursor, limit=limit)
        return ThreadPage.of(await self._engine.threads(DEFAULT_TENANT, asked), asked)

    async def thread(self, thread_id: str) -> ThreadBody:
        """One thread."""
        return ThreadBody.of(await self._engine.thread(DEFAULT_TENANT, thread_id_of(thread_id)))

    async def delete_thread(self, thread_id: str) -> int:
        """Delete a thread and its tasks."""
        return await self._engine.forget_thread(DEFAULT_TENANT, thread_id_of(thread_id))

    async def notes(
        self,
        *,
        agent: str | None = None,
        key: str | None = None,
        cursor: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> NotePage:
        """One page of notes."""
        asked = note_filter(agent=agent, key=key, cursor=cursor, limit=limit)
        return NotePage.of(await self._engine.store.list_notes(DEFAULT_TENANT, asked), asked)

    async def recall(self, request: RecallRequest) -> Sequence[NoteBody]:
        """The most similar notes of an agent."""
        found = await recall(self._engine, self._catalog, request)
        return [NoteBody.recalled(note, request) for note in found]

    async def forget(
        self,
        *,
        agent: str | None = None,
        key: str | None = None,
        ids: Collection[str] = (),
        everything: bool = False,
    ) -> int:
        """Delete notes."""
        wanted = notes_to_forget(agent=agent, key=key, ids=ids, everything=everything)
        return await self._engine.store.forget_notes(DEFAULT_TENANT, wanted)

    async def spending(self) -> SpendingBody:
        """What was spent today."""
        limit = self._catalog.terms.spending.limit(DEFAULT_TENANT)
        return SpendingBody.of(await self._engine.spent(DEFAULT_TENANT), limit)

    async def workers(self) -> Sequence[WorkerBody]:
        """Workers by name."""
        return WorkerPage.of(await self._engine.store.workers(DEFAULT_TENANT)).items

    async def agents(self) -> Sequence[AgentBody]:
        """All agents."""
        return [await AgentBody.of(self._catalog.get(name)) for name in self._catalog.names]

    async def agent(self, name: str) -> AgentBody:
        """One agent."""
        return await AgentBody.of(self._catalog.get(name))
