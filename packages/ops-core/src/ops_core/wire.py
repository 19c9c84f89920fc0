"""The JSON we speak: what the API takes and gives, shared with the client. Nothing unknown is accepted."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeGuard, cast

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainValidator,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from agentkit.attachments import checked_input
from agentkit.codec import recorded_to_json, to_json_text
from agentkit.errors import TranscriptError, UsageError
from agentkit.limits import Limits
from agentkit.money import usd
from agentkit.ports import Toolset
from agentkit.tools import FunctionToolset, Tool
from agentkit.transcript import ApprovalGiven, Recorded
from ops_core.catalog import Served
from ops_core.listing import (
    IDEMPOTENCY_KEY,
    LABEL_KEY_PATTERN,
    LABEL_VALUE_PATTERN,
    NAME_PATTERN,
    THREAD_ID_PATTERN,
    encode_cursor,
)
from ops_core.problems import Problem, problem_of_fields
from ops_core.task import DEFAULT_TENANT, InThread, NewTask, Task, TaskStatus, Thread

BATCH_MOST = 1000
"""So many tasks are in a batch at most."""

STEPS_MOST = 1000
"""So many steps are on a page at most."""

MAX_SEQ = 2**31 - 1
"""No step has a greater number."""

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def _as_rfc3339(value: Any) -> Any:
    # left to itself, pydantic also takes numbers, in seconds or milliseconds as it sees fit
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC3339.fullmatch(value)):
        return value
    message = "must be a moment as RFC 3339 writes it, with an offset, for example 2030-01-31T09:00:00Z"
    raise ValueError(message)


def _as_text_or_object(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    # one error instead of one for each alternative
    try:
        to_json_text(value)
        checked_input(value)
        return handler(value)
    except UsageError as error:
        raise ValueError(str(error)) from None
    except (ValidationError, TranscriptError):
        message = "must be a text or a JSON object"
        raise ValueError(message) from None


Moment = Annotated[AwareDatetime, BeforeValidator(_as_rfc3339, json_schema_input_type=AwareDatetime)]
TextOrObject = Annotated[str | dict[str, JsonValue], WrapValidator(_as_text_or_object)]

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
LabelKey = Annotated[str, StringConstraints(pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE_PATTERN)]
ThreadId = Annotated[str, StringConstraints(pattern=THREAD_ID_PATTERN)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BudgetBody(_Strict):
    """Limits of one run; they tighten the agent's own."""

    steps: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = Field(
        default=None, description="Recorded steps."
    )
    tokens: Annotated[int, Field(strict=True, ge=1, le=2**53)] | None = Field(
        default=None, description="Input and output tokens of all model calls together."
    )
    seconds: Annotated[float, Field(strict=True, gt=0, le=31_536_000)] | None = Field(
        default=None,
        description="Time from the first step on, without the time in which the run waits for a person.",
    )
    usd: Annotated[float, Field(strict=True, gt=0, le=1_000_000)] | None = Field(
        default=None,
        description="What all model calls together may cost, in US dollars. A call is made only if its largest "
        "possible cost fits; a model whose price nobody knows is refused.",
    )


