"""The JSON we speak: what the API takes and gives, shared with the client. Nothing unknown is accepted."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from agentkit.limits import Limits
from ops_core.task import DEFAULT_TENANT, NewTask, Task, TaskStatus

Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
LabelKey = Annotated[
    str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
]
LabelValue = Annotated[str, StringConstraints(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]


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
    seconds: Annotated[float, Field(gt=0, le=31_536_000)] | None = Field(
        default=None,
        description="Time from the first step on, without the time in which the run waits for a person.",
    )


class TaskRequest(_Strict):
    """A task to be run."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"agent": "assistant", "input": "What is 12 * 7?", "labels": {"team": "search"}}]
        }
    )

    agent: Name = Field(description="Name of the agent; `GET /agents` lists them.")
    input: str | dict[str, JsonValue] = Field(description="What the run is to work on: a text or an object.")
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = Field(
        default_factory=dict, description="For finding the task again."
    )
    priority: Annotated[int, Field(strict=True, ge=-1000, le=1000)] = Field(
        default=0, description="Higher ones are started first."
    )
    run_at: AwareDatetime | None = Field(
        default=None, description="Not before this moment (RFC 3339, with an offset)."
    )
    timeout_seconds: Annotated[float, Field(gt=0, le=31_536_000)] | None = Field(
        default=None,
        description="From the first start to the end, waiting included; after that the task has failed.",
    )
    budget: BudgetBody | None = Field(default=None, description="Limits of the run.")
    max_attempts: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(
        default=5, description="So often the task is started before it is given up."
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
        )

    def fingerprint(self) -> str:
        """The same for two requests that ask for the same, however their JSON was written."""
        body = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(body.encode()).hexdigest()


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


class TaskBody(_Strict):
    """A task."""

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
        )


class TaskPage(_Strict):
    """Tasks, newest first."""

    items: list[TaskBody]
    next_cursor: str | None = Field(
        description="Pass it as `cursor` for the next page; `null` on the last one."
    )


class StepPage(_Strict):
    """Steps in their order; each is the stored form of a step with its number `seq` and its time `at`."""

    items: list[dict[str, JsonValue]]


class ApprovalRequest(_Strict):
    """A person's answer to an open approval."""

    approved: Annotated[bool, Field(strict=True)]
    reason: Annotated[str, StringConstraints(max_length=2000)] = Field(
        default="", description="The model is told it."
    )
    by: Annotated[str, StringConstraints(max_length=200)] = Field(default="", description="Who answered.")


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
    budget: BudgetBody


class AgentPage(_Strict):
    """All agents."""

    items: list[AgentBody]


class Problem(BaseModel):
    """An error, as RFC 9457 describes it, with three members of our own."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str = Field(description="A stable word for programs.")
    actor: str | None = Field(default=None, description="Who must act.")
    field: str | None = Field(default=None, description="The field at fault, where there is one.")


def _plain(value: Any) -> JsonValue:
    found: JsonValue = value
    return found


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
