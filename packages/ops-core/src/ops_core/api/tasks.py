"""Routes of tasks: each translates, and calls one verb of the engine.

The routes of verbs on many tasks at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastapi import FastAPI, Request, Response

from agentkit.tracing import Trace
from ops_core.api.connections import unless_gone
from ops_core.api.openapi import APPROVALS, TASKS, location, reading, writing
from ops_core.api.parameters import (
    After,
    ApprovalId,
    Cursor,
    IdempotencyKey,
    Label,
    OfAgent,
    OfThread,
    PageLimit,
    Prefer,
    Statuses,
    StepsLimit,
    TaskId,
    Traceparent,
    Tracestate,
    View,
    key_of,
    wait_of,
)
from ops_core.assembly import Ops
from ops_core.client import Operations
from ops_core.concurrency.offload import Offload
from ops_core.ports import PAGE_BYTES
from ops_core.schemas import (
    STEPS_MOST,
    ApprovalPage,
    ApprovalRequest,
    BatchBody,
    BatchRequest,
    BulkBody,
    BulkRequest,
    SettleRequest,
    StepPage,
    TaskBody,
    TaskPage,
    TaskRequest,
)
from ops_core.schemas.queries import PAGE_DEFAULT, approval_filter, task_filter, task_id_of
from ops_core.service import accept, accept_many, answer, batch_result, ended_or_not
from ops_core.task import DEFAULT_TENANT, Task


class TaskRoutes:
    """The routes below ``/tasks``, without the events.

    Args:
        ops: the platform.
        closing: set when the server stops; whoever waits is then answered at once.
        offload: writes pages.
    """

    def __init__(self, ops: Ops, closing: asyncio.Event, offload: Offload) -> None:
        self._ops = ops
        self._offload = offload
        self._engine = ops.engine
        self._closing = closing

    def add_to(self, app: FastAPI) -> None:
        """Add them to ``app``."""
        one = f"{TASKS}/{{task_id}}"
        submitted = writing("submit_task", 409)
        headers = location("Where the task is.")
        submitted["responses"][200] = {
            "description": "The task that was submitted before with this `Idempotency-Key`.",
            "model": TaskBody,
            "headers": headers,
        }
        submitted["responses"][202] = {
            "description": "The task is accepted, and durable.",
            "headers": headers,
        }
        retried = writing("retry_task", 404, 409, body=False)
        retried["responses"][200] = {
            "description": "The task that carries it on already.",
            "model": TaskBody,
            "headers": headers,
        }
        retried["responses"][202] = {"description": "The new task is accepted.", "headers": headers}
        app.add_api_route(TASKS, self.submit, status_code=202, **submitted)
        app.add_api_route(f"{TASKS}:batch", self.submit_many, **writing("submit_tasks"))
        app.add_api_route(TASKS, self.list_tasks, response_model=TaskPage, **reading("list_tasks"))
        app.add_api_route(one, self.get, **reading("get_task", 404))
        steps = reading("list_steps", 404)
        app.add_api_route(f"{one}/steps", self.steps, response_model=StepPage, **steps)
        app.add_api_route(f"{one}/cancel", self.cancel, **writing("cancel_task", 404, body=False))
        app.add_api_route(f"{one}/retry", self.retry, status_code=202, **retried)
        app.add_api_route(f"{one}/settle", self.settle, **writing("settle_call", 404, 409))
        app.add_api_route(APPROVALS, self.approvals, **reading("list_approvals"))
        app.add_api_route(
            f"{one}/approvals/{{approval_id:path}}", self.answer, **writing("answer_approval", 404, 409)
        )

    async def submit(
        self,
        request: TaskRequest,
        response: Response,
        http: Request,
        idempotency_key: IdempotencyKey = None,
        prefer: Prefer = None,
        traceparent: Traceparent = None,
        tracestate: Tracestate = None,
    ) -> TaskBody:
        """Submit a task.

        It is durable when this answers. With an `Idempotency-Key` a repeated request finds its task (200) instead of
        making another one; the same key with another body is refused (422).

        With a `thread_id` it goes on with a conversation. Where another task of the thread has not ended, it waits for
        its turn, or is refused (409): the server's `OPSPAWN_THREAD_BUSY` says which.
        """
        wait = wait_of(prefer)
        key, trace = key_of(idempotency_key), Trace.parse(traceparent, tracestate)
        inserted = await accept(self._engine, self._ops.catalog, request, key, trace)
        task = inserted.task
        if wait is not None:
            waiting = ended_or_not(self._engine, task, wait, self._closing)
            task = await unless_gone(http, waiting) or task
            response.headers["Preference-Applied"] = f"wait={wait}"
        response.headers["Location"] = _address(task)
        if not inserted.created:
            response.status_code = 200
        return TaskBody.of(task)

    async def submit_many(
        self,
        request: BatchRequest,
        idempotency_key: IdempotencyKey = None,
        traceparent: Traceparent = None,
        tracestate: Tracestate = None,
    ) -> BatchBody:
        """Submit up to 1000 tasks at once.

        Each is accepted or refused by itself, and `items` tells in the same order what became of it: the status that a
        request of its own would have been answered, and the task's id or the problem. With an `Idempotency-Key`, or
        where each has an `idempotency_key`, a batch that is sent again finds its tasks. 503 for the whole says that not
        one of them could be stored.
        """
        trace, key = Trace.parse(traceparent, tracestate), key_of(idempotency_key)
        results = await accept_many(
            self._engine, self._ops.catalog, request.tasks, trace, idempotency_key=key
        )
        return BatchBody(items=[batch_result(result) for result in results])

    async def list_tasks(
        self,
        status: Statuses = None,
        agent: OfAgent = None,
        label: Label = None,
        thread_id: OfThread = None,
        cursor: Cursor = None,
        limit: PageLimit = PAGE_DEFAULT,
        view: View = "full",
    ) -> Response:
        """Tasks, newest first. A filter that is left out does not filter.

        A page ends before `limit` where its inputs and outputs exceed 2 MiB; `next_cursor` then leads on. With
        `view=basic` inputs and outputs are `null`.
        """
        wanted = [value for values in status or () for value in values.split(",")]
        of = {"agent": agent, "label": label, "thread_id": thread_id, "cursor": cursor}
        asked = task_filter(status=wanted, limit=limit, view=view, **of)
        tasks = await self._engine.list(DEFAULT_TENANT, asked)
        return await self._page(lambda: TaskPage.of(tasks, asked))

    async def _page(self, page: Callable[[], TaskPage | StepPage]) -> Response:
        text = await self._offload(PAGE_BYTES, lambda: page().model_dump_json())
        return Response(text, media_type="application/json")

    async def get(self, task_id: TaskId) -> TaskBody:
        """One task."""
        return TaskBody.of(await self._engine.get(DEFAULT_TENANT, task_id_of(task_id)))

    async def steps(self, task_id: TaskId, after: After = -1, limit: StepsLimit = STEPS_MOST) -> Response:
        """What is recorded of a task, in order."""
        found = await self._engine.steps(DEFAULT_TENANT, task_id_of(task_id), after, limit)
        return await self._page(lambda: StepPage.of(found))

    async def cancel(self, task_id: TaskId) -> TaskBody:
        """Cancel a task.

        One that no worker holds ends at once. The worker of a running one is asked to end it: the answer may still
        say `running`. One that has ended stays as it is.
        """
        return TaskBody.of(await self._engine.cancel(DEFAULT_TENANT, task_id_of(task_id)))

    async def retry(
        self, task_id: TaskId, response: Response, idempotency_key: IdempotencyKey = None
    ) -> TaskBody:
        """A new task that carries on what a failed or cancelled one has recorded, with a budget of its own.

        A task is retried once: who asks again is told the task that carries it on (200), with an `Idempotency-Key` or
        without. Approvals that were given are used by that one. After a cancellation they are void.
        """
        inserted = await self._engine.retry(DEFAULT_TENANT, task_id_of(task_id), key_of(idempotency_key))
        response.headers["Location"] = _address(inserted.task)
        if not inserted.created:
            response.status_code = 200
        return TaskBody.of(inserted.task)

    async def answer(self, task_id: TaskId, approval_id: ApprovalId, request: ApprovalRequest) -> TaskBody:
        """Answer an open approval; the task goes on.

        The call is carried out with the arguments that were shown, or with `arguments` of the answer. The first answer
        counts: the same one again changes nothing, another one is refused (409), and so is one that comes too late.
        """
        task = await answer(self._engine, self._ops.catalog, task_id_of(task_id), approval_id, request)
        return TaskBody.of(task)

    async def settle(self, task_id: TaskId, request: SettleRequest) -> TaskBody:
        """Say what came of a call that waits for a person; the task goes on.

        It is recorded as the call's result, with who has said so, and the call is not made. The first answer counts:
        the same one again changes nothing, another one is refused (409), and so is one that comes too late.
        """
        given = request.as_step("")
        task = await self._engine.settle(
            DEFAULT_TENANT, task_id_of(task_id), request.call, given, late=request.late
        )
        return TaskBody.of(task)

    async def approvals(self, cursor: Cursor = None, limit: PageLimit = PAGE_DEFAULT) -> ApprovalPage:
        """Calls that wait for a person, in all tasks; those of the newest tasks first."""
        asked = approval_filter(cursor=cursor, limit=limit)
        return ApprovalPage.of(await self._engine.approvals(DEFAULT_TENANT, asked), asked)


def _address(task: Task) -> str:
    return f"{TASKS}/{task.id}"


class BulkRoutes:
    """Cancel and retry by filter.

    Args:
        verbs: of the platform.
    """

    def __init__(self, verbs: Operations) -> None:
        self._verbs = verbs

    def add_to(self, app: FastAPI) -> None:
        """Add them to ``app``."""
        app.add_api_route(f"{TASKS}:cancel", self.cancel, **writing("cancel_tasks"))
        app.add_api_route(f"{TASKS}:retry", self.retry, **writing("retry_tasks"))

    async def cancel(self, request: BulkRequest) -> BulkBody:
        """Cancel the tasks that fit a filter, or count them.

        At most 1,000 are looked at, in transactions of 100; `next_cursor` leads on. A request may be repeated: what has
        ended is left out. With `dry_run` nothing is changed.
        """
        return await self._verbs.cancel_many(request)

    async def retry(self, request: BulkRequest) -> BulkBody:
        """Carry on the tasks that fit a filter by new ones, or count them.

        Each is retried once, as by `POST /tasks/{task_id}/retry`; a request may be repeated: what was retried is left
        out. At most 1,000 are looked at, the oldest first; `next_cursor` leads on.
        """
        return await self._verbs.retry_many(request)
