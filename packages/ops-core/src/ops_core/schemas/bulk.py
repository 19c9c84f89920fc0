"""Bodies of verbs on many tasks at once."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from ops_core.bulk import DONE, BulkVerb, Count, Handled, TaskSelection
from ops_core.schemas.fields import Name, Strict, ThreadId, moment
from ops_core.schemas.queries import encode_cursor, task_filter, task_selection
from ops_core.task import TaskStatus


class BulkRequest(Strict):
    """Which tasks are meant: those that fit all that is given."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"agent": "assistant", "older_than_seconds": 7200}]}
    )

    status: list[TaskStatus] = Field(
        default_factory=list[TaskStatus],
        max_length=6,
        description="In one of these statuses. Where none is named, tasks that have not ended are cancelled, and tasks "
        "that failed are retried.",
    )
    agent: Name | None = Field(default=None, description="Of this agent.")
    label: Annotated[str, StringConstraints(max_length=400)] | None = Field(
        default=None, description="With this label: `key` or `key=value`."
    )
    thread_id: ThreadId | None = Field(default=None, description="Of this thread.")
    older_than_seconds: Annotated[float, Field(strict=True, gt=0, le=315_576_000)] | None = Field(
        default=None, description="Submitted longer ago."
    )
    all: bool = Field(default=False, description="Every task; needed where nothing else is given.")
    dry_run: bool = Field(default=False, description="Only count them.")
    cursor: str | None = Field(
        default=None, description="`next_cursor` of the answer before, with the same filters."
    )


class BulkBody(Strict):
    """What became of the tasks, by number. A request looks at 1,000 tasks at most."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "matched": None,
                    "oldest_at": None,
                    "newest_at": None,
                    "done": {"cancelled": 998, "cancelling": 1},
                    "skipped": {"ended": 1},
                    "next_cursor": None,
                }
            ]
        }
    )

    matched: int | None = Field(default=None, description="With `dry_run`: number of tasks that fit.")
    oldest_at: datetime | None = Field(default=None, description="When the oldest of them was submitted.")
    newest_at: datetime | None = Field(default=None, description="When the newest of them was submitted.")
    done: dict[str, int] = Field(
        default_factory=dict[str, int],
        description="`cancelled`: ended. `cancelling`: running, and its worker was asked to end it. `retried`: a new "
        "task carries it on.",
    )
    skipped: dict[str, int] = Field(
        default_factory=dict[str, int],
        description="Tasks that were left out, by reason: `ended`, `cancelling_before`, `retried_before`, `changed`, "
        "`gone`, or the code of an error, for example `thread_busy`.",
    )
    next_cursor: str | None = Field(
        default=None, description="Pass it as `cursor` to go on; `null` where all tasks were looked at."
    )

    @classmethod
    def of(cls, handled: Handled, selection: TaskSelection) -> BulkBody:
        """The outcome of one request."""
        counts = sorted((str(outcome), count) for outcome, count in handled.outcomes.items())
        following = encode_cursor({"bulk_at": handled.last}, selection) if handled.more else None
        return cls(
            done={outcome: count for outcome, count in counts if outcome in DONE},
            skipped={outcome: count for outcome, count in counts if outcome not in DONE},
            next_cursor=following,
        )

    @classmethod
    def counted(cls, count: Count) -> BulkBody:
        """The outcome of a dry run."""
        return cls(
            matched=count.tasks,
            oldest_at=None if count.oldest_at is None else moment(count.oldest_at),
            newest_at=None if count.newest_at is None else moment(count.newest_at),
        )


def selection_of(verb: BulkVerb, request: BulkRequest) -> TaskSelection:
    """The tasks that a request is for.

    Raises:
        InvalidRequest: a field makes no sense, nothing is said, or all and something; ``field`` names it.
    """
    wanted = task_filter(
        status=request.status, agent=request.agent, label=request.label, thread_id=request.thread_id
    )
    return task_selection(
        verb,
        wanted,
        older_than_seconds=request.older_than_seconds,
        everything=request.all,
        cursor=request.cursor,
    )
