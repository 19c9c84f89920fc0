"""Service of tasks: each method translates, and calls one verb of the engine."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial

from agentkit.tracing import Trace
from ops_core.assembly import Ops
from ops_core.concurrency.offload import Offload
from ops_core.concurrency.shutdown import until_closing
from ops_core.errors import InvalidRequest
from ops_core.ports import PAGE_BYTES
from ops_core.protocol.bulk import handled_out, selection_in
from ops_core.protocol.tasks import (
    answer_in,
    approval_out,
    batch_in,
    request_in,
    result_out,
    settle_in,
    step_out,
    task_out,
)
from ops_core.protocol.v1 import task_service_pb2 as messages
from ops_core.protocol.v1.task_service_pb2_grpc import TaskServiceServicer
from ops_core.protocol.values import status_in, status_out
from ops_core.rpc.call_guard import Answering, Context
from ops_core.schemas import BATCH_MOST, MAX_SEQ, STEPS_MOST, StepPage, TaskBody
from ops_core.schemas.queries import PAGE_DEFAULT, PAGE_MOST, checked_key, task_id_of
from ops_core.service import LocalClient, accept, accept_many, ended_or_not
from ops_core.task import DEFAULT_TENANT


class TaskService(TaskServiceServicer):
    """``opspawn.v1.TaskService``.

    Args:
        ops: the platform.
        closing: set when the server stops; whoever waits or watches is then answered at once.
    """

    def __init__(self, ops: Ops, closing: asyncio.Event) -> None:
        self._ops = ops
        self._engine = ops.engine
        self._verbs = LocalClient(ops.engine, ops.catalog)
        self._closing = closing
        self._answering = Answering(ops.settings.max_body_bytes)
        self._offload = Offload()

    async def CreateTask(  # noqa: N802  (the contract names it)
        self, request: messages.CreateTaskRequest, context: Context
    ) -> messages.CreateTaskResponse:
        """Submit a task, and wait for its end where that is wanted."""
        async with self._answering(request, context):
            key = checked_key(request.idempotency_key) if request.HasField("idempotency_key") else None
            wait = _wait(request)
            asked = await self._offload(request.ByteSize(), partial(request_in, request))
            trace = _trace(context)
            inserted = await accept(self._engine, self._ops.catalog, asked, key, trace)
            task = inserted.task
            if wait is not None:
                task = await ended_or_not(self._engine, task, wait, self._closing)
            return messages.CreateTaskResponse(task=task_out(TaskBody.of(task)), created=inserted.created)

    async def BatchCreateTasks(  # noqa: N802  (as above)
        self, request: messages.BatchCreateTasksRequest, context: Context
    ) -> messages.BatchCreateTasksResponse:
        """Submit many."""
        async with self._answering(request, context, max_bytes=self._ops.settings.max_batch_bytes):
            if not 1 <= len(request.requests) <= BATCH_MOST:
                message = f"requests must hold 1 to {BATCH_MOST} tasks"
                raise InvalidRequest(message, field="requests")
            items = await self._offload(
                request.ByteSize(), lambda: [batch_in(one) for one in request.requests]
            )
            key = checked_key(request.idempotency_key) if request.HasField("idempotency_key") else None
            results = await accept_many(
                self._engine, self._ops.catalog, items, _trace(context), idempotency_key=key
            )
            return messages.BatchCreateTasksResponse(results=[result_out(result) for result in results])

    async def GetTask(  # noqa: N802  (as above)
        self, request: messages.GetTaskRequest, context: Context
    ) -> messages.GetTaskResponse:
        """One task."""
        async with self._answering(request, context):
            return messages.GetTaskResponse(task=task_out(await self._verbs.get(request.task_id)))

    async def ListTasks(  # noqa: N802  (as above)
        self, request: messages.ListTasksRequest, context: Context
    ) -> messages.ListTasksResponse:
        """A page of tasks."""
        async with self._answering(request, context):
            page = await self._verbs.list(
                status=[status_in(status) for status in request.statuses],
                agent=request.agent if request.HasField("agent") else None,
                label=request.label if request.HasField("label") else None,
                thread_id=request.thread_id if request.HasField("thread_id") else None,
                cursor=request.page_token or None,
                limit=min(request.page_size or PAGE_DEFAULT, PAGE_MOST),
                view="basic" if request.without_texts else "full",
            )
            tasks = await self._offload(PAGE_BYTES, lambda: [task_out(task) for task in page.items])
            return messages.ListTasksResponse(tasks=tasks, next_page_token=page.next_cursor or "")

    async def CancelTask(  # noqa: N802  (as above)
        self, request: messages.CancelTaskRequest, context: Context
    ) -> messages.CancelTaskResponse:
        """Cancel a task."""
        async with self._answering(request, context):
            return messages.CancelTaskResponse(task=task_out(await self._verbs.cancel(request.task_id)))

    async def RetryTask(  # noqa: N802  (as above)
        self, request: messages.RetryTaskRequest, context: Context
    ) -> messages.RetryTaskResponse:
        """The task that carries on another one."""
        async with self._answering(request, context):
            key = checked_key(request.idempotency_key) if request.HasField("idempotency_key") else None
            inserted = await self._engine.retry(DEFAULT_TENANT, task_id_of(request.task_id), key)
            task = task_out(TaskBody.of(inserted.task))
            return messages.RetryTaskResponse(task=task, created=inserted.created)

    async def CancelTasks(  # noqa: N802  (as above)
        self, request: messages.CancelTasksRequest, context: Context
    ) -> messages.CancelTasksResponse:
        """Cancel the tasks that fit."""
        async with self._answering(request, context):
            body = await self._verbs.cancel_many(selection_in(request.selection))
            return messages.CancelTasksResponse(handled=handled_out(body))

    async def RetryTasks(  # noqa: N802  (as above)
        self, request: messages.RetryTasksRequest, context: Context
    ) -> messages.RetryTasksResponse:
        """Carry on the tasks that fit."""
        async with self._answering(request, context):
            body = await self._verbs.retry_many(selection_in(request.selection))
            return messages.RetryTasksResponse(handled=handled_out(body))

    async def AnswerApproval(  # noqa: N802  (as above)
        self, request: messages.AnswerApprovalRequest, context: Context
    ) -> messages.AnswerApprovalResponse:
        """Answer an open approval."""
        async with self._answering(request, context):
            task = await self._verbs.answer(request.task_id, request.approval_id, answer_in(request))
            return messages.AnswerApprovalResponse(task=task_out(task))

    async def SettleCall(  # noqa: N802  (as above)
        self, request: messages.SettleCallRequest, context: Context
    ) -> messages.SettleCallResponse:
        """Say what came of a call."""
        async with self._answering(request, context):
            task = await self._verbs.settle(request.task_id, settle_in(request))
            return messages.SettleCallResponse(task=task_out(task))

    async def ListApprovals(  # noqa: N802  (as above)
        self, request: messages.ListApprovalsRequest, context: Context
    ) -> messages.ListApprovalsResponse:
        """A page of open approvals."""
        async with self._answering(request, context):
            limit = min(request.page_size or PAGE_DEFAULT, PAGE_MOST)
            page = await self._verbs.approvals(cursor=request.page_token or None, limit=limit)
            return messages.ListApprovalsResponse(
                approvals=[approval_out(approval) for approval in page.items],
                next_page_token=page.next_cursor or "",
            )

    async def ListSteps(  # noqa: N802  (as above)
        self, request: messages.ListStepsRequest, context: Context
    ) -> messages.ListStepsResponse:
        """A page of steps."""
        async with self._answering(request, context):
            if request.page_size < 0:
                message = "page_size must not be negative"
                raise InvalidRequest(message, field="page_size")
            limit = min(request.page_size or STEPS_MOST, STEPS_MOST)
            task_id, after = task_id_of(request.task_id), _after(request)
            found = await self._engine.steps(DEFAULT_TENANT, task_id, after, limit)
            steps = await self._offload(PAGE_BYTES, lambda: [step_out(recorded) for recorded in found])
            return messages.ListStepsResponse(steps=steps, next_after=StepPage.following(found))

    # A coroutine that writes, no generator: a caller who goes away cancels it where it stands, and nothing of it is
    # left behind; each write waits until the caller has room for it.
    async def WatchTask(  # type: ignore[override]  # noqa: N802  (as above)
        self, request: messages.WatchTaskRequest, context: Context
    ) -> None:
        """Steps as they are recorded, then the status with which the task ended."""
        async with self._answering(request, context), until_closing(self._closing):
            task_id = task_id_of(request.task_id)
            async with aclosing(self._engine.watch(DEFAULT_TENANT, task_id, _after(request))) as steps:
                async for recorded in steps:
                    await context.write(messages.WatchTaskResponse(step=step_out(recorded)))
            task = await self._engine.get(DEFAULT_TENANT, task_id)
            await context.write(messages.WatchTaskResponse(end=status_out(task.status)))


def _trace(context: Context) -> Trace | None:
    """That of the caller, in the metadata of the call."""
    told: dict[str, list[str]] = {}
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            told.setdefault(name, []).append(value)
    parents = told.get("traceparent", [])
    return Trace.parse(parents[0], ",".join(told.get("tracestate", []))) if len(parents) == 1 else None


def _wait(request: messages.CreateTaskRequest) -> int | None:
    if not request.HasField("wait_seconds"):
        return None
    if request.wait_seconds < 0:
        message = "wait_seconds must not be negative"
        raise InvalidRequest(message, field="wait_seconds")
    return request.wait_seconds


def _after(request: messages.ListStepsRequest | messages.WatchTaskRequest) -> int:
    if not request.HasField("after"):
        return -1
    if not -1 <= request.after <= MAX_SEQ:
        message = f"after must be from -1 to {MAX_SEQ}"
        raise InvalidRequest(message, field="after")
    return request.after
