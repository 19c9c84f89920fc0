"""Client of a server over gRPC. Needs the extra ``opspawn[grpc]``."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import Message
from grpc import aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from agentkit.errors import TranscriptError
from agentkit.tracing import Trace
from agentkit.transcript.steps import Recorded
from ops_core.bulk import BulkVerb
from ops_core.client.retry import REPEATED_SOON, Interrupted, Repeater, end_of
from ops_core.errors import ConfigError, InvalidRequest, OpsError, ServerUnavailable
from ops_core.operations import all_tasks, whole_batch, with_keys
from ops_core.problem_details import ERRORS
from ops_core.protocol.bulk import handled_in, selection_out
from ops_core.protocol.errors import DETAILS, problem_in
from ops_core.protocol.halts import halt_in, halt_request_out
from ops_core.protocol.notes import note_in, spending_in
from ops_core.protocol.tasks import (
    agent_in,
    answer_out,
    approval_in,
    request_out,
    result_in,
    settle_out,
    step_in,
    task_in,
    thread_in,
)
from ops_core.protocol.v1 import (
    agent_service_pb2,
    halt_service_pb2,
    memory_service_pb2,
    spending_service_pb2,
    task_service_pb2,
    thread_service_pb2,
    worker_service_pb2,
)
from ops_core.protocol.v1.agent_service_pb2_grpc import AgentServiceStub
from ops_core.protocol.v1.halt_service_pb2_grpc import HaltServiceStub
from ops_core.protocol.v1.memory_service_pb2_grpc import MemoryServiceStub
from ops_core.protocol.v1.spending_service_pb2_grpc import SpendingServiceStub
from ops_core.protocol.v1.task_service_pb2_grpc import TaskServiceStub
from ops_core.protocol.v1.thread_service_pb2_grpc import ThreadServiceStub
from ops_core.protocol.v1.worker_service_pb2_grpc import WorkerServiceStub
from ops_core.protocol.values import status_out
from ops_core.protocol.workers import worker_in
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
from ops_core.task import RetryPolicy

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Value = TypeVar("Value")

DEFAULT_PORT = 8701

_TIMEOUT_SECONDS = 30.0
_BULK_SECONDS = 120.0
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # the server is on the loopback
    ("grpc.max_receive_message_length", -1),  # a task may be as large as it is
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 20_000),  # a watcher finds out when the machine of the server is gone
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 100),  # how long to wait is the repeater's to say
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
)


class GrpcClient:
    """A :class:`Client` of a server; an async context manager.

    What may be repeated is repeated when an answer is lost; a submit always carries an idempotency key, so that a
    repeated one cannot make a second task.

    Args:
        url: of the server, for example ``grpc://127.0.0.1:8701``.
        retry: how long to wait before a request is repeated or a stream opened again.

    Raises:
        ConfigError: the URL names no server.
    """

    def __init__(self, url: str, *, retry: RetryPolicy = REPEATED_SOON) -> None:
        target = _target(url)
        self._address = f"grpc://{target}"
        self._repeater = Repeater(self._address, retry)
        self._channel = aio.insecure_channel(target, options=_OPTIONS)
        self._tasks = TaskServiceStub(self._channel)
        self._agents = AgentServiceStub(self._channel)
        self._threads = ThreadServiceStub(self._channel)
        self._memory = MemoryServiceStub(self._channel)
        self._halts = HaltServiceStub(self._channel)
        self._spending = SpendingServiceStub(self._channel)
        self._workers = WorkerServiceStub(self._channel)
        self._health: Any = HealthStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def submit(
        self, request: TaskRequest, *, idempotency_key: str | None = None, wait: int | None = None
    ) -> TaskBody:
        """Submit a task."""
        key = uuid.uuid4().hex if idempotency_key is None else checked_key(idempotency_key)
        asked = request_out(request, key)
        if wait is not None:
            asked.wait_seconds = wait
        timeout = _TIMEOUT_SECONDS + (wait or 0)
        answer = await self._ask(self._tasks.CreateTask, asked, timeout=timeout, trace=Trace.current())
        return self._read(task_in, answer.task)

    async def submit_many(
        self, items: Sequence[BatchItem], *, idempotency_key: str | None = None
    ) -> Sequence[BatchResult]:
        """Submit many tasks."""
        return await whole_batch(items, self._submit_batch, idempotency_key)

    async def _submit_batch(self, items: Sequence[BatchItem], key: str | None) -> Sequence[BatchResult]:
        keyed = items if key is not None else with_keys(items)
        requests = [request_out(item, item.idempotency_key) for item in keyed]
        asked = task_service_pb2.BatchCreateTasksRequest(requests=requests, idempotency_key=key)
        answer = await self._ask(self._tasks.BatchCreateTasks, asked, trace=Trace.current())
        return [self._read(result_in, result) for result in answer.results]

    async def get(self, task_id: str) -> TaskBody:
        """One task."""
        asked = task_service_pb2.GetTaskRequest(task_id=task_id_of(task_id))
        return self._read(task_in, (await self._ask(self._tasks.GetTask, asked)).task)

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
        of = {"agent": agent, "label": label, "thread_id": thread_id}
        task_filter(status=status, cursor=cursor, limit=limit, view=view, **of)
        asked = task_service_pb2.ListTasksRequest(
            page_size=limit,
            without_texts=view == "basic",
            page_token=cursor or "",
            statuses=[status_out(one) for one in status],
            **of,
        )
        answer = await self._ask(self._tasks.ListTasks, asked)
        items = [self._read(task_in, task) for task in answer.tasks]
        return TaskPage(items=items, next_cursor=answer.next_page_token or None)

    def tasks(
        self, *, status: Collection[str] = (), agent: str | None = None, label: str | None = None
    ) -> AsyncIterator[TaskBody]:
        """All tasks."""
        return all_tasks(self, status, agent, label)

    async def steps(self, task_id: str, after: int = -1) -> Sequence[Recorded]:
        """All steps."""
        found: list[Recorded] = []
        asked = task_service_pb2.ListStepsRequest(task_id=task_id_of(task_id), after=after)
        while True:
            page = await self._ask(self._tasks.ListSteps, asked)
            found += [self._read(step_in, step) for step in page.steps]
            if not page.HasField("next_after"):
                return found
            asked.after = page.next_after

    def watch(self, task_id: str, after: int = -1) -> AsyncIterator[Recorded]:
        """Steps as they are recorded; a broken stream is opened again after the last step that arrived."""
        return self._repeater.follow(task_id, after, partial(self._stream, task_id))

    async def wait_for_end(self, task_id: str, timeout_seconds: float | None = None) -> TaskBody:
        """The task when it has ended."""
        return await end_of(self, task_id, timeout_seconds)

    async def cancel(self, task_id: str) -> TaskBody:
        """Cancel a task."""
        asked = task_service_pb2.CancelTaskRequest(task_id=task_id_of(task_id))
        return self._read(task_in, (await self._ask(self._tasks.CancelTask, asked)).task)

    async def retry(self, task_id: str, *, idempotency_key: str | None = None) -> TaskBody:
        """The task that carries on another one."""
        key = None if idempotency_key is None else checked_key(idempotency_key)
        asked = task_service_pb2.RetryTaskRequest(task_id=task_id_of(task_id), idempotency_key=key)
        answer = await self._ask(self._tasks.RetryTask, asked)
        return self._read(task_in, answer.task)

    async def cancel_many(self, request: BulkRequest) -> BulkBody:
        """Cancel the tasks that fit."""
        selection_of(BulkVerb.CANCEL, request)
        asked = task_service_pb2.CancelTasksRequest(selection=selection_out(request))
        answer = await self._ask(self._tasks.CancelTasks, asked, timeout=_BULK_SECONDS)
        return self._read(handled_in, answer.handled)

    async def retry_many(self, request: BulkRequest) -> BulkBody:
        """Carry on the tasks that fit."""
        selection_of(BulkVerb.RETRY, request)
        asked = task_service_pb2.RetryTasksRequest(selection=selection_out(request))
        answer = await self._ask(self._tasks.RetryTasks, asked, timeout=_BULK_SECONDS)
        return self._read(handled_in, answer.handled)

    async def answer(self, task_id: str, approval_id: str, request: ApprovalRequest) -> TaskBody:
        """Answer an open approval."""
        asked = answer_out(task_id_of(task_id), approval_id, request)
        return self._read(task_in, (await self._ask(self._tasks.AnswerApproval, asked)).task)

    async def settle(self, task_id: str, request: SettleRequest) -> TaskBody:
        """Say what came of a call."""
        asked = settle_out(task_id_of(task_id), request)
        return self._read(task_in, (await self._ask(self._tasks.SettleCall, asked)).task)

    async def approvals(self, *, cursor: str | None = None, limit: int = PAGE_DEFAULT) -> ApprovalPage:
        """One page of open approvals."""
        approval_filter(cursor=cursor, limit=limit)
        asked = task_service_pb2.ListApprovalsRequest(page_size=limit, page_token=cursor or "")
        answer = await self._ask(self._tasks.ListApprovals, asked)
        items = [self._read(approval_in, approval) for approval in answer.approvals]
        return ApprovalPage(items=items, next_cursor=answer.next_page_token or None)

    async def halt(self, request: HaltRequest, *, idempotency_key: str | None = None) -> HaltBody:
        """Halt something."""
        request.as_new()
        key = uuid.uuid4().hex if idempotency_key is None else checked_key(idempotency_key)
        answer = await self._ask(self._halts.CreateHalt, halt_request_out(request, key))
        return self._read(halt_in, answer.halt)

    async def halts(
        self, *, in_force: bool = True, cursor: str | None = None, limit: int = PAGE_DEFAULT
    ) -> HaltPage:
        """One page of halts."""
        halt_filter(in_force=in_force, cursor=cursor, limit=limit)
        asked = halt_service_pb2.ListHaltsRequest(
            page_size=limit, page_token=cursor or "", lifted=not in_force
        )
        answer = await self._ask(self._halts.ListHalts, asked)
        items = [self._read(halt_in, halt) for halt in answer.halts]
        return HaltPage(items=items, next_cursor=answer.next_page_token or None)

    async def lift(self, halt_id: str, request: LiftRequest) -> HaltBody:
        """Lift a halt."""
        asked = halt_service_pb2.LiftHaltRequest(
            halt_id=halt_id_of(halt_id), reason=request.reason, by=request.by
        )
        return self._read(halt_in, (await self._ask(self._halts.LiftHalt, asked)).halt)

    async def threads(self, *, cursor: str | None = None, limit: int = PAGE_DEFAULT) -> ThreadPage:
        """One page of threads."""
        thread_filter(cursor=cursor, limit=limit)
        asked = thread_service_pb2.ListThreadsRequest(page_size=limit, page_token=cursor or "")
        answer = await self._ask(self._threads.ListThreads, asked)
        items = [thread_in(thread) for thread in answer.threads]
        return ThreadPage(items=items, next_cursor=answer.next_page_token or None)

    async def thread(self, thread_id: str) -> ThreadBody:
        """One thread."""
        asked = thread_service_pb2.GetThreadRequest(thread_id=thread_id_of(thread_id))
        return thread_in((await self._ask(self._threads.GetThread, asked)).thread)

    async def delete_thread(self, thread_id: str) -> int:
        """Delete a thread and its tasks. Not repeated by itself: the second time it would not be there."""
        asked = thread_service_pb2.DeleteThreadRequest(thread_id=thread_id_of(thread_id))
        return (await self._ask(self._threads.DeleteThread, asked, repeatable=False)).tasks

    async def notes(
        self,
        *,
        agent: str | None = None,
        key: str | None = None,
        cursor: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> NotePage:
        """One page of notes."""
        note_filter(agent=agent, key=key, cursor=cursor, limit=limit)
        asked = memory_service_pb2.ListNotesRequest(
            page_size=limit, page_token=cursor or "", agent=agent, key=key
        )
        answer = await self._ask(self._memory.ListNotes, asked)
        return NotePage(
            items=[note_in(note) for note in answer.notes], next_cursor=answer.next_page_token or None
        )

    async def recall(self, request: RecallRequest) -> Sequence[NoteBody]:
        """The most similar notes of an agent."""
        asked = memory_service_pb2.RecallNotesRequest(**request.model_dump())
        return [note_in(note) for note in (await self._ask(self._memory.RecallNotes, asked)).notes]

    async def forget(
        self,
        *,
        agent: str | None = None,
        key: str | None = None,
        ids: Collection[str] = (),
        everything: bool = False,
    ) -> int:
        """Delete notes. Not repeated by itself: the second time they would not be there to be counted."""
        notes_to_forget(agent=agent, key=key, ids=ids, everything=everything)
        asked = memory_service_pb2.ForgetNotesRequest(agent=agent, key=key, ids=ids, all=everything)
        return (await self._ask(self._memory.ForgetNotes, asked, repeatable=False)).notes

    async def spending(self) -> SpendingBody:
        """What was spent today."""
        answer = await self._ask(self._spending.GetSpending, spending_service_pb2.GetSpendingRequest())
        return self._read(spending_in, answer.spending)

    async def workers(self) -> Sequence[WorkerBody]:
        """Workers by name."""
        answer = await self._ask(self._workers.ListWorkers, worker_service_pb2.ListWorkersRequest())
        return [self._read(worker_in, worker) for worker in answer.workers]

    async def agents(self) -> Sequence[AgentBody]:
        """All agents."""
        answer = await self._ask(self._agents.ListAgents, agent_service_pb2.ListAgentsRequest())
        return [agent_in(agent) for agent in answer.agents]

    async def agent(self, name: str) -> AgentBody:
        """One agent."""
        asked = agent_service_pb2.GetAgentRequest(name=name)
        return agent_in((await self._ask(self._agents.GetAgent, asked)).agent)

    async def check(self) -> None:
        """Whether the server can work.

        Raises:
            ServerUnavailable: it cannot, or it does not answer.
        """
        answer: HealthCheckResponse = await self._ask(self._health.Check, HealthCheckRequest())
        if answer.status != HealthCheckResponse.SERVING:
            message = f"{self._address} cannot work now"
            raise ServerUnavailable(message)

    # --- the wire -------------------------------------------------------------------------------------------------

    async def _ask(
        self,
        method: Callable[..., Awaitable[Response]],
        asked: Message,
        *,
        timeout: float = _TIMEOUT_SECONDS,
        repeatable: bool = True,
        trace: Trace | None = None,
    ) -> Response:
        metadata = None if trace is None else tuple(trace.headers.items())

        async def once() -> Response:
            try:
                return await method(asked, timeout=timeout, metadata=metadata)
            except aio.AioRpcError as error:
                raise self._error_of(error) from None

        return await self._repeater.ask(once, repeatable=repeatable)

    async def _stream(self, task_id: str, after: int) -> AsyncGenerator[Recorded]:
        """Steps until the end; a stream that breaks off before it was interrupted."""
        asked = task_service_pb2.WatchTaskRequest(task_id=task_id_of(task_id), after=after)
        watching = self._tasks.WatchTask(asked)
        try:
            async for event in watching:
                if event.HasField("end"):
                    return
                yield self._read(step_in, event.step)
        except aio.AioRpcError as error:
            raise self._error_of(error) from None
        finally:
            watching.cancel()
        raise Interrupted(ServerUnavailable("it ended too early"))

    def _read(self, reader: Callable[[Request], Value], told: Request) -> Value:
        try:
            return reader(told)
        except (ValueError, TranscriptError):
            message = f"{self._address} answered, but not as a server of this release does"
            raise ServerUnavailable(message) from None

    def _error_of(self, error: aio.AioRpcError) -> OpsError | Interrupted:
        """What the server has raised, or what has happened on the way."""
        status, text = error.code(), error.details() or ""
        details = dict(error.trailing_metadata()).get(DETAILS)
        told = problem_in(details if isinstance(details, bytes) else None)
        known = ERRORS.get(told.code)
        if known is not None:
            raised = known(text, field=told.field)
            return Interrupted(raised) if status is grpc.StatusCode.UNAVAILABLE else raised
        if status in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED):
            return InvalidRequest(text, field=told.field)
        if status in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        ):
            return Interrupted(ServerUnavailable(f"{self._address} does not answer: {text}"))
        message = f"{self._address} answered {status.name}, not as a server of Opspawn does"
        return ServerUnavailable(message)


def _target(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    else:
        if parts.scheme != "grpc" or parts.username is not None or parts.path not in ("", "/") or parts.query:
            host = None
    if not host:
        message = "the URL of a server over gRPC is grpc://HOST:PORT"
        raise ConfigError(message, field="url")
    return f"{f'[{host}]' if ':' in host else host}:{DEFAULT_PORT if port is None else port}"
