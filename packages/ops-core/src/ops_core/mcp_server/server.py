"""MCP server: lists agents, submits tasks and reports their status. It keeps no state: the store does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

import mcp_types as types
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ConfigDict, Field, ValidationError

from agentkit.errors import BadArguments
from agentkit.mcp import Definition
from agentkit.transcript.codec import kind_of
from agentkit.transcript.steps import ApprovalAsked
from ops_core import __version__
from ops_core.assembly import Ops
from ops_core.errors import InvalidRequest, OpsError, TaskNotFound
from ops_core.mcp_server import answers
from ops_core.mcp_server.offers import Offers, input_of, missing_in, schema_of
from ops_core.schemas import TaskRequest
from ops_core.schemas.queries import checked_key
from ops_core.service import accept
from ops_core.task import DEFAULT_TENANT, Task

VIA = {"via": "mcp"}
"""The label of tasks that were handed in here; no others can be asked for."""

IDEMPOTENCY_KEY = "opspawn/idempotency-key"
"""In the ``_meta`` of a call: the same key with the same arguments is the same task."""

EXPIRES_SECONDS = "opspawn/expires-seconds"
"""In the ``_meta`` of a call: a task that no worker has started by then is not started any more."""

_ASKED = "arguments"
_MAX_GET_WAIT = 24 * 3600.0

Context = ServerRequestContext[Any, Any]


class TaskParams(types.RequestParams):
    """What the methods of the extension take."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    task_id: str = Field(alias="taskId")
    input_responses: dict[str, Any] = Field(default_factory=dict, alias="inputResponses")


