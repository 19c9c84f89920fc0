"""Client of a server over HTTP."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError

from agentkit.tracing import Trace
from agentkit.transcript.codec import recorded_shown
from agentkit.transcript.steps import Recorded
from ops_core.bulk import BulkVerb
from ops_core.client.retry import REPEATED_SOON, Interrupted, Repeater, end_of
from ops_core.errors import InvalidRequest, OpsError, ServerUnavailable
from ops_core.operations import all_tasks, whole_batch, with_keys
from ops_core.problem_details import ERRORS, Problem
from ops_core.schemas import (
    AgentBody,
    AgentPage,
    ApprovalPage,
    ApprovalRequest,
    BatchBody,
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
    NotesForgotten,
    NotesRecalled,
    RecallRequest,
    SettleRequest,
    SpendingBody,
    StepPage,
    TaskBody,
    TaskPage,
    TaskRequest,
    ThreadBody,
    ThreadDeleted,
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
from ops_core.task import RetryPolicy

Body = TypeVar("Body", bound=BaseModel)

API = "/api/v1"

_TIMEOUT_SECONDS = 30.0
_BULK_SECONDS = 120.0
_SILENCE_SECONDS = 45.0  # the server shows every 15 s that a stream lives
_TEMPORARY = frozenset({502, 503, 504})


class HttpClient:
    """A :class:`Client` of a server; an async context manager.

    What may be repeated is repeated when an answer is lost; a submit always carries an idempotency key, so that a
    repeated one cannot make a second task.

    Args:
        base_url: of the server, for example ``http://127.0.0.1:8700``.
        retry: how long to wait before a request is repeated or a stream opened again.
    """

    def __init__(self, base_url: str, *, retry: RetryPolicy = REPEATED_SOON) -> None:
        self.base_url = base_url.rstrip("/")
        self._address = re.sub(
            r"(://)[^/]*@", r"\1", self.base_url
        )  # for errors: without a user and password
        self._repeater = Repeater(self._address, retry)
        # no proxy from the environment: the server is on the loopback
        self._http = httpx2.AsyncClient(
            base_url=self.base_url + API, timeout=_TIMEOUT_SECONDS, trust_env=False
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def submit(
        self, request: TaskRequest, *, idempotency_key: str | None = None, wait: int | None = None
    ) -> TaskBody:
        """Submit a task."""
        key = uuid.uuid4().hex if idempotency_key is None else checked_key(idempotency_key)
        headers = {"Idempotency-Key": key, **_trace()}
        if wait is not None:
            headers["Prefer"] = f"wait={wait}"
        timeout = _TIMEOUT_SECONDS + (wait or 0)
        return await self._ask(TaskBody, "POST", "/tasks", body=request, headers=headers, timeout=timeout)

    async def submit_many(
        self, items: Sequence[BatchItem], *, idempotency_key: str | None = None
    ) -> Sequence[BatchResult]:
        """Submit many tasks."""
        return await whole_batch(items, self._submit_batch, idempotency_key)

    async def _submit_batch(self, items: Sequence[BatchItem], key: str | None) -> Sequence[BatchResult]:
        told = ",".join(item.model_dump_json() for item in (items if key is not None else with_keys(items)))
        headers = {**_trace(), **({} if key is None else {"Idempotency-Key": key})}
        body = f'{{"tasks":[{told}]}}'
        return (await self._ask(BatchBody, "POST", "/tasks:batch", body=body, headers=headers)).items

    async def get(self, task_id: str) -> TaskBody:
        """One task."""
        return await self._ask(TaskBody, "GET", _task(task_id))

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
        task_filter(status=status, limit=limit, view=view, **of)
        given = {"status": ",".join(status) or None, **of, "view": None if view == "full" else view}
        return await self._ask(TaskPage, "GET", "/tasks", params={**_given(given), "limit": str(limit)})

    def tasks(
        self, *, status: Collection[str] = (), agent: str | None = None, label: str | None = None
    ) -> AsyncIterator[TaskBody]:
        """All tasks."""
        return all_tasks(self, status, agent, label)

    async def steps(self, task_id: str, after: int = -1) -> Sequence[Recorded]:
        """All steps."""
        found: Sequence[Recorded] = []
        following: int | None = after
        while following is not None:
            asked = {"after": str(following)}
            page = await self._ask(StepPage, "GET", f"{_task(task_id)}/steps", params=asked)
            found = [*found, *(recorded_shown(item) for item in page.items)]
            following = page.next_after
        return found

    def watch(self, task_id: str, after: int = -1) -> AsyncIterator[Recorded]:
        """Steps as they are recorded; a broken stream is opened again after the last step that arrived."""
        return self._repeater.follow(task_id, after, partial(self._stream, task_id))

    async def wait_for_end(self, task_id: str, timeout_seconds: float | None = None) -> TaskBody:
        """The task when it has ended."""
        return await end_of(self, task_id, timeout_seconds)

    async def cancel(self, task_id: str) -> TaskBody:
        """Cancel a task."""
        return await self._ask(TaskBody, "POST", f"{_task(task_id)}/cancel")

    async def retry(self, task_id: str, *, idempotency_key: str | None = None) -> TaskBody:
        """The task that carries on another one."""
        headers = {} if idempotency_key is None else {"Idempotency-Key": checked_key(idempotency_key)}
        return await self._ask(TaskBody, "POST", f"{_task(task_id)}/retry", headers=headers)

    async def cancel_many(self, request: BulkRequest) -> BulkBody:
        """Cancel the tasks that fit."""
        selection_of(BulkVerb.CANCEL, request)
        return await self._ask(BulkBody, "POST", "/tasks:cancel", body=request, timeout=_BULK_SECONDS)

    async def retry_many(self, request: BulkRequest) -> BulkBody:
        """Carry on the tasks that fit."""
        selection_of(BulkVerb.RETRY, request)
        return await self._ask(BulkBody, "POST", "/tasks:retry", body=request, timeout=_BULK_SECONDS)

    async def answer(self, task_id: str, approval_id: str, request: ApprovalRequest) -> TaskBody:
        """Answer an open approval."""
        path = f"{_task(task_id)}/approvals/{quote(approval_id, safe='')}"
        return await self._ask(TaskBody, "POST", path, body=request)

    async def settle(self, task_id: str, request: SettleRequest) -> TaskBody:
        """Say what came of a call."""
        return await self._ask(TaskBody, "POST", f"{_task(task_id)}/settle", body=request.dumped())

    async def approvals(self, *, cursor: str | None = None, limit: int = PAGE_DEFAULT) -> ApprovalPage:
        """One page of open approvals."""
        approval_filter(cursor=cursor, limit=limit)
        asked = {} if cursor is None else {"cursor": cursor}
        return await self._ask(ApprovalPage, "GET", "/approvals", params={**asked, "limit": str(limit)})

    async def halt(self, request: HaltRequest, *, idempotency_key: str | None = None) -> HaltBody:
        """Halt something."""
        request.as_new()
        key = uuid.uuid4().hex if idempotency_key is None else checked_key(idempotency_key)
        return await self._ask(HaltBody, "POST", "/halts", body=request, headers={"Idempotency-Key": key})

    async def halts(
        self, *, in_force: bool = True, cursor: str | None = None, limit: int = PAGE_DEFAULT
    ) -> HaltPage:
        """One page of halts."""
        halt_filter(in_force=in_force, cursor=cursor, limit=limit)
        asked = {} if cursor is None else {"cursor": cursor}
        asked |= {"in_force": str(in_force).lower(), "limit": str(limit)}
        return await self._ask(HaltPage, "GET", "/halts", params=asked)

    async def lift(self, halt_id: str, request: LiftRequest) -> HaltBody:
        """Lift a halt."""
        return await self._ask(HaltBody, "POST", f"/halts/{halt_id_of(halt_id)}/lift", body=request)

    async def threads(self, *, cursor: str | None = None, limit: int = PAGE_DEFAULT) -> ThreadPage:
        """One page of threads."""
        thread_filter(cursor=cursor, limit=limit)
        asked = {} if cursor is None else {"cursor": cursor}
        return await self._ask(ThreadPage, "GET", "/threads", params={**asked, "limit": str(limit)})

    async def thread(self, thread_id: str) -> ThreadBody:
        """One thread."""
        return await self._ask(ThreadBody, "GET", f"/threads/{thread_id_of(thread_id)}")

    async def delete_thread(self, thread_id: str) -> int:
        """Delete a thread and its tasks. Not repeated by itself: the second time it would not be there."""
        path = f"/threads/{thread_id_of(thread_id)}"
        return (await self._ask(ThreadDeleted, "DELETE", path, repeatable=False)).tasks

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
        given = {"agent": agent, "key": key, "cursor": cursor, "limit": str(limit)}
        return await self._ask(NotePage, "GET", "/notes", params=_given(given))

    async def recall(self, request: RecallRequest) -> Sequence[NoteBody]:
        """The most similar notes of an agent."""
        return (await self._ask(NotesRecalled, "POST", "/notes:recall", body=request)).items

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
        given = {**_given({"agent": agent, "key": key}), **({"all": "true"} if everything else {})}
        params = [*given.items(), *(("id", each) for each in ids)]
        return (await self._ask(NotesForgotten, "DELETE", "/notes", params=params, repeatable=False)).notes

    async def spending(self) -> SpendingBody:
        """What was spent today."""
        return await self._ask(SpendingBody, "GET", "/spending")

    async def workers(self) -> Sequence[WorkerBody]:
        """Workers by name."""
        return (await self._ask(WorkerPage, "GET", "/workers")).items

    async def agents(self) -> Sequence[AgentBody]:
        """All agents."""
        return (await self._ask(AgentPage, "GET", "/agents")).items

    async def agent(self, name: str) -> AgentBody:
        """One agent."""
        return await self._ask(AgentBody, "GET", f"/agents/{quote(name, safe='')}")

    # --- the wire -------------------------------------------------------------------------------------------------

    async def _ask(self, expected: type[Body], method: str, path: str, **options: Any) -> Body:
        """What the server answers, in the form that is expected."""
        answer = await self._send(method, path, **options)
        try:
            return expected.model_validate_json(answer)
        except ValidationError:
            message = f"{self._address} answered, but not as a server of this release does"
            raise ServerUnavailable(message) from None

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: BaseModel | str | None = None,
        repeatable: bool = True,
        **options: Any,
    ) -> bytes:
        """The answer's body. ``repeatable``: to do it twice is the same as to do it once."""
        if body is not None:
            options["content"] = (body if isinstance(body, str) else body.model_dump_json()).encode()
            options["headers"] = {**options.get("headers", {}), "Content-Type": "application/json"}
        return await self._repeater.ask(
            partial(self._send_once, method, path, **options), repeatable=repeatable
        )

    async def _send_once(self, method: str, path: str, **options: Any) -> bytes:
        try:
            response = await self._http.request(method, path, **options)
        except httpx2.TransportError as error:
            message = f"{self._address} does not answer: {str(error) or type(error).__name__}"
            unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            raise Interrupted(ServerUnavailable(message), unsent=unsent) from None
        await _raise_problem(response)
        return response.content

    async def _stream(self, task_id: str, after: int) -> AsyncGenerator[Recorded]:
        """Steps until the end; a stream that breaks off before it was interrupted."""
        headers = {} if after < 0 else {"Last-Event-ID": str(after)}
        timeout = httpx2.Timeout(_TIMEOUT_SECONDS, read=_SILENCE_SECONDS)
        path = f"{_task(task_id)}/events"
        try:
            async with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                await _raise_problem(response)
                async for event in httpx2.EventSource(response, max_event_size=None):
                    if event.event == "end":
                        return
                    if event.event == "step":
                        yield recorded_shown(json.loads(event.data))
        except httpx2.TransportError as error:
            raise Interrupted(ServerUnavailable(str(error) or type(error).__name__)) from None
        raise Interrupted(ServerUnavailable("it ended too early"))


def _trace() -> Mapping[str, str]:
    trace = Trace.current()
    return {} if trace is None else trace.headers


def _given(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _task(task_id: str) -> str:
    return f"/tasks/{task_id_of(task_id)}"


async def _raise_problem(response: httpx2.Response) -> None:
    """Raise what an answer tells, where it tells of an error.

    Raises:
        OpsError: what the server has raised.
        Interrupted: it is one that may pass.
    """
    if response.is_success:
        return
    await response.aread()
    error = _error_of(response)
    raise Interrupted(error) if response.status_code in _TEMPORARY else error


def _error_of(response: httpx2.Response) -> OpsError:
    try:
        told = Problem.model_validate_json(response.content)
    except ValidationError:
        message = f"{response.url.host} answered {response.status_code}, not as a server of Opspawn does"
        return ServerUnavailable(message)
    known = ERRORS.get(told.code)
    if known is None:  # refused at the border, or a mistake of the server or of this client
        known = InvalidRequest if response.status_code in (400, 413, 415, 422) else ServerUnavailable
    return known(told.detail, field=told.field)
