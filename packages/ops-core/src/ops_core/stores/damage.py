"""Rows of tasks that cannot be read as they are: written by a newer release, or damaged.

Whoever looks at tasks is shown such a row as far as it goes, with its id and an error that names the columns, so that
one row never hides the others. Whoever would carry it is refused: see :func:`ops_core.stores.rows.task_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import isfinite
from typing import Any

from agentkit.errors import Actor, RunError
from agentkit.tracing import Trace
from agentkit.transcript.codec import from_json_text
from ops_core.errors import TaskUnreadable
from ops_core.stores.rows import AnyRow, budget_of, columns_of, error_of, labels_of, task_from
from ops_core.task import EARLIEST_SECONDS, LATEST_SECONDS, Task, TaskStatus

MAX_SHOWN = 40
"""Number of characters of a status that is not known that are shown."""


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and isfinite(value) and value >= 0


def _is_moment(value: Any) -> bool:
    return isinstance(value, int | float) and EARLIEST_SECONDS <= value <= LATEST_SECONDS


def _reads(read: Callable[[Any], object]) -> Callable[[Any], bool]:
    def holds(value: Any) -> bool:
        try:
            read(value)
        except Exception:  # noqa: BLE001  (whatever a damaged value makes of it)
            return False
        return True

    return holds


_ALWAYS: Mapping[str, tuple[Callable[[Any], bool], Any]] = {
    "agent": (_is_text, ""),
    "status": (_reads(TaskStatus), TaskStatus.WAITING.value),
    "input": (_reads(from_json_text), "null"),
    "labels": (_reads(labels_of), "{}"),
    "priority": (lambda value: type(value) is int, 0),
    **dict.fromkeys(("attempt", "max_attempts", "epoch", "steps"), (_is_count, 0)),
    **dict.fromkeys(
        ("model_calls", "tool_calls", "input_tokens", "output_tokens", "unsettled"), (_is_count, 0)
    ),
    **dict.fromkeys(("created_at", "updated_at"), (_is_moment, 0.0)),
}
"""What a column must be, and what is shown in the place of anything else."""

_WHERE_SET: Mapping[str, Callable[[Any], bool]] = {
    "output": _reads(from_json_text),
    "error": _reads(error_of),
    "budget": _reads(budget_of),
    "trace": _reads(Trace.of_text),
    **dict.fromkeys(("timeout_seconds", "cost_usd"), _is_amount),
    **dict.fromkeys(
        ("run_after", "deadline_at", "lease_until", "started_at", "finished_at", "status_since"), _is_moment
    ),
    **dict.fromkeys(("lease_owner", "thread_id", "retried_as"), _is_text),
}
"""The same for columns that may be empty, which are shown as empty then."""


def shown_task(row: AnyRow) -> Task:
    """A task from a whole row of its table, as far as it can be read; its error names the columns that cannot."""
    found = columns_of(row)
    wrong: dict[str, Any] = {
        name: instead for name, (holds, instead) in _ALWAYS.items() if not holds(found[name])
    }
    wrong |= {
        name: None for name, holds in _WHERE_SET.items() if found[name] is not None and not holds(found[name])
    }
    if not wrong:
        return task_from(found)
    named = ", ".join(
        f"{name} {found[name]!r:.{MAX_SHOWN}}" if name == "status" else name for name in sorted(wrong)
    )
    mended = {**found, **wrong}
    message = (
        f"this row cannot be read here, for its {named}: a newer release has written it, or it is damaged"
    )
    earlier = error_of(mended["error"])
    if earlier is not None and earlier.code != TaskUnreadable.code:
        message += f"; its error is {earlier}"
    mended["error"] = None
    error = RunError(code=TaskUnreadable.code, message=message, actor=Actor.OPERATOR)
    return replace(task_from(mended), error=error)
