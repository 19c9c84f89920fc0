"""Clients: the same verbs over HTTP and on an engine in this process, with the same errors."""

from __future__ import annotations

import asyncio
import json
import random
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError

from agentkit.codec import recorded_from_json
from agentkit.transcript import ApprovalGiven, Recorded
from ops_core.catalog import Catalog
from ops_core.engine import Engine
from ops_core.errors import (
    AgentNotFound,
    ApprovalNotFound,
    ConfigError,
    IdempotencyConflict,
    InvalidRequest,
    LeaseLost,
    OpsError,
    SchemaMismatch,
    ServerUnavailable,
    StoreUnavailable,
    TaskNotFound,
    TransitionRefused,
)
from ops_core.task import DEFAULT_TENANT, RetryPolicy
from ops_core.wire import (
    MAX_SEQ,
    PAGE_DEFAULT,
    PAGE_MOST,
    AgentBody,
    AgentPage,
    ApprovalRequest,
    Problem,
    StepPage,
    TaskBody,
    TaskPage,
    TaskRequest,
    checked_key,
    task_filter,
    task_id_of,
)

Body = TypeVar("Body", bound=BaseModel)

API = "/api/v1"
REQUEST_ATTEMPTS = 4
"""A request that may be repeated is sent so often before the server counts as unavailable."""

WATCH_ATTEMPTS = 8
"""A stream of events may break so often in a row before the server counts as unavailable."""

SETTLED_SECONDS = 30.0
"""A stream that lived so long was a good one: breaks before it do not count any more."""

_TIMEOUT_SECONDS = 30.0
_SILENCE_SECONDS = 45.0  # the server shows every 15 s that a stream lives
_TEMPORARY = frozenset({502, 503, 504})
_ERRORS: Mapping[str, type[OpsError]] = {
    cls.code: cls
    for cls in (
        *(
            InvalidRequest,
            AgentNotFound,
            IdempotencyConflict,
            TaskNotFound,
            ApprovalNotFound,
            TransitionRefused,
        ),
        *(LeaseLost, ConfigError, SchemaMismatch, StoreUnavailable, ServerUnavailable),
    )
}


