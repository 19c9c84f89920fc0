"""Conversion of tasks, steps and agents, between messages and JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from agentkit.transcript.codec import kind_of, recorded_shown, recorded_to_json, to_json_text
from agentkit.transcript.steps import Recorded
from ops_core.errors import InvalidRequest, OpsError
from ops_core.ports import SubmitResult
from ops_core.problem_details import ERRORS, Problem, problem_of, problem_of_fields
from ops_core.protocol.v1 import agent_service_pb2, task_pb2, task_service_pb2, thread_service_pb2
from ops_core.protocol.values import (
    field_here,
    field_there,
    json_in,
    moment_in,
    moment_out,
    status_in,
    status_out,
)
from ops_core.protocol.workers import lease_in, lease_out
from ops_core.schemas import (
    AgentBody,
    AgentBudgetBody,
    ApprovalBody,
    ApprovalRequest,
    BatchItem,
    BatchResult,
    ErrorBody,
    LateResultBody,
    SettleRequest,
    TaskBody,
    TaskRequest,
    ThreadBody,
    ToolBody,
    UsageBody,
)
from ops_core.schemas.queries import checked_key
from ops_core.task import TaskStatus

_LIMITS = ("steps", "tokens", "seconds", "usd")

# --- what is submitted --------------------------------------------------------------------------------------------


def request_in(told: task_service_pb2.CreateTaskRequest) -> TaskRequest:
    """The request of a message.

    Raises:
        InvalidRequest: it holds what is no JSON or no moment.
        pydantic.ValidationError: it breaks a rule of :class:`~ops_core.schemas.TaskRequest`.
    """
    given: dict[str, Any] = {
        "agent": told.agent,
        "input": json_in(told.input_json, "input"),
        "labels": dict(told.labels),
        "priority": told.priority,
    }
    if told.HasField("run_at"):
        given["run_at"] = moment_in(told.run_at, "run_at")
    if told.HasField("timeout_seconds"):
        given["timeout_seconds"] = told.timeout_seconds
    if told.HasField("expires_seconds"):
        given["expires_seconds"] = told.expires_seconds
    if told.HasField("max_attempts"):
        given["max_attempts"] = told.max_attempts
    if told.HasField("thread_id"):
        given["thread_id"] = told.thread_id
    if told.HasField("budget"):
        budget = told.budget
        given["budget"] = {name: getattr(budget, name) for name in _LIMITS if budget.HasField(name)}  # type: ignore[arg-type]
    return TaskRequest.model_validate(given)


def batch_in(told: task_service_pb2.CreateTaskRequest) -> BatchItem | Problem:
    """A task of a batch, or what is wrong with it."""
    try:
        if told.HasField("wait_seconds"):
            message = "a batch waits for nothing"
            raise InvalidRequest(message, field="wait_seconds")  # noqa: TRY301  (told as what it calls raises)
        request = request_in(told)
        key = checked_key(told.idempotency_key) if told.HasField("idempotency_key") else None
    except ValidationError as error:
        return problem_of_fields(error.errors())
    except InvalidRequest as error:
        return problem_of(error)
    return BatchItem.model_construct(**dict(request), idempotency_key=key)


def request_out(request: TaskRequest, idempotency_key: str | None) -> task_service_pb2.CreateTaskRequest:
    """A request as a message."""
    budget = request.budget
    return task_service_pb2.CreateTaskRequest(
        agent=request.agent,
        input_json=to_json_text(request.input),
        labels=request.labels,
        priority=request.priority,
        run_at=moment_out(request.run_at),
        timeout_seconds=request.timeout_seconds,
        expires_seconds=request.expires_seconds,
        budget=None if budget is None else task_pb2.Budget(**budget.model_dump()),
        max_attempts=request.max_attempts,
        idempotency_key=idempotency_key,
        thread_id=request.thread_id,
    )


def result_out(result: SubmitResult | Problem) -> task_service_pb2.BatchResult:
    """What became of a task of a batch, as a message."""
    if isinstance(result, SubmitResult):
        return task_service_pb2.BatchResult(task_id=result.task.id, created=result.created)
    field = None if result.field is None else field_there(result.field)
    refusal = task_service_pb2.Refusal(code=result.code, message=result.detail, field=field)
    return task_service_pb2.BatchResult(refusal=refusal)


def result_in(told: task_service_pb2.BatchResult) -> BatchResult:
    """What became of a task of a batch."""
    if told.HasField("task_id"):
        return BatchResult(status=202 if told.created else 200, task_id=told.task_id)
    refusal, field = told.refusal, None
    if refusal.HasField("field"):  # in a batch the key is a field in JSON, too, and no header
        field = refusal.field if refusal.field == "idempotency_key" else field_here(refusal.field)
    error = ERRORS.get(refusal.code, OpsError)(refusal.message, field=field)
    problem = problem_of(error).model_copy(update={"detail": refusal.message, "code": refusal.code})
    return BatchResult(status=problem.status, problem=problem)


# --- tasks --------------------------------------------------------------------------------------------------------


def task_out(body: TaskBody) -> task_pb2.Task:
    """A task as a message."""
    ended = body.status is TaskStatus.COMPLETED
    return task_pb2.Task(
        id=body.id,
        agent=body.agent,
        status=status_out(body.status),
        input_json=to_json_text(body.input),
        output_json=to_json_text(body.output) if ended else None,
        error=None if body.error is None else task_pb2.TaskError(**body.error.model_dump()),
        labels=body.labels,
        priority=body.priority,
        attempt=body.attempt,
        usage=task_pb2.Usage(**body.usage.model_dump()),
        created_at=moment_out(body.created_at),
        updated_at=moment_out(body.updated_at),
        started_at=moment_out(body.started_at),
        finished_at=moment_out(body.finished_at),
        run_after=moment_out(body.run_after),
        thread_id=body.thread_id,
        retried_as=body.retried_as,
        lease=lease_out(body.lease),
        expires_at=moment_out(body.expires_at),
        approvals=[approval_out(approval) for approval in body.approvals],
        late_results=[late_result_out(late) for late in body.late_results],
    )


def approval_out(body: ApprovalBody) -> task_pb2.Approval:
    """An open approval as a message."""
    return task_pb2.Approval(
        task_id=body.task_id,
        id=body.id,
        agent=body.agent,
        tool=body.tool,
        arguments_json=to_json_text(body.arguments),
        shown=body.shown,
        reason=body.reason,
        interrupted=body.interrupted,
        digest=body.digest,
        asked_at=moment_out(body.asked_at),
        expires_at=moment_out(body.expires_at),
        late_results=[late_result_out(late) for late in body.late_results],
    )


def late_result_out(body: LateResultBody) -> task_pb2.LateResult:
    """A late result as a message."""
    return task_pb2.LateResult(
        call=body.call,
        tool=body.tool,
        worker=body.worker,
        reported_at=moment_out(body.at),
        failed=body.failed,
        shown=body.shown,
    )


def late_result_in(told: task_pb2.LateResult) -> LateResultBody:
    """The late result of a message."""
    return LateResultBody(
        call=told.call,
        tool=told.tool,
        worker=told.worker,
        at=told.reported_at.ToDatetime(tzinfo=UTC),
        failed=told.failed,
        shown=told.shown,
    )


def approval_in(told: task_pb2.Approval) -> ApprovalBody:
    """The open approval of a message.

    Raises:
        ValueError: it is not as a server of this release tells it.
    """
    return ApprovalBody(
        task_id=told.task_id,
        id=told.id,
        agent=told.agent,
        tool=told.tool,
        arguments=json.loads(told.arguments_json),
        shown=told.shown,
        reason=told.reason,
        interrupted=told.interrupted,
        digest=told.digest,
        asked_at=told.asked_at.ToDatetime(tzinfo=UTC),
        expires_at=told.expires_at.ToDatetime(tzinfo=UTC) if told.HasField("expires_at") else None,
        late_results=[late_result_in(late) for late in told.late_results],
    )


def answer_in(told: task_service_pb2.AnswerApprovalRequest) -> ApprovalRequest:
    """The answer of a message.

    Raises:
        InvalidRequest: it holds what is no JSON.
        pydantic.ValidationError: it breaks a rule of :class:`~ops_core.schemas.ApprovalRequest`.
    """
    given: dict[str, Any] = {"reason": told.reason, "by": told.by}
    if told.HasField("approved"):
        given["approved"] = told.approved
    if told.HasField("arguments_json"):
        given["arguments"] = json_in(told.arguments_json, "arguments")
        if not isinstance(given["arguments"], dict):
            message = "arguments_json must be an object"
            raise InvalidRequest(message, field="arguments")
    if told.HasField("digest"):
        given["digest"] = told.digest
    return ApprovalRequest.model_validate(given)


def answer_out(
    task_id: str, approval_id: str, request: ApprovalRequest
) -> task_service_pb2.AnswerApprovalRequest:
    """An answer as a message."""
    return task_service_pb2.AnswerApprovalRequest(
        task_id=task_id,
        approval_id=approval_id,
        approved=request.approved,
        reason=request.reason,
        by=request.by,
        arguments_json=None if request.arguments is None else to_json_text(request.arguments),
        digest=request.digest,
    )


def settle_in(told: task_service_pb2.SettleCallRequest) -> SettleRequest:
    """What came of a call, from a message.

    Raises:
        InvalidRequest: it holds what is no JSON.
        pydantic.ValidationError: it breaks a rule of :class:`~ops_core.schemas.SettleRequest`.
    """
    given: dict[str, Any] = {"call": told.call, "by": told.by}
    match told.WhichOneof("outcome"):
        case "result_json":
            given["result"] = json_in(told.result_json, "result")
        case "failed":
            given["failed"] = told.failed
        case "late":
            given["late"] = told.late
        case _:
            pass
    if told.HasField("digest"):
        given["digest"] = told.digest
    return SettleRequest.model_validate(given)


def settle_out(task_id: str, request: SettleRequest) -> task_service_pb2.SettleCallRequest:
    """What came of a call, as a message."""
    outcome: dict[str, Any] = {"failed": request.failed}
    if request.late:
        outcome = {"late": True}
    elif request.failed is None:
        outcome = {"result_json": to_json_text(request.result)}
    return task_service_pb2.SettleCallRequest(
        task_id=task_id, call=request.call, by=request.by, digest=request.digest, **outcome
    )


def task_in(told: task_pb2.Task) -> TaskBody:
    """The task of a message.

    Raises:
        ValueError: it is not as a server of this release tells it.
    """
    usage = told.usage
    return TaskBody(
        id=told.id,
        agent=told.agent,
        status=TaskStatus(status_in(told.status)),
        input=json.loads(told.input_json),
        output=json.loads(told.output_json) if told.HasField("output_json") else None,
        error=ErrorBody(code=told.error.code, message=told.error.message) if told.HasField("error") else None,
        labels=dict(told.labels),
        priority=told.priority,
        attempt=told.attempt,
        usage=UsageBody(
            model_calls=usage.model_calls,
            tool_calls=usage.tool_calls,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost_usd=usage.cost_usd if usage.HasField("cost_usd") else None,
            unsettled_usd=usage.unsettled_usd,
        ),
        created_at=told.created_at.ToDatetime(tzinfo=UTC),
        updated_at=told.updated_at.ToDatetime(tzinfo=UTC),
        started_at=_moment(told, "started_at"),
        finished_at=_moment(told, "finished_at"),
        run_after=_moment(told, "run_after"),
        thread_id=told.thread_id if told.HasField("thread_id") else None,
        retried_as=told.retried_as if told.HasField("retried_as") else None,
        expires_at=_moment(told, "expires_at"),
        lease=lease_in(told.lease) if told.HasField("lease") else None,
        approvals=[approval_in(approval) for approval in told.approvals],
        late_results=[late_result_in(late) for late in told.late_results],
    )


def _moment(told: task_pb2.Task, name: str) -> datetime | None:
    if not told.HasField(name):  # type: ignore[arg-type]
        return None
    moment: datetime = getattr(told, name).ToDatetime(tzinfo=UTC)
    return moment


# --- threads ------------------------------------------------------------------------------------------------------


def thread_out(body: ThreadBody) -> thread_service_pb2.Thread:
    """A thread as a message."""
    return thread_service_pb2.Thread(
        id=body.id,
        turns=body.turns,
        current_task=body.current_task,
        created_at=moment_out(body.created_at),
        updated_at=moment_out(body.updated_at),
    )


def thread_in(told: thread_service_pb2.Thread) -> ThreadBody:
    """The thread of a message."""
    return ThreadBody(
        id=told.id,
        turns=told.turns,
        current_task=told.current_task if told.HasField("current_task") else None,
        created_at=told.created_at.ToDatetime(tzinfo=UTC),
        updated_at=told.updated_at.ToDatetime(tzinfo=UTC),
    )


# --- steps --------------------------------------------------------------------------------------------------------


def step_out(recorded: Recorded) -> task_pb2.Step:
    """A step as a message."""
    step = task_pb2.Step(
        seq=recorded.seq, kind=kind_of(recorded.step), step_json=to_json_text(recorded_to_json(recorded))
    )
    step.at.FromNanoseconds(round(recorded.at * 1e6) * 1000)
    return step


def step_in(told: task_pb2.Step) -> Recorded:
    """The step of a message.

    Raises:
        TranscriptError: it was written by a newer release.
        ValueError: it is no JSON.
    """
    return recorded_shown(json.loads(told.step_json))


# --- agents -------------------------------------------------------------------------------------------------------


def agent_out(body: AgentBody) -> agent_service_pb2.Agent:
    """An agent as a message."""
    return agent_service_pb2.Agent(
        name=body.name,
        model=body.model,
        planning=body.planning,
        instructions=body.instructions,
        tools=[_tool_out(tool) for tool in body.tools],
        output_schema_json=None if body.output_schema is None else json.dumps(body.output_schema),
        budget=agent_service_pb2.AgentBudget(**body.budget.model_dump()),
        problem=body.problem,
    )


def agent_in(told: agent_service_pb2.Agent) -> AgentBody:
    """The agent of a message."""
    budget = told.budget
    return AgentBody(
        name=told.name,
        model=told.model,
        planning=told.planning,
        instructions=told.instructions,
        tools=[_tool(tool) for tool in told.tools],
        problem=told.problem if told.HasField("problem") else None,
        output_schema=json.loads(told.output_schema_json) if told.HasField("output_schema_json") else None,
        budget=AgentBudgetBody(
            steps=budget.steps if budget.HasField("steps") else None,
            tokens=budget.tokens if budget.HasField("tokens") else None,
            seconds=budget.seconds if budget.HasField("seconds") else None,
            usd=budget.usd if budget.HasField("usd") else None,
        ),
    )


def _tool(told: agent_service_pb2.Tool) -> ToolBody:
    return ToolBody(
        name=told.name,
        description=told.description,
        effect=told.effect,
        approval=told.approval,
        parameters=json.loads(told.parameters_json or "{}"),  # an older server does not tell them
    )


def _tool_out(tool: ToolBody) -> agent_service_pb2.Tool:
    return agent_service_pb2.Tool(
        name=tool.name,
        description=tool.description,
        effect=tool.effect,
        approval=tool.approval,
        parameters_json=json.dumps(tool.parameters),
    )