class TaskRequest(_Strict):
    """A task to be run."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"agent": "assistant", "input": "What is 12 * 7?", "labels": {"team": "search"}}]
        }
    )

    agent: Name = Field(description="Name of the agent; `GET /agents` lists them.")
    input: TextOrObject = Field(description="What the run is to work on: a text or an object.")
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = Field(
        default_factory=dict,
        description="For finding the task again.",
        json_schema_extra={"additionalProperties": False},  # beside the patternProperties
    )
    priority: Annotated[int, Field(strict=True, ge=-1000, le=1000)] = Field(
        default=0, description="Higher ones are started first."
    )
    run_at: Moment | None = Field(
        default=None, description="Not before this moment (RFC 3339, with an offset)."
    )
    timeout_seconds: Annotated[float, Field(strict=True, gt=0, le=31_536_000)] | None = Field(
        default=None,
        description="From the first start to the end, waiting included; after that the task has failed.",
    )
    budget: BudgetBody | None = Field(default=None, description="Limits of the run.")
    max_attempts: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(
        default=5, description="So often the task is started before it is given up."
    )
    thread_id: ThreadId | None = Field(
        default=None,
        description="The conversation that this goes on with; a new one begins with its first task. Tasks of a thread "
        "are carried out one after the other, and each is shown what was asked and answered before.",
    )

    def as_new_task(self, idempotency_key: str | None = None, tenant: str = DEFAULT_TENANT) -> NewTask:
        """The request as the engine takes it."""
        budget = None if self.budget is None else Limits(**self.budget.model_dump())
        return NewTask(
            agent=self.agent,
            input=self.input,
            tenant=tenant,
            labels=self.labels,
            priority=self.priority,
            run_at=None if self.run_at is None else self.run_at.timestamp(),
            timeout_seconds=self.timeout_seconds,
            budget=budget,
            max_attempts=self.max_attempts,
            idempotency_key=idempotency_key,
            fingerprint=self.fingerprint() if idempotency_key is not None else None,
            thread=None if self.thread_id is None else InThread(id=self.thread_id),
        )

    def fingerprint(self) -> str:
        """The same for two requests that ask for the same, however their JSON was written."""
        asked = self.model_dump(mode="json", include=set(TaskRequest.model_fields))
        if asked["thread_id"] is None:  # the same as before there were threads
            del asked["thread_id"]
        body = json.dumps(asked, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(body.encode()).hexdigest()


class BatchItem(TaskRequest):
    """A task of a batch."""

    idempotency_key: Annotated[str, StringConstraints(pattern=rf"^{IDEMPOTENCY_KEY}$")] | None = Field(
        default=None, description="The same key with the same task is the same task, in a batch or alone."
    )


def _item_or_problem(value: Any) -> BatchItem | Problem:
    try:
        return BatchItem.model_validate(value)
    except ValidationError as error:
        return problem_of_fields(error.errors())


class BatchRequest(_Strict):
    """Tasks to be run, each accepted or refused by itself."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "tasks": [
                        {"agent": "assistant", "input": "What is 12 * 7?", "idempotency_key": "sums-1"},
                        {"agent": "assistant", "input": "What is 12 * 8?", "idempotency_key": "sums-2"},
                    ]
                }
            ]
        }
    )

    tasks: list[
        Annotated[BatchItem | Problem, PlainValidator(_item_or_problem, json_schema_input_type=BatchItem)]
    ] = Field(min_length=1, max_length=BATCH_MOST)


class BatchResult(_Strict):
    """What became of one task of a batch."""

    status: int = Field(description="What a request of its own would have been answered: 202, 200, 422, …")
    task_id: str | None = Field(default=None, description="The task; `null` where it was refused.")
    problem: Problem | None = Field(default=None, description="Why it was refused; `null` where it was not.")


