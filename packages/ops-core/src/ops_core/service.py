"""Service: the operations of every surface, on an engine and a catalog in this process."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agentkit.errors import AgentkitError, ToolError
from agentkit.messages import ToolCall
from agentkit.ports import Scope
from agentkit.tracing import Trace
from agentkit.transcript.steps import Note, Recorded
from ops_core.bulk import BulkVerb
from ops_core.concurrency.shutdown import unless_closing
from ops_core.engine import Engine
from ops_core.errors import AgentNotFound, IdempotencyConflict, InvalidRequest, OpsError, RecallUnavailable
from ops_core.halt import HaltKind
from ops_core.operations import all_tasks, whole_batch
from ops_core.ports import SubmitResult
from ops_core.problem_details import Problem, is_ours, problem_of
from ops_core.schemas import (
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
from ops_core.schemas.queries import (
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
from ops_core.task import DEFAULT_TENANT, Task

if TYPE_CHECKING:
    from ops_core.config.catalog import Catalog

MAX_WAIT_SECONDS = 60
"""Nobody may wait longer for the answer to one request."""

log = logging.getLogger("ops_core.service")


async def accept(
    engine: Engine,
    catalog: Catalog,
    request: TaskRequest,
    idempotency_key: str | None,
    trace: Trace | None = None,
    fingerprint: str | None = None,
) -> SubmitResult:
    """Accept a task that can be run here; it is durable when this returns.

    Args:
        engine: takes it.
        catalog: what can be run here.
        request: what is submitted.
        idempotency_key: the same key with the same request is the same task.
        trace: the trace of whoever submits it.
        fingerprint: of the request with this key; its own where not given.

    Raises:
        AgentNotFound: it cannot.
        InvalidRequest: the agent needs a label that it does not have.
        IdempotencyConflict: the key was used for another request.
    """
    new = request.as_new_task(idempotency_key, trace=trace)
    if fingerprint is not None:
        new = replace(new, fingerprint=fingerprint)
    try:
        _check_agent(catalog, request)
    except (AgentNotFound, InvalidRequest):  # not for a task that was accepted before the catalog changed
        repeated = await engine.repeated(new)
        if repeated is None:
            raise
        return repeated
    return await engine.submit(new)


def _check_agent(catalog: Catalog, request: TaskRequest) -> None:
    from ops_core.memory import missing_label

    missing = missing_label(catalog.get(request.agent).agent.memory, request.labels)
    if missing is not None:
        raise InvalidRequest(missing, field="labels")


async def answer(
    engine: Engine, catalog: Catalog, task_id: str, approval_id: str, request: ApprovalRequest
) -> Task:
    """Record a person's answer; changed arguments must fit the tool and its agent's policy.

    Raises:
        AgentNotFound: the arguments were changed, and the agent is not known here.
        InvalidRequest: they do not fit.
        TaskNotFound, ApprovalNotFound, ApprovalConflict, ApprovalExpired, TransitionRefused: as the engine.
    """
    given = request.as_step(approval_id)
    if given.arguments is not None:
        task = await engine.get(DEFAULT_TENANT, task_id)
        found = [each.asked for each in task.approvals if each.asked.approval_id == approval_id]
        for asked in found:  # where there is none, the engine says why
            call = ToolCall(id=asked.call_id, name=asked.tool, arguments=given.arguments)
            try:
                steps = await engine.steps(DEFAULT_TENANT, task_id)
                await catalog.get(task.agent).agent.examine(call, steps)
            except ToolError as error:
                raise InvalidRequest(str(error), field="arguments") from None
    return await engine.answer(DEFAULT_TENANT, task_id, given)


async def accept_many(
    engine: Engine,
    catalog: Catalog,
    items: Sequence[BatchItem | Problem],
    trace: Trace | None = None,
    *,
    idempotency_key: str | None = None,
) -> list[SubmitResult | Problem]:
    """Accept each of these tasks, or say what is wrong with it; what was a problem before stays one.

    Args:
        engine: takes them.
        catalog: what can be run here.
        items: what is submitted.
        trace: the trace of whoever submits them.
        idempotency_key: the same key with the same batch is the same tasks.

    Raises:
        OpsError: not one could be accepted, and the fault is on this side: the whole may be sent again.
        IdempotencyConflict: the key was used for another request.
        InvalidRequest: the batch has a key, and a task in it has another one.
    """
    keys = _batch_keys(items, idempotency_key)
    first: dict[int, SubmitResult] = {}
    if idempotency_key is not None:
        of_batch = [replace(key, key=idempotency_key) for key in keys]
        first = await _first_accepted(engine, catalog, items, trace, of_batch)
    others = [at for at in range(len(items)) if at not in first]
    accepted = await asyncio.gather(
        *(_accepted(engine, catalog, items[at], trace, keys[at]) for at in others)
    )
    found = {**first, **dict(zip(others, accepted, strict=True))}
    results = [found[at] for at in range(len(items))]
    errors = [result for result in results if isinstance(result, OpsError) and is_ours(result)]
    if errors and len(errors) == len(results):
        raise errors[0]
    for error in errors:
        log.error("%s: %s", error.code, error)
    return [_problem_of(result) if isinstance(result, OpsError) else result for result in results]


def batch_result(result: SubmitResult | Problem) -> BatchResult:
    """What became of a task of a batch, as it is told."""
    if isinstance(result, SubmitResult):
        return BatchResult(status=202 if result.created else 200, task_id=result.task.id)
    return BatchResult(status=result.status, problem=result)


@dataclass(frozen=True, slots=True)
class _Key:
    """Under which a task of a batch is accepted; without a fingerprint, that of the task itself counts."""

    key: str | None
    fingerprint: str | None = None


def _batch_keys(items: Sequence[BatchItem | Problem], idempotency_key: str | None) -> list[_Key]:
    """The keys of the tasks of a batch: their own, or made from the key of the batch, for this very batch.

    Raises:
        InvalidRequest: the batch has a key, and a task in it has another one.
    """
    if idempotency_key is None:
        return [_Key(None if isinstance(item, Problem) else item.idempotency_key) for item in items]
    if any(isinstance(item, BatchItem) and item.idempotency_key is not None for item in items):
        message = "give the batch an Idempotency-Key, or its tasks an idempotency_key each, not both"
        raise InvalidRequest(message, field="Idempotency-Key")
    told = [item.model_dump_json() if isinstance(item, Problem) else item.fingerprint() for item in items]
    whole = json.dumps(told)
    return [
        _Key(_digest("batch", idempotency_key, str(at)), _digest("batch", whole, str(at)))
        for at in range(len(items))
    ]


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


async def _first_accepted(
    engine: Engine,
    catalog: Catalog,
    items: Sequence[BatchItem | Problem],
    trace: Trace | None,
    keys: Sequence[_Key],
) -> dict[int, SubmitResult]:
    """The first task of a batch that can be accepted, by its place: it holds the key of the batch.

    Raises:
        IdempotencyConflict: the key was used for another request.
    """
    conflict: IdempotencyConflict | None = None
    for at, (item, key) in enumerate(zip(items, keys, strict=True)):
        result = await _accepted(engine, catalog, item, trace, key)
        if isinstance(result, SubmitResult):
            return {at: result}
        if isinstance(result, IdempotencyConflict):  # or another task of this batch holds it
            conflict = result
    if conflict is not None:
        raise conflict
    return {}


async def _accepted(
    engine: Engine, catalog: Catalog, item: BatchItem | Problem, trace: Trace | None, key: _Key
) -> SubmitResult | Problem | OpsError:
    if isinstance(item, Problem):
        return item
    try:
        return await accept(engine, catalog, item, key.key, trace, key.fingerprint)
    except OpsError as error:
        return error


def _problem_of(error: OpsError) -> Problem:
    problem = problem_of(error)
    if problem.field == "Idempotency-Key":  # a header where a task comes alone
        return problem.model_copy(update={"field": "idempotency_key"})
    return problem


async def ended_or_not(engine: Engine, task: Task, seconds: float, closing: asyncio.Event) -> Task:
    """The task when it has ended; as it is after ``seconds`` (at most 60), or when ``closing`` is set."""
    waiting = engine.until_ended(DEFAULT_TENANT, task.id, min(seconds, MAX_WAIT_SECONDS))
    return await unless_closing(closing, waiting) or await engine.get(DEFAULT_TENANT, task.id)


class LocalClient:
    """A :class:`Client` of an engine in this process. What it submits is run by whoever works on the store.

    Args:
        engine: where the tasks are.
        catalog: the agents that can be run; ``None`` for none, and then no part of an agent is loaded.
    """

    def __init__(self, engine: Engine, catalog: Catalog | None = None) -> None:
        self._engine = engine
        self._loaded = catalog

    @property
    def _catalog(self) -> Catalog:
        if self._loaded is None:
            from ops_core.config.catalog import Catalog

            self._loaded = Catalog()
        return self._loaded

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
        task = await self._engine.settle(
            DEFAULT_TENANT, task_id_of(task_id), request.call, given, late=request.late
        )
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
        from ops_core.schemas.agent_description import describe_agent

        return [await describe_agent(self._catalog.get(name)) for name in self._catalog.names]

    async def agent(self, name: str) -> AgentBody:
        """One agent."""
        from ops_core.schemas.agent_description import describe_agent

        return await describe_agent(self._catalog.get(name))


async def recall(engine: Engine, catalog: Catalog, asked: RecallRequest) -> Sequence[Note]:
    """The notes of an agent that are most similar to a text, with their scores.

    Raises:
        AgentNotFound: there is no such agent here.
        InvalidRequest: it remembers nothing, or the key is missing.
        RecallUnavailable: its embeddings cannot be made here, or its memory does not answer.
    """
    from ops_core.memory import opened_memory

    declared = catalog.get(asked.agent).agent.memory
    if declared is None:
        message = f"the agent {asked.agent} remembers nothing"
        raise InvalidRequest(message, field="agent")
    if declared.per is not None and not asked.key:
        message = f"a key is needed: the agent remembers for each value of the label {declared.per}"
        raise InvalidRequest(message, field="key")
    scope = Scope(tenant=DEFAULT_TENANT, agent=asked.agent, key=asked.key)
    try:
        async with opened_memory(declared, engine.store, catalog.endpoints) as memory:
            return await memory.recall(scope, asked.query, asked.limit)
    except AgentkitError as error:
        raise RecallUnavailable(str(error)) from None
