"""Verbs on many tasks at once: which tasks are selected, and the result of each. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ops_core.task import TaskStatus

MAX_TOGETHER = 100
"""Number of tasks in one transaction: others that write wait for it."""

MAX_TASKS = 1000
"""Number of tasks for one request."""


class BulkVerb(StrEnum):
    """What is done to each of the tasks."""

    CANCEL = "cancel"
    RETRY = "retry"


FITTING: Mapping[BulkVerb, tuple[TaskStatus, ...]] = {
    BulkVerb.CANCEL: (TaskStatus.PENDING, TaskStatus.RUNNING, TaskStatus.WAITING),
    BulkVerb.RETRY: (TaskStatus.FAILED, TaskStatus.CANCELLED),
}
"""The statuses of tasks for which a verb makes sense."""

USUAL: Mapping[BulkVerb, tuple[TaskStatus, ...]] = {
    BulkVerb.CANCEL: FITTING[BulkVerb.CANCEL],
    BulkVerb.RETRY: (TaskStatus.FAILED,),
}
"""The statuses that are meant where none is named: what somebody has cancelled is not started again unasked."""


class Outcome(StrEnum):
    """What became of one task."""

    CANCELLED = "cancelled"
    """It has ended."""
    CANCELLING = "cancelling"
    """Its worker was asked to end it."""
    RETRIED = "retried"
    """A new task carries it on."""
    ENDED = "ended"
    """It had ended before."""
    CANCELLING_BEFORE = "cancelling_before"
    """Its worker was asked before."""
    RETRIED_BEFORE = "retried_before"
    """Another task carries it on already."""
    CHANGED = "changed"
    """It changed at that very moment; ask again."""
    GONE = "gone"
    """It was deleted."""


DONE = frozenset({Outcome.CANCELLED, Outcome.CANCELLING, Outcome.RETRIED})
"""Outcomes in which the verb has had its effect now; all others are reasons why a task was left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSelection:
    """Which tasks a verb is for. Empty fields do not filter.

    Attributes:
        verb: what is done to them; it says in which order: the newest first are cancelled, so that no task of a thread
            has its turn meanwhile, and the oldest first are retried, so that those of a thread keep their order.
        status: in one of these.
        agent: of this agent.
        label: ``key`` or ``key=value``.
        thread: of the thread of this id.
        older_seconds: submitted longer ago.
        after: those behind the task of this id.
    """

    verb: BulkVerb
    status: Collection[TaskStatus]
    agent: str | None = None
    label: str | None = None
    thread: str | None = None
    older_seconds: float | None = None
    after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many tasks there are.

    Attributes:
        tasks: number of them.
        oldest_at: the first moment of what the count goes by, submission or end; ``None`` for no task.
        newest_at: the last one.
    """

    tasks: int
    oldest_at: float | None = None
    newest_at: float | None = None


@dataclass(slots=True)
class Handled:
    """What became of the tasks of one request.

    Attributes:
        outcomes: number of tasks by what became of them: an :class:`Outcome`, or the code of an error.
        last: id of the last task that was looked at.
        more: there are others behind it.
    """

    outcomes: Counter[str] = field(default_factory=Counter[str])
    last: str | None = None
    more: bool = False
