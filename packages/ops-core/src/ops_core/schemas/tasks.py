"""Tasks in the JSON of the API: what is submitted, alone or in a batch, and what is returned."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Annotated, Any, cast

from pydantic import ConfigDict, Field, JsonValue, PlainValidator, StringConstraints, ValidationError

from agentkit.budget.limits import Limits
from agentkit.money import usd
from agentkit.tracing import Trace
from agentkit.transcript.codec import recorded_to_json
from agentkit.transcript.steps import Recorded
from ops_core.ports import Page, TaskFilter
from ops_core.problem_details import Problem, problem_of_fields
from ops_core.schemas.approvals import ApprovalBody, LateResultBody
from ops_core.schemas.fields import LabelKey, LabelValue, Moment, Name, Strict, TextOrObject, ThreadId, moment
from ops_core.schemas.queries import IDEMPOTENCY_KEY, encode_cursor
from ops_core.schemas.workers import LeaseBody
from ops_core.task import DEFAULT_TENANT, InThread, NewTask, Task, TaskStatus

BATCH_MOST = 1000
"""So many tasks are in a batch at most."""


class BudgetBody(Strict):
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


class TaskRequest(Strict):
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
    expires_seconds: Annotated[float, Field(strict=True, gt=0, le=31_536_000)] | None = Field(
        default=None,
        description="So long after its submission, or after `run_at`, the task may be started; if no worker has "
        "started it by then, it ends as failed (`expired`) and is not started any more. A retry of it does not expire.",
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

    def as_new_task(
        self,
        idempotency_key: str | None = None,
        tenant: str = DEFAULT_TENANT,
        trace: Trace | None = None,
    ) -> NewTask:
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
            expires_seconds=self.expires_seconds,
            budget=budget,
            max_attempts=self.max_attempts,
            idempotency_key=idempotency_key,
            fingerprint=self.fingerprint() if idempotency_key is not None else None,
            thread=None if self.thread_id is None else InThread(id=self.thread_id),
            trace=trace,
        )

    def fingerprint(self) -> str:
        """The same for two requests that ask for the same, however their JSON was written."""
        asked = self.model_dump(mode="json", include=set(TaskRequest.model_fields))
        for later in ("thread_id", "expires_seconds"):  # the same as before there were these fields
            if asked[later] is None:
                del asked[later]
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


class BatchRequest(Strict):
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


class BatchResult(Strict):
    """What became of one task of a batch."""

    status: int = Field(description="What a request of its own would have been answered: 202, 200, 422, …")
    task_id: str | None = Field(default=None, description="The task; `null` where it was refused.")
    problem: Problem | None = Field(default=None, description="Why it was refused; `null` where it was not.")


class BatchBody(Strict):
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


STEPS_MOST = 1000
"""So many steps are on a page at most."""

MAX_SEQ = 2**31 - 1
"""No step has a greater number."""


class ErrorBody(Strict):
    """Why a task failed, or its last attempt did."""

    code: str = Field(description="A stable word for programs.")
    message: str = Field(description="For people.")


class UsageBody(Strict):
    """What the task has used."""

    model_calls: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = Field(
        default=None, description="`null` where no price is known, which is not zero."
    )
    unsettled_usd: float = Field(
        default=0.0,
        description="Reserved, under a limit of money, for calls whose cost nobody knows: those under way, those that "
        "were cut with their worker, those that failed without a bill. It counts against the limit, and is not in "
        "`cost_usd`.",
    )


class TaskBody(Strict):
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
        description="No worker takes it before this moment; while it waits for an answer, the moment at which the "
        "first approval expires; `null` while a worker has it, while it waits for its turn in a thread, and once it "
        "has ended.",
    )
    thread_id: str | None = Field(
        default=None, description="The conversation that it belongs to; `null` for none."
    )
    retried_as: str | None = Field(
        default=None, description="The task that carries it on; `null` where it was not retried."
    )
    expires_at: datetime | None = Field(
        default=None,
        description="It is not started from this moment on; `null` where it never expires, and once it was started.",
    )
    lease: LeaseBody | None = Field(
        default=None, description="The worker that has it; `null` while it is not running."
    )
    approvals: list[ApprovalBody] = Field(
        default_factory=list[ApprovalBody],
        description="Calls that wait for a person. Told of one task, not in lists: `GET /approvals` lists all of them.",
    )
    late_results: list[LateResultBody] = Field(
        default_factory=list[LateResultBody],
        description="What workers have reported of calls of this task after they had lost their leases, the oldest "
        "first, whether somebody was asked about the call or not. Told of one task, not in lists.",
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
            created_at=moment(task.created_at),
            updated_at=moment(task.updated_at),
            started_at=None if task.started_at is None else moment(task.started_at),
            finished_at=None if task.finished_at is None else moment(task.finished_at),
            run_after=_run_after(task),
            thread_id=task.thread_id,
            retried_as=task.retried_as,
            expires_at=None if task.expires_at is None else moment(task.expires_at),
            lease=LeaseBody.of(task),
            approvals=[ApprovalBody.of(approval) for approval in task.approvals],
            late_results=[LateResultBody.of(late) for late in task.late_results],
        )


class TaskPage(Strict):
    """Tasks, newest first."""

    items: list[TaskBody]
    next_cursor: str | None = Field(
        description="Pass it as `cursor` for the next page; `null` on the last one."
    )

    @classmethod
    def of(cls, tasks: Page[Task], asked: TaskFilter) -> TaskPage:
        """A page, made from what was asked for it."""
        following = encode_cursor({"tasks_before": tasks[-1].id}, asked) if tasks.more else None
        return cls(items=[TaskBody.of(task) for task in tasks], next_cursor=following)


class StepPage(Strict):
    """Steps in their order; each is the stored form of a step with its number `seq` and its time `at`."""

    items: list[dict[str, JsonValue]]
    next_after: int | None = Field(
        default=None,
        description="Pass it as `after` for the next page; `null` when these are all there are now.",
    )

    @classmethod
    def of(cls, steps: Page[Recorded]) -> StepPage:
        """A page of these steps."""
        items = [cast("dict[str, JsonValue]", recorded_to_json(recorded)) for recorded in steps]
        return cls(items=items, next_after=cls.following(steps))

    @staticmethod
    def following(steps: Page[Recorded]) -> int | None:
        """What is ``next_after`` on a page of these steps."""
        return steps[-1].seq if steps.more else None


def _plain(value: Any) -> JsonValue:
    found: JsonValue = value
    return found


def _run_after(task: Task) -> datetime | None:
    takeable = task.status in (TaskStatus.PENDING, TaskStatus.WAITING)
    return moment(task.run_after) if takeable and task.run_after is not None else None