class AgentServer:
    """Agents as tools.

    Args:
        ops: the platform, open.
        closing: set when the process comes to its end: whoever waits for an agent is answered.

    Attributes:
        server: the SDK's, for a transport to serve.
    """

    def __init__(self, ops: Ops, closing: asyncio.Event) -> None:
        self._ops = ops
        self._closing = closing
        self._offers = Offers(ops.catalog)
        days = ops.settings.retention_days
        self._keep_ms = None if days is None else max(1, int(days * 86_400_000))
        self.server: Server[Any] = Server(
            "opspawn",
            version=__version__,
            instructions="Each tool is an agent that works on what it is given, and may take long.",
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
        )
        self.server.extensions[answers.TASKS] = {}
        for method, handler in (
            ("tasks/get", self._get_task),
            ("tasks/update", self._update_task),
            ("tasks/cancel", self._cancel_task),
        ):
            self.server.add_request_handler(method, TaskParams, handler)

    async def _list_tools(self, _context: Context, _params: Any) -> types.ListToolsResult:
        tools = [
            types.Tool(name=name, description=offer.description, input_schema=dict(schema_of(offer)))
            for name, (_agent, offer) in self._offers.by_tool.items()
        ]
        return types.ListToolsResult(tools=tools)

    # --- calls ----------------------------------------------------------------------------------------------------

    async def _call_tool(self, context: Context, params: types.CallToolRequestParams) -> Any:
        told = await self._called(context, params)
        if told["resultType"] == "complete":
            return types.CallToolResult.model_validate(told)
        return told  # a shape of the extension, or a question

    async def _called(self, context: Context, params: types.CallToolRequestParams) -> dict[str, Any]:
        found = self._offers.by_tool.get(params.name)
        if found is None:
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name[:100]!r}")
        agent, offer = found
        arguments = {**(params.arguments or {}), **_given(params.input_responses)}
        if (missing := missing_in(offer, arguments)) and _can_ask(context):
            return _asking_for(missing)
        if offer.tasks == "always" and not _has_tasks(context):
            _refuse_without_tasks()
        try:
            Definition(name=params.name, parameters=schema_of(offer)).check(arguments)
            expiry = cast("Mapping[str, Any]", params.meta or {}).get(EXPIRES_SECONDS)
            asked = {"agent": agent, "input": input_of(offer, arguments), "labels": VIA}
            request = TaskRequest.model_validate({**asked, "expires_seconds": expiry})
            task = (await accept(self._ops.engine, self._ops.catalog, request, _key_of(context, params))).task
        except (BadArguments, OpsError) as error:
            return answers.failure(str(error))
        except ValidationError as error:
            first = error.errors()[0]
            where = f"{EXPIRES_SECONDS}: " if first["loc"][:1] == ("expires_seconds",) else ""
            return answers.failure(f"bad arguments: {where}{first['msg']}")
        if offer.tasks != "never" and _has_tasks(context):
            return {"resultType": "task", **answers.task_of(task, {}, keep_ms=self._keep_ms)}
        return await self._waited_for(context, task)

    async def _waited_for(self, context: Context, task: Task) -> dict[str, Any]:
        """The result of a call whose caller waits. A caller who goes away can never ask for it: it is cancelled."""
        waiting = asyncio.create_task(self._followed(context, task))
        closing = asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait({waiting, closing}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
        except asyncio.CancelledError:
            if not self._closing.is_set():
                with suppress(OpsError):
                    await asyncio.shield(self._ops.engine.cancel(DEFAULT_TENANT, task.id))
            raise
        finally:
            waiting.cancel()
            closing.cancel()
        return answers.failure(f"the server stops; task {task.id} goes on when it is there again")

    async def _followed(self, context: Context, task: Task) -> dict[str, Any]:
        """Tell the steps as progress, until the task has ended or waits for a person."""
        engine, number = self._ops.engine, 0
        async for recorded in engine.watch(DEFAULT_TENANT, task.id):
            number += 1
            await context.session.report_progress(number, None, kind_of(recorded.step))
            if isinstance(recorded.step, ApprovalAsked):
                command = f"opspawn approve {task.id}"
                return answers.failure(f"task {task.id} waits until a person has answered: `{command}`")
        return answers.result_of(await engine.until_ended(DEFAULT_TENANT, task.id, _MAX_GET_WAIT))

    # --- tasks ----------------------------------------------------------------------------------------------------

    async def _get_task(self, context: Context, params: TaskParams) -> dict[str, Any]:
        task = await self._task(context, params)
        return answers.detailed(task, self._questions(context, task), keep_ms=self._keep_ms)

    async def _update_task(self, context: Context, params: TaskParams) -> dict[str, Any]:
        task = await self._task(context, params)
        questions = self._questions(context, task)
        for name in params.input_responses.keys() & questions.keys():
            response = params.input_responses[name]
            given = answers.answer_to(questions[name], response)
            if given is None:
                continue
            with suppress(OpsError):  # somebody else was quicker, or it has expired: the next look tells
                if answers.takes_late_result(questions[name], response):
                    await self._ops.engine.settle(DEFAULT_TENANT, task.id, name, given, late=True)
                else:
                    await self._ops.engine.answer(DEFAULT_TENANT, task.id, given)
        return {"resultType": "complete"}

    async def _cancel_task(self, context: Context, params: TaskParams) -> dict[str, Any]:
        task = await self._task(context, params)
        if not task.status.terminal:
            with suppress(OpsError):  # it has ended meanwhile
                await self._ops.engine.cancel(DEFAULT_TENANT, task.id)
        return {"resultType": "complete"}

    async def _task(self, context: Context, params: TaskParams) -> Task:
        if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            raise MCPError(types.METHOD_NOT_FOUND, "tasks need the protocol of 2026-07-28")
        if not _has_tasks(context):
            _refuse_without_tasks()
        headers = getattr(context.request, "headers", None)
        if headers is not None and decode_header_value(headers.get(MCP_NAME_HEADER)) != params.task_id:
            raise MCPError(types.HEADER_MISMATCH, f"{MCP_NAME_HEADER} does not match params.taskId")
        try:
            task = await self._ops.engine.get(DEFAULT_TENANT, params.task_id)
        except TaskNotFound:
            task = None
        except OpsError as error:  # the store is away: the task is not gone
            raise MCPError(types.INTERNAL_ERROR, str(error)) from None
        if task is None or task.labels.get("via") != VIA["via"]:
            raise MCPError(types.INVALID_PARAMS, "there is no such task")
        return task

    def _questions(self, context: Context, task: Task) -> answers.Questions:
        """What this caller may put to a person; nothing, where it cannot or may not."""
        if not (self._ops.catalog.serve.approvals and _elicits(context)):
            return {}
        return {each.asked.approval_id: each for each in task.approvals}


def _key_of(context: Context, params: types.CallToolRequestParams) -> str | None:
    """The idempotency key of a call: in its ``_meta``, or in a header of its request.

    Raises:
        InvalidRequest: it is not one.
    """
    meta: Mapping[str, Any] = cast("Mapping[str, Any]", params.meta or {})
    key = meta.get(IDEMPOTENCY_KEY)
    if key is None:
        key = getattr(context.request, "headers", {}).get("idempotency-key")
    if key is None:
        return None
    if not isinstance(key, str):
        message = f"_meta: {IDEMPOTENCY_KEY} must be a text"
        raise InvalidRequest(message, field=IDEMPOTENCY_KEY)
    return checked_key(key)


def _refuse_without_tasks() -> None:
    needed: dict[str, Any] = {"requiredCapabilities": {"extensions": {answers.TASKS: {}}}}
    raise MCPError(
        types.MISSING_REQUIRED_CLIENT_CAPABILITY, f"this needs the extension {answers.TASKS}", needed
    )


def _has_tasks(context: Context) -> bool:
    capabilities = context.session.client_capabilities
    declared = None if capabilities is None else capabilities.extensions
    return context.protocol_version in MODERN_PROTOCOL_VERSIONS and answers.TASKS in (declared or {})


def _elicits(context: Context) -> bool:
    capabilities = context.session.client_capabilities
    return capabilities is not None and capabilities.elicitation is not None


def _can_ask(context: Context) -> bool:
    return context.protocol_version in MODERN_PROTOCOL_VERSIONS and _elicits(context)


def _asking_for(missing: Mapping[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": dict(missing), "required": list(missing)}
    params = {"mode": "form", "message": "This is needed to begin.", "requestedSchema": schema}
    requests = {_ASKED: {"method": "elicitation/create", "params": params}}
    return {"resultType": "input_required", "inputRequests": requests}


def _given(responses: Any) -> Mapping[str, Any]:
    """What a person has filled in."""
    answer: Any = dict(responses or {}).get(_ASKED)
    if answer is None:
        return {}
    told: dict[str, Any] = dict(answer) if isinstance(answer, dict) else answer.model_dump(exclude_none=True)  # pyright: ignore[reportUnknownArgumentType]
    content: Any = told.get("content")
    return cast("Mapping[str, Any]", content) if told.get("action") == "accept" and content else {}