class BatchBody(_Strict):
    """What became of each task, in the order of the request."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {"status": 202, "task_id": "01996c2e-5d1a-7c3e-9f60-2b1f3c8a4d77", "problem": None},
                        {"status": 200, "task_id": "01996c2e-5d1a-7c3e-9f60-2b1f3c8a4d70", "problem": None},
                    ]
                }
            ]
        }
    )

    items: list[BatchResult]


class ErrorBody(_Strict):
    """Why a task failed, or its last attempt did."""

    code: str = Field(description="A stable word for programs.")
    message: str = Field(description="For people.")


class UsageBody(_Strict):
    """What the task has used."""

    model_calls: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = Field(
        default=None, description="`null` where no price is known, which is not zero."
    )
    unsettled_usd: float = Field(
        default=0.0, description="Reserved for calls of unknown cost, under way or lost."
    )


class TaskBody(_Strict):
    """A task."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01996c2e-5d1a-7c3e-9f60-2b1f3c8a4d77",
                    "agent": "assistant",
                    "status": "completed",
                    "input": "What is 12 * 7?",
                    "output": "84",
                    "error": None,
                    "labels": {"team": "search"},
                    "priority": 0,
                    "attempt": 1,
                    "usage": {"model_calls": 2, "tool_calls": 1, "input_tokens": 240, "output_tokens": 31},
                    "created_at": "2026-11-22T09:00:00.120000Z",
                    "updated_at": "2026-11-22T09:00:01.840000Z",
                    "started_at": "2026-11-22T09:00:00.130000Z",
                    "finished_at": "2026-11-22T09:00:01.840000Z",
                    "run_after": None,
                    "thread_id": None,
                }
            ]
        }
    )

    id: str
    agent: str
    status: TaskStatus
    input: JsonValue
    output: JsonValue = Field(description="What a completed task has produced, else `null`.")
    error: ErrorBody | None
    labels: dict[str, str]
    priority: int
    attempt: int = Field(
        description="How often it was started, hand-overs and attempts that made progress not counted."
    )
    usage: UsageBody
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    run_after: datetime | None = Field(
        default=None,
        description="No worker takes it before this moment; `null` while one has it, while it waits for an answer or "
        "for its turn in a thread, and once it has ended.",
    )
    thread_id: str | None = Field(
        default=None, description="The conversation that it belongs to; `null` for none."
    )

    @classmethod
    def of(cls, task: Task) -> TaskBody:
        """A task as it is told."""
        error = None if task.error is None else ErrorBody(code=task.error.code, message=task.error.message)
        usage = UsageBody(
            model_calls=task.model_calls,
            tool_calls=task.tool_calls,
            input_tokens=task.tokens.input_tokens,
            output_tokens=task.tokens.output_tokens,
            cost_usd=task.tokens.cost_usd,
            unsettled_usd=usd(task.unsettled),
        )
        return cls(
            id=task.id,
            agent=task.agent,
            status=task.status,
            input=_plain(task.input),
            output=_plain(task.output),
            error=error,
            labels=dict(task.labels),
            priority=task.priority,
            attempt=task.attempt,
            usage=usage,
            created_at=_moment(task.created_at),
            updated_at=_moment(task.updated_at),
            started_at=None if task.started_at is None else _moment(task.started_at),
            finished_at=None if task.finished_at is None else _moment(task.finished_at),
            run_after=_run_after(task),
            thread_id=task.thread_id,
        )


class TaskPage(_Strict):
    """Tasks, newest first."""

    items: list[TaskBody]
    next_cursor: str | None = Field(
        description="Pass it as `cursor` for the next page; `null` on the last one."
    )

    @classmethod
    def of(cls, tasks: Sequence[Task], limit: int) -> TaskPage:
        """A page of at most ``limit`` tasks, made from up to one more than that."""
        shown = tasks[:limit]
        following = encode_cursor({"tasks_before": shown[-1].id}) if len(tasks) > limit else None
        return cls(items=[TaskBody.of(task) for task in shown], next_cursor=following)


