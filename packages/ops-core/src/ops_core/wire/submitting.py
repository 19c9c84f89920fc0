"""What is submitted: a task, or a batch of them."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import ConfigDict, Field, PlainValidator, StringConstraints, ValidationError

from agentkit.budget.limits import Limits
from agentkit.tracing import Trace
from ops_core.listing import IDEMPOTENCY_KEY
from ops_core.problems import Problem, problem_of_fields
from ops_core.task import DEFAULT_TENANT, InThread, NewTask
from ops_core.wire.forms import LabelKey, LabelValue, Moment, Name, Strict, TextOrObject, ThreadId

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
