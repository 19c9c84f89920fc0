"""Operations on tasks, agents, approvals, halts, threads and notes: the protocol of every client."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from typing import Protocol

from agentkit.transcript.steps import Recorded
from ops_core.schemas import (
    BATCH_MOST,
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
)
from ops_core.schemas.queries import PAGE_DEFAULT, PAGE_MOST, checked_key


class ApprovalClient(Protocol):
    """What can be done about calls that wait for a person."""

    async def approvals(self, *, cursor: str | None = None, limit: int = PAGE_DEFAULT) -> ApprovalPage:
        """One page of open approvals, those of the newest tasks first."""
        ...

    async def answer(self, task_id: str, approval_id: str, request: ApprovalRequest) -> TaskBody:
        """Answer an open approval; the same answer again changes nothing.

        Raises:
            TaskNotFound: there is no task of this id.
            ApprovalNotFound: the task has no such approval.
            ApprovalConflict: it was answered otherwise, or the answer's digest is that of another question.
            ApprovalExpired: it is too late.
            TransitionRefused: the task has ended.
            InvalidRequest: changed arguments do not fit the tool, or its agent's policy.
        """
        ...

    async def settle(self, task_id: str, request: SettleRequest) -> TaskBody:
        """Say what came of a call that waits for a person: it is recorded as the call's result, which is not made.

        Raises:
            TaskNotFound, ApprovalNotFound, ApprovalConflict, ApprovalExpired, TransitionRefused: as :meth:`answer`.
        """
        ...


class TaskClient(Protocol):
    """What can be done with tasks."""

    async def submit(
        self, request: TaskRequest, *, idempotency_key: str | None = None, wait: int | None = None
    ) -> TaskBody:
        """Submit a task, and wait up to ``wait`` seconds (at most 60) for its end.

        Raises:
            AgentNotFound: there is no such agent.
            IdempotencyConflict: the key was used for another request.
            ThreadBusy: a task of its thread has not ended, and the server lets none wait.
        """
        ...

    async def submit_many(
        self, items: Sequence[BatchItem], *, idempotency_key: str | None = None
    ) -> Sequence[BatchResult]:
        """Submit many tasks; each is accepted or refused by itself, and the results are in the same order.

        Raises:
            IdempotencyConflict: the key was used for other tasks.
            InvalidRequest: there is a key, and one of the tasks has another one.
        """
        ...

    async def get(self, task_id: str) -> TaskBody:
        """One task, or TaskNotFound."""
        ...

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
        """One page of tasks, newest first; with ``view="basic"`` without inputs and outputs."""
        ...

    def tasks(
        self, *, status: Collection[str] = (), agent: str | None = None, label: str | None = None
    ) -> AsyncIterator[TaskBody]:
        """All tasks, newest first, page by page."""
        ...

    async def steps(self, task_id: str, after: int = -1) -> Sequence[Recorded]:
        """All steps with a number greater than ``after``, in order, or TaskNotFound."""
        ...

    def watch(self, task_id: str, after: int = -1) -> AsyncIterator[Recorded]:
        """Steps as they are recorded; ends when the task has ended and all are told. Or TaskNotFound."""
        ...

    async def wait_for_end(self, task_id: str, timeout_seconds: float | None = None) -> TaskBody:
        """The task when it has ended, or as it is after ``timeout_seconds``. Or TaskNotFound."""
        ...

    async def cancel(self, task_id: str) -> TaskBody:
        """Cancel a task; one that has ended stays as it is. Or TaskNotFound."""
        ...

    async def retry(self, task_id: str, *, idempotency_key: str | None = None) -> TaskBody:
        """The task that carries on a failed or cancelled one: a new one, or that which was made for it before.

        Raises:
            TaskNotFound: there is none of this id.
            TransitionRefused: it neither failed nor was cancelled.
            IdempotencyConflict: the key was used for another request.
        """
        ...


class BulkClient(Protocol):
    """What can be done with many tasks at once."""

    async def cancel_many(self, request: BulkRequest) -> BulkBody:
        """Cancel the tasks that fit, or count them; ``next_cursor`` leads on where there are more than 1,000.

        Raises:
            InvalidRequest: a field makes no sense, nothing is said, or all and something.
        """
        ...

    async def retry_many(self, request: BulkRequest) -> BulkBody:
        """Carry on the tasks that fit by new ones, each once, or count them; as :meth:`cancel_many`."""
        ...


class ThreadClient(Protocol):
    """What can be done with threads."""

    async def threads(self, *, cursor: str | None = None, limit: int = PAGE_DEFAULT) -> ThreadPage:
        """One page of threads, those first in which something happened last."""
        ...

    async def thread(self, thread_id: str) -> ThreadBody:
        """One thread, or ThreadNotFound."""
        ...

    async def delete_thread(self, thread_id: str) -> int:
        """Delete a thread with its tasks; how many tasks it were.

        Raises:
            ThreadNotFound: there is none of this id.
            ThreadBusy: a task of it has not ended.
        """
        ...


class NoteClient(Protocol):
    """What can be done with what agents remember in the platform's database."""

    async def notes(
        self,
        *,
        agent: str | None = None,
        key: str | None = None,
        cursor: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> NotePage:
        """One page of notes, the newest first."""
        ...

    async def recall(self, request: RecallRequest) -> Sequence[NoteBody]:
        """The notes of an agent that are most similar to a text, with their scores, as a run of it would recall them.

        Raises:
            AgentNotFound: there is no such agent.
            InvalidRequest: it remembers nothing, or the key is missing.
            RecallUnavailable: its embeddings cannot be made, or its memory does not answer.
        """
        ...

    async def forget(
        self,
        *,
        agent: str | None = None,
        key: str | None = None,
        ids: Collection[str] = (),
        everything: bool = False,
    ) -> int:
        """Delete the notes that fit all that is given, or ``everything``; how many it were.

        Raises:
            InvalidRequest: nothing is said, or everything and something.
        """
        ...


class HaltClient(Protocol):
    """What can be halted."""

    async def halt(self, request: HaltRequest, *, idempotency_key: str | None = None) -> HaltBody:
        """Halt a task, an agent, a tool, an MCP server, or everything.

        When this returns, no worker claims anything that is halted, and none makes a call that it holds and that may
        change something; what is under way is let go, or cancelled, within a second.

        Raises:
            TaskNotFound: there is no task of this id.
            TransitionRefused: the task has ended.
            IdempotencyConflict: the key was used for another halt.
            InvalidRequest: a field makes no sense.
        """
        ...

    async def halts(
        self, *, in_force: bool = True, cursor: str | None = None, limit: int = PAGE_DEFAULT
    ) -> HaltPage:
        """One page of halts, the newest first."""
        ...

    async def lift(self, halt_id: str, request: LiftRequest) -> HaltBody:
        """Lift a halt, or HaltNotFound; one that was lifted before stays as it is."""
        ...


class AgentClient(Protocol):
    """What can be asked about agents, about what they spend, and about the workers that run them."""

    async def agents(self) -> Sequence[AgentBody]:
        """All agents."""
        ...

    async def agent(self, name: str) -> AgentBody:
        """One agent, or AgentNotFound."""
        ...

    async def spending(self) -> SpendingBody:
        """What was spent today (UTC) on calls of models, and what may be spent."""
        ...

    async def workers(self) -> Sequence[WorkerBody]:
        """Workers by name: those that are alive, that fell silent lately, or that hold a lease; and what they hold."""
        ...


class Operations(
    TaskClient, BulkClient, ApprovalClient, HaltClient, ThreadClient, NoteClient, AgentClient, Protocol
):
    """What can be done with tasks and agents, wherever they are.

    Every method may raise StoreUnavailable, and ServerUnavailable where there is a server.
    """


async def whole_batch(
    items: Sequence[BatchItem],
    send: Callable[[Sequence[BatchItem], str | None], Awaitable[Sequence[BatchResult]]],
    idempotency_key: str | None = None,
) -> Sequence[BatchResult]:
    """The results of all, sent in as many batches as it takes.

    Args:
        items: the tasks.
        send: submits a batch under a key.
        idempotency_key: of all; each batch after the first has one that is made from it.
    """
    key = None if idempotency_key is None else checked_key(idempotency_key)
    results = list[BatchResult]()
    for first in range(0, len(items), BATCH_MOST):
        if key is not None and first:
            key = hashlib.sha256(f"{idempotency_key} {first}".encode()).hexdigest()
        results += await send(items[first : first + BATCH_MOST], key)
    return results


def with_keys(items: Sequence[BatchItem]) -> Iterator[BatchItem]:
    """Each with a key, its own or a new one: a batch that is sent again cannot make a task twice."""
    for item in items:
        if item.idempotency_key is not None:
            yield item
        else:
            yield item.model_copy(update={"idempotency_key": uuid.uuid4().hex})


async def all_tasks(
    client: Operations, status: Collection[str], agent: str | None, label: str | None
) -> AsyncGenerator[TaskBody, None]:
    """All tasks, newest first."""
    cursor: str | None = None
    while True:
        page = await client.list(status=status, agent=agent, label=label, cursor=cursor, limit=PAGE_MOST)
        for task in page.items:
            yield task
        cursor = page.next_cursor
        if cursor is None:
            return