class ThreadBody(_Strict):
    """A conversation."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "chat-42",
                    "turns": 3,
                    "current_task": "01996c2e-5d1a-7c3e-9f60-2b1f3c8a4d77",
                    "created_at": "2026-11-22T09:00:00.120000Z",
                    "updated_at": "2026-11-22T09:05:01.840000Z",
                }
            ]
        }
    )

    id: str
    turns: int = Field(description="So many tasks it has had; `GET /tasks?thread_id=…` lists them.")
    current_task: str | None = Field(description="The task whose turn it is; `null` when all have ended.")
    created_at: datetime
    updated_at: datetime = Field(description="When a task was last added, or had its turn.")

    @classmethod
    def of(cls, thread: Thread) -> ThreadBody:
        """A thread as it is told."""
        return cls(
            id=thread.id,
            turns=thread.turns,
            current_task=thread.current,
            created_at=_moment(thread.created_at),
            updated_at=_moment(thread.updated_at),
        )


class ThreadPage(_Strict):
    """Threads, those first in which something happened last."""

    items: list[ThreadBody]
    next_cursor: str | None = Field(
        description="Pass it as `cursor` for the next page; `null` on the last one."
    )

    @classmethod
    def of(cls, threads: Sequence[Thread], limit: int) -> ThreadPage:
        """A page of at most ``limit`` threads, made from up to one more than that."""
        shown, following = threads[:limit], None
        if len(threads) > limit:
            following = encode_cursor({"threads_before": [shown[-1].updated_at, shown[-1].id]})
        return cls(items=[ThreadBody.of(thread) for thread in shown], next_cursor=following)


class ThreadDeleted(_Strict):
    """What was deleted."""

    tasks: int = Field(description="So many tasks, with all their steps.")


class StepPage(_Strict):
    """Steps in their order; each is the stored form of a step with its number `seq` and its time `at`."""

    items: list[dict[str, JsonValue]]
    next_after: int | None = Field(
        default=None,
        description="Pass it as `after` for the next page; `null` when these are all there are now.",
    )

    @classmethod
    def of(cls, steps: Sequence[Recorded], limit: int) -> StepPage:
        """A page of at most ``limit`` steps, made from up to one more than that."""
        items = [cast("dict[str, JsonValue]", recorded_to_json(recorded)) for recorded in steps[:limit]]
        return cls(items=items, next_after=cls.following(steps, limit))

    @staticmethod
    def following(steps: Sequence[Recorded], limit: int) -> int | None:
        """What is ``next_after`` on a page of at most ``limit`` steps, made from up to one more than that."""
        return steps[limit - 1].seq if len(steps) > limit else None


class ApprovalRequest(_Strict):
    """A person's answer to an open approval."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"approved": False, "reason": "Not on a Friday.", "by": "kim"}]}
    )

    approved: Annotated[bool, Field(strict=True)]
    reason: Annotated[str, StringConstraints(max_length=2000)] = Field(
        default="", description="The model is told it."
    )
    by: Annotated[str, StringConstraints(max_length=200)] = Field(default="", description="Who answered.")

    def as_step(self, approval_id: str) -> ApprovalGiven:
        """The answer as it is recorded."""
        return ApprovalGiven(approval_id=approval_id, approved=self.approved, reason=self.reason, by=self.by)


class AgentBudgetBody(_Strict):
    """The agent's own limits of each run; ``null`` for none."""

    steps: int | None
    tokens: int | None
    seconds: float | None
    usd: float | None = None


class ToolBody(_Strict):
    """A tool of an agent."""

    name: str
    description: str
    effect: str
    approval: bool


class AgentBody(_Strict):
    """An agent that can be run here."""

    name: str
    model: str
    planning: str
    instructions: str
    tools: list[ToolBody]
    budget: AgentBudgetBody

    @classmethod
    async def of(cls, served: Served) -> AgentBody:
        """An agent as it is told. Its toolsets are asked what they hold."""
        agent, tools = served.agent, list[ToolBody]()
        for given in agent.tools:
            toolset = given if _is_toolset(given) else FunctionToolset([cast("Tool", given)])
            for spec in await toolset.specs():
                tools.append(
                    ToolBody(
                        name=spec.name,
                        description=spec.description,
                        effect=spec.effect,
                        approval=spec.approval,
                    )
                )
        limits = agent.limits
        return cls(
            name=agent.name,
            model=agent.model if isinstance(agent.model, str) else agent.model.name,
            planning=agent.planning,
            instructions=agent.instructions,
            tools=tools,
            budget=AgentBudgetBody(
                steps=limits.steps, tokens=limits.tokens, seconds=limits.seconds, usd=limits.usd
            ),
        )


class AgentPage(_Strict):
    """All agents."""

    items: list[AgentBody]


# --- helpers ------------------------------------------------------------------------------------------------------


def _is_toolset(given: Any) -> TypeGuard[Toolset]:
    return not isinstance(given, Tool) and hasattr(given, "specs")


def _plain(value: Any) -> JsonValue:
    found: JsonValue = value
    return found


def _run_after(task: Task) -> datetime | None:
    takeable = task.status in (TaskStatus.PENDING, TaskStatus.WAITING)
    return _moment(task.run_after) if takeable and task.run_after is not None else None


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