class Client(Protocol):
    """What can be done with tasks and agents, wherever they are.

    Every method may raise StoreUnavailable, and ServerUnavailable where there is a server.
    """

    async def submit(
        self, request: TaskRequest, *, idempotency_key: str | None = None, wait: int | None = None
    ) -> TaskBody:
        """Submit a task, and wait up to ``wait`` seconds (at most 60) for its end.

        Raises:
            AgentNotFound: there is no such agent.
            IdempotencyConflict: the key was used for another request.
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
        cursor: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> TaskPage:
        """One page of tasks, newest first."""
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

    async def retry(self, task_id: str) -> TaskBody:
        """A new task that carries on a failed or cancelled one.

        Raises:
            TaskNotFound: there is none of this id.
            TransitionRefused: it neither failed nor was cancelled.
        """
        ...

    async def answer(self, task_id: str, approval_id: str, request: ApprovalRequest) -> TaskBody:
        """Answer an open approval.

        Raises:
            TaskNotFound: there is no task of this id.
            ApprovalNotFound: it does not exist, or was answered.
            TransitionRefused: the task has ended.
        """
        ...

    async def agents(self) -> Sequence[AgentBody]:
        """All agents."""
        ...

    async def agent(self, name: str) -> AgentBody:
        """One agent, or AgentNotFound."""
        ...


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
        self._catalog.get(request.agent)
        task = (await self._engine.submit(request.as_new_task(key))).task
        if wait is not None:
            task = await self._engine.until_ended(DEFAULT_TENANT, task.id, wait)
        return TaskBody.of(task)

    async def get(self, task_id: str) -> TaskBody:
        """One task."""
        return TaskBody.of(await self._engine.get(DEFAULT_TENANT, task_id_of(task_id)))

    async def list(
        self,
        *,
        status: Collection[str] = (),
        agent: str | None = None,
        label: str | None = None,
        cursor: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> TaskPage:
        """One page of tasks."""
        asked = task_filter(status=status, agent=agent, label=label, cursor=cursor, limit=limit)
        return TaskPage.of(await self._engine.list(DEFAULT_TENANT, asked), limit)

    def tasks(
        self, *, status: Collection[str] = (), agent: str | None = None, label: str | None = None
    ) -> AsyncIterator[TaskBody]:
        """All tasks."""
        return _all_tasks(self, status, agent, label)

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

    async def retry(self, task_id: str) -> TaskBody:
        """A new task that carries on another one."""
        return TaskBody.of(await self._engine.retry(DEFAULT_TENANT, task_id_of(task_id)))

    async def answer(self, task_id: str, approval_id: str, request: ApprovalRequest) -> TaskBody:
        """Answer an open approval."""
        given = ApprovalGiven(
            approval_id=approval_id, approved=request.approved, reason=request.reason, by=request.by
        )
        return TaskBody.of(await self._engine.answer(DEFAULT_TENANT, task_id_of(task_id), given))

    async def agents(self) -> Sequence[AgentBody]:
        """All agents."""
        return [await AgentBody.of(self._catalog.get(name)) for name in self._catalog.names]

    async def agent(self, name: str) -> AgentBody:
        """One agent."""
        return await AgentBody.of(self._catalog.get(name))


class OpsClient:
    """A :class:`Client` of a server; an async context manager.

    What may be repeated is repeated when an answer is lost; a submit always carries an idempotency key, so that a
    repeated one cannot make a second task.

    Args:
        base_url: of the server, for example ``http://127.0.0.1:8700``.
        retry: how long to wait before a request is repeated or a stream opened again.
    """

    def __init__(
        self, base_url: str, *, retry: RetryPolicy = RetryPolicy(first_seconds=0.1, most_seconds=5.0)
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._address = re.sub(
            r"(://)[^/]*@", r"\1", self.base_url
        )  # for errors: without a user and password
        self._retry = retry
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
        headers = {"Idempotency-Key": key}
        if wait is not None:
            headers["Prefer"] = f"wait={wait}"
        timeout = _TIMEOUT_SECONDS + (wait or 0)
        return await self._ask(TaskBody, "POST", "/tasks", body=request, headers=headers, timeout=timeout)

    async def get(self, task_id: str) -> TaskBody:
        """One task."""
        return await self._ask(TaskBody, "GET", _task(task_id))

    async def list(
        self,
        *,
        status: Collection[str] = (),
        agent: str | None = None,
        label: str | None = None,
        cursor: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> TaskPage:
        """One page of tasks."""
        task_filter(status=status, agent=agent, label=label, cursor=cursor, limit=limit)
        given = {"status": ",".join(status) or None, "agent": agent, "label": label, "cursor": cursor}
        asked = {name: value for name, value in given.items() if value is not None}
        return await self._ask(TaskPage, "GET", "/tasks", params={**asked, "limit": str(limit)})

    def tasks(
        self, *, status: Collection[str] = (), agent: str | None = None, label: str | None = None
    ) -> AsyncIterator[TaskBody]:
        """All tasks."""
        return _all_tasks(self, status, agent, label)

    async def steps(self, task_id: str, after: int = -1) -> Sequence[Recorded]:
        """All steps."""
        found: Sequence[Recorded] = []
        following: int | None = after
        while following is not None:
            asked = {"after": str(following)}
            page = await self._ask(StepPage, "GET", f"{_task(task_id)}/steps", params=asked)
            found = [*found, *(recorded_from_json(item) for item in page.items)]
            following = page.next_after
        return found

    async def watch(self, task_id: str, after: int = -1) -> AsyncIterator[Recorded]:
        """Steps as they are recorded; a broken stream is opened again after the last step that arrived."""
        failures, now = 0, asyncio.get_running_loop().time
        while True:
            opened, why = now(), "it ended too early"
            try:
                async with self._stream(task_id, after) as response:
                    await _raise_problem(response)
                    async for event in httpx2.EventSource(response, max_event_size=None):
                        if event.event == "end":
                            return
                        if event.event == "step":
                            recorded = recorded_from_json(json.loads(event.data))
                            yield recorded
                            after, failures = recorded.seq, 0
            except (httpx2.TransportError, ServerUnavailable, StoreUnavailable) as error:
                why = str(error) or type(error).__name__
            failures = 1 if now() - opened > SETTLED_SECONDS else failures + 1
            if failures >= WATCH_ATTEMPTS:
                message = f"{self._address}: the events of task {task_id} broke off {failures} times in a row: {why}"
                raise ServerUnavailable(message)
            await self._pause(failures)

    async def wait_for_end(self, task_id: str, timeout_seconds: float | None = None) -> TaskBody:
        """The task when it has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                async for _step in self.watch(
                    task_id, MAX_SEQ
                ):  # no step has a greater number: only the end comes
                    pass
        return await self.get(task_id)

    async def cancel(self, task_id: str) -> TaskBody:
        """Cancel a task."""
        return await self._ask(TaskBody, "POST", f"{_task(task_id)}/cancel")

    async def retry(self, task_id: str) -> TaskBody:
        """A new task that carries on another one. Not repeated by itself: each one makes a task."""
        return await self._ask(TaskBody, "POST", f"{_task(task_id)}/retry", repeatable=False)

    async def answer(self, task_id: str, approval_id: str, request: ApprovalRequest) -> TaskBody:
        """Answer an open approval. Not repeated by itself: the second answer would find none open."""
        path = f"{_task(task_id)}/approvals/{quote(approval_id, safe='')}"
        return await self._ask(TaskBody, "POST", path, body=request, repeatable=False)

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
        body: BaseModel | None = None,
        repeatable: bool = True,
        **options: Any,
    ) -> bytes:
        """The answer's body. ``repeatable``: to do it twice is the same as to do it once."""
        if body is not None:
            options["content"] = body.model_dump_json().encode()
            options["headers"] = {**options.get("headers", {}), "Content-Type": "application/json"}
        attempt = 0
        while True:
            attempt += 1
            last = attempt >= REQUEST_ATTEMPTS
            try:
                response = await self._http.request(method, path, **options)
            except httpx2.TransportError as error:
                unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
                if last or not (repeatable or unsent):
                    message = f"{self._address} does not answer: {str(error) or type(error).__name__}"
                    raise ServerUnavailable(message) from None
            else:
                if last or not repeatable or response.status_code not in _TEMPORARY:
                    await _raise_problem(response)
                    return response.content
            await self._pause(attempt)

    def _stream(self, task_id: str, after: int) -> Any:
        headers = {} if after < 0 else {"Last-Event-ID": str(after)}
        timeout = httpx2.Timeout(_TIMEOUT_SECONDS, read=_SILENCE_SECONDS)
        return self._http.stream("GET", f"{_task(task_id)}/events", headers=headers, timeout=timeout)

    async def _pause(self, attempt: int) -> None:
        await asyncio.sleep(self._retry.delay(attempt, random.random()))  # noqa: S311  (spreads repeated requests)


async def _all_tasks(
    client: Client, status: Collection[str], agent: str | None, label: str | None
) -> AsyncGenerator[TaskBody, None]:
    cursor: str | None = None
    while True:
        page = await client.list(status=status, agent=agent, label=label, cursor=cursor, limit=PAGE_MOST)
        for task in page.items:
            yield task
        cursor = page.next_cursor
        if cursor is None:
            return


def _task(task_id: str) -> str:
    return f"/tasks/{task_id_of(task_id)}"


async def _raise_problem(response: httpx2.Response) -> None:
    """Raise what the server has raised."""
    if response.is_success:
        return
    await response.aread()
    try:
        told = Problem.model_validate_json(response.content)
    except ValidationError:
        message = f"{response.url.host} answered {response.status_code}, not as a server of Opspawn does"
        raise ServerUnavailable(message) from None
    known = _ERRORS.get(told.code)
    if known is None:  # refused at the border, or a mistake of the server or of this client
        known = InvalidRequest if response.status_code in (400, 413, 415, 422) else ServerUnavailable
    raise known(told.detail, field=told.field)
