"""Conversion between rows and values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeAlias, cast

from sqlalchemy import Row

from agentkit.budget.limits import Limits
from agentkit.errors import Actor, RunError, TranscriptError
from agentkit.messages import Usage
from agentkit.money import nanos, usd
from agentkit.tracing import Trace
from agentkit.transcript.codec import decode_shown, from_json_text, to_json_text
from agentkit.transcript.steps import (
    Finished,
    ModelFailed,
    ModelReplied,
    NestedSpent,
    Recorded,
    Step,
    Summarised,
    ToolReturned,
    Turn,
)
from ops_core.errors import InvalidRequest, TaskUnreadable
from ops_core.task import NewTask, Task, TaskStatus, Thread

AnyRow: TypeAlias = Row[*tuple[Any, ...]]


def columns_of(row: AnyRow) -> Mapping[str, Any]:
    """The values in a row by name of the column."""
    found: Any = row._mapping  # noqa: SLF001  (the documented name of a row's mapping)
    return found  # type: ignore[no-any-return]


def task_of(row: AnyRow) -> Task:
    """A task from a whole row of its table.

    Raises:
        TaskUnreadable: it was written by a newer release, or is damaged.
    """
    try:
        return task_from(columns_of(row))
    except Exception as error:  # noqa: BLE001  (whatever a damaged value makes of it)
        raise unreadable(type(error).__name__) from None


def status_of(row: AnyRow) -> TaskStatus:
    """The status in a row.

    Raises:
        TaskUnreadable: it is none that this release knows.
    """
    try:
        return TaskStatus(row.status)
    except ValueError:
        raise unreadable("its status") from None


def unreadable(what: str) -> TaskUnreadable:
    """The error of a row that cannot be read."""
    message = f"its row cannot be read here ({what}): a newer release has written it, or it is damaged"
    return TaskUnreadable(message)


def task_from(found: Mapping[str, Any]) -> Task:
    """A task from the columns of its table; raises whatever a damaged value makes of it."""
    return Task(
        **{name: found[name] for name in _AS_THEY_ARE},
        status=TaskStatus(found["status"]),
        input=from_json_text(found["input"]),
        output=None if found["output"] is None else from_json_text(found["output"]),
        error=error_of(found["error"]),
        labels=labels_of(found["labels"]),
        budget=budget_of(found["budget"]),
        tokens=Usage(
            input_tokens=found["input_tokens"],
            output_tokens=found["output_tokens"],
            cost_usd=None if found["cost_usd"] is None else usd(nanos(found["cost_usd"])),
        ),
        trace=Trace.of_text(found["trace"]),
        looked_at=found.get("moment"),
    )


_AS_THEY_ARE = (
    "id",
    "tenant",
    "agent",
    "priority",
    "run_after",
    "timeout_seconds",
    "deadline_at",
    "attempt",
    "max_attempts",
    "epoch",
    "steps",
    "cancel_requested",
    "lease_owner",
    "lease_until",
    "model_calls",
    "tool_calls",
    "created_at",
    "updated_at",
    "started_at",
    "finished_at",
    "thread_id",
    "unsettled",
    "retried_as",
    "status_since",
)
"""Columns of a task that are its fields without a conversion."""


def labels_of(stored: str) -> Mapping[str, str]:
    """The labels in a row."""
    found = from_json_text(stored)
    labels: dict[str, Any] = {"": None}
    if isinstance(found, dict):
        labels = cast("dict[str, Any]", found)
    if not all(type(value) is str for value in labels.values()):
        message = "labels are no texts by name"
        raise ValueError(message)
    return labels


def budget_of(stored: str | None) -> Limits | None:
    """The limits in a row."""
    limits: dict[str, Any] = {} if stored is None else json.loads(stored)
    limits.pop(IN_THREAD, None)
    return Limits(**limits) if limits else None


IN_THREAD = "in_thread"
"""Stands among the limits of a task that belongs to a thread. Releases that know no threads refuse to read it, and
leave the task to newer ones: they would run it without its conversation."""


def thread_of(row: AnyRow) -> Thread:
    """A thread from a whole row of its table."""
    return Thread(
        tenant=row.tenant,
        id=row.id,
        turns=row.turns,
        current=row.current_task,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def turn_of(row: AnyRow) -> Turn:
    """What the later runs of its thread see of a task that has ended (``status``, ``input``, ``output``).

    Raises:
        TaskUnreadable: it was written by a newer release, or is damaged.
    """
    try:
        output = None if row.output is None else from_json_text(row.output)
        return Turn(input=from_json_text(row.input), output=output, status=row.status)
    except (ValueError, RecursionError) as error:
        raise unreadable(f"an earlier turn of its thread: {type(error).__name__}") from None


def error_of(stored: str | None) -> RunError | None:
    """The error in a row."""
    if stored is None:
        return None
    fields: dict[str, Any] = from_json_text(stored)
    if not type(fields["code"]) is type(fields["message"]) is str:
        message = "an error has no code, or no message"
        raise ValueError(message)
    fields["actor"] = Actor(fields["actor"])
    return RunError(**fields)


def error_text(error: RunError | None) -> str | None:
    """An error as it is stored on its task."""
    return None if error is None else to_json_text({**asdict(error), "actor": str(error.actor)})


def recorded_of(row: AnyRow) -> Recorded:
    """A step from its row (``seq``, ``at``, ``body``); one that cannot be read is shown as such."""
    return Recorded(seq=row.seq, at=row.at, step=decode_shown(row.body))


def new_task_values(new: NewTask, task_id: str) -> dict[str, Any]:
    """The columns of a task that the caller decides.

    Raises:
        InvalidRequest: JSON cannot express the input.
    """
    try:
        given = to_json_text(new.input)
    except TranscriptError:
        message = "input: JSON cannot express it (not a number, half a character, or no JSON type at all)"
        raise InvalidRequest(message, field="input") from None
    return {
        "id": task_id,
        "tenant": new.tenant,
        "agent": new.agent,
        "status": TaskStatus.PENDING.value,
        "input": given,
        "labels": to_json_text(dict(new.labels)),
        "priority": new.priority,
        "timeout_seconds": new.timeout_seconds,
        "budget": _budget_text(new),
        "max_attempts": new.max_attempts,
        "idempotency_key": new.idempotency_key,
        "fingerprint": new.fingerprint,
        "trace": None if new.trace is None else new.trace.text,
    }


def _budget_text(new: NewTask) -> str | None:
    limits: dict[str, Any] = {} if new.budget is None else asdict(new.budget)
    if limits.get("usd", 0) is None:
        del limits["usd"]  # workers of an earlier release do not know it
    if new.thread is not None:
        limits[IN_THREAD] = True
    return to_json_text(limits) if limits else None


NEW_TASK_COLUMNS = (
    "id",
    "tenant",
    "agent",
    "status",
    "input",
    "labels",
    "priority",
    "timeout_seconds",
    "budget",
    "max_attempts",
    "idempotency_key",
    "fingerprint",
    "trace",
)
"""What :func:`new_task_values` gives."""


def accepted(
    new: NewTask,
    values: Mapping[str, Any],
    created_at: float,
    updated_at: float,
    run_after: float,
    deadline_at: float | None,
) -> Task:
    """The task that was just inserted, from what was given and the moments that the database has set."""
    return Task(
        id=values["id"],
        tenant=new.tenant,
        agent=new.agent,
        status=TaskStatus.PENDING,
        input=json.loads(values["input"]),
        labels=new.labels,
        priority=new.priority,
        run_after=run_after,
        timeout_seconds=new.timeout_seconds,
        budget=new.budget,
        max_attempts=new.max_attempts,
        trace=new.trace,
        deadline_at=deadline_at,
        created_at=created_at,
        updated_at=updated_at,
    )


def used_by(step: Step) -> Mapping[str, int | float]:
    """What a step adds to the sums that its task keeps."""
    match step:
        case ModelReplied(usage=used):
            sums = {"model_calls": 1, "input_tokens": used.input_tokens, "output_tokens": used.output_tokens}
            return sums if used.cost_usd is None else {**sums, "cost_usd": used.cost_usd}
        case Summarised(usage=used, model=model) if model:
            return used_by(ModelReplied(parts=(), usage=used))
        case ModelFailed(usage=Usage() as used) | NestedSpent(usage=Usage() as used, failed=True):
            sums = {"input_tokens": used.input_tokens, "output_tokens": used.output_tokens}
            return sums if used.cost_usd is None else {**sums, "cost_usd": used.cost_usd}
        case NestedSpent(usage=used, failed=False):
            return used_by(ModelReplied(parts=(), usage=used or Usage()))
        case ToolReturned():
            return {"tool_calls": 1}
        case _:
            return {}


def ending_values(step: Finished) -> dict[str, Any]:
    """The columns that a last step sets."""
    output = to_json_text(step.output) if step.status == "completed" else None
    return {
        "status": TaskStatus(step.status).value,
        "output": output,
        "error": error_text(step.error),
        "run_after": None,
    }
