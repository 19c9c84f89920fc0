"""Task and its transitions. Pure: decisions are functions and a table, and nothing here has an effect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NoReturn

from agentkit.budget.limits import Limits
from agentkit.errors import Actor, RunError
from agentkit.messages import JsonValue, Usage
from agentkit.tracing import Trace
from agentkit.transcript.steps import ApprovalAsked, Finished, Recorded, expiry
from ops_core.durations import MAX_SECONDS
from ops_core.errors import InvalidRequest, TransitionRefused
from ops_core.strict_json import is_unicode

LARGEST = 2**31 - 1
"""What every database can keep in an integer column."""

EARLIEST_SECONDS = -62_135_596_800.0
LATEST_SECONDS = 253_402_214_400.0
"""The first moment of the calendar, and the beginning of its last day: a later one, rounded, may lie beyond it."""

FREE_HANDOVERS = 5
"""So often in a row a task may be handed over in good order without progress; later ones are attempts."""

HANDOVER_SECONDS = 5.0
"""After a hand-over that counts, a task is due after so many seconds, each time so many more."""

MAX_LATE_SHOWN = 2000
"""Characters of a late result that are shown; the whole of it is recorded when a person takes it."""

DEFAULT_TENANT = "default"
"""Owner of everything until there are keys that belong to tenants."""


class TaskStatus(StrEnum):
    """Where a task stands."""

    PENDING = "pending"
    """Accepted; a worker may claim it once its time has come."""
    RUNNING = "running"
    """A worker holds its lease."""
    WAITING = "waiting"
    """It needs an answer or a moment in time, and holds no worker."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """It ended, and never changes again."""
        return self in (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED)


class Verb(StrEnum):
    """What can happen to a task."""

    CLAIM = "claim"
    """A worker takes it."""
    RELEASE = "release"
    """Its worker lets it go: shutting down, gone, or to try again later."""
    WAIT = "wait"
    """Its run cannot go on without an answer."""
    COMPLETE = "complete"
    FAIL = "fail"
    CANCEL = "cancel"


TRANSITIONS: Mapping[TaskStatus, Mapping[Verb, TaskStatus]] = {
    TaskStatus.PENDING: {
        Verb.CLAIM: TaskStatus.RUNNING,
        Verb.FAIL: TaskStatus.FAILED,
        Verb.CANCEL: TaskStatus.CANCELLED,
    },
    TaskStatus.RUNNING: {
        Verb.RELEASE: TaskStatus.PENDING,
        Verb.WAIT: TaskStatus.WAITING,
        Verb.COMPLETE: TaskStatus.COMPLETED,
        Verb.FAIL: TaskStatus.FAILED,
        Verb.CANCEL: TaskStatus.CANCELLED,
    },
    TaskStatus.WAITING: {
        Verb.CLAIM: TaskStatus.RUNNING,
        Verb.FAIL: TaskStatus.FAILED,
        Verb.CANCEL: TaskStatus.CANCELLED,
    },
    TaskStatus.COMPLETED: {},
    TaskStatus.FAILED: {},
    TaskStatus.CANCELLED: {},
}
"""The whole life of a task. A terminal status has no way out."""


def transition(status: TaskStatus, verb: Verb) -> TaskStatus:
    """The status after ``verb``.

    Raises:
        TransitionRefused: the status does not allow it.
    """
    after = TRANSITIONS[status].get(verb)
    if after is None:
        message = f"a task that is {status} cannot {verb}"
        raise TransitionRefused(message)
    return after


def statuses_that(verb: Verb) -> tuple[TaskStatus, ...]:
    """The statuses in which ``verb`` is allowed; statements take their conditions from here."""
    return tuple(status for status, verbs in TRANSITIONS.items() if verb in verbs)


TURNS_SEEN = 50
"""So many of the last turns of its thread a run is shown, unless the setting says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InThread:
    """Where a task belongs that goes on with a conversation.

    Attributes:
        id: of the thread, which begins with its first task.
        refuse: a task is not accepted while another one of the thread has not ended; else it waits for its turn.
        seen: its run is shown so many of the last turns.

    Raises:
        InvalidRequest: a field cannot be what it is; ``field`` names it.
    """

    id: str
    refuse: bool = False
    seen: int = TURNS_SEEN

    def __post_init__(self) -> None:
        _check_text("thread_id", self.id, 128)
        if not self.id:
            _refuse("thread_id", "must not be empty")
        if not 0 <= self.seen <= LARGEST:
            _refuse("thread_id", "shows no less than no turn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thread:
    """A conversation: tasks that are carried out one after the other, each seeing what came of those before.

    Attributes:
        turns: so many tasks it has had.
        current: id of the task whose turn it is; ``None`` where all have ended.
        updated_at: when a task was last added to it, or had its turn.
    """

    tenant: str
    id: str
    turns: int
    current: str | None
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """What is submitted.

    Attributes:
        agent: name of the agent in the catalog.
        input: what the run is to work on.
        tenant: who owns it.
        labels: for finding it again.
        priority: higher ones are claimed first.
        run_at: not before this moment, in seconds since the epoch; ``None`` for now.
        timeout_seconds: from its first start to its end, waiting included.
        expires_seconds: so long after its submission, or after ``run_at``, it may be started for the first time.
        budget: tightens the agent's own limits.
        max_attempts: so often it is started before it is given up.
        idempotency_key: the same key with the same request is the same task.
        fingerprint: of the request, to tell a repeated one from another one with the same key.
        thread: the conversation that it goes on with.
        trace: the trace of whoever submits it; its runs belong to that.

    Raises:
        InvalidRequest: a field cannot be what it is; ``field`` names it.
    """

    agent: str
    input: JsonValue
    tenant: str = DEFAULT_TENANT
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    priority: int = 0
    run_at: float | None = None
    timeout_seconds: float | None = None
    budget: Limits | None = None
    max_attempts: int = 5
    idempotency_key: str | None = None
    fingerprint: str | None = None
    thread: InThread | None = None
    trace: Trace | None = None
    expires_seconds: float | None = None

    def __post_init__(self) -> None:
        for name, longest in (("agent", 200), ("tenant", 64), ("idempotency_key", 255)):
            _check_text(name, getattr(self, name), longest)
        for key, value in self.labels.items():
            _check_text("labels", key, 64)
            _check_text("labels", value, 256)
        if self.run_at is not None and not EARLIEST_SECONDS <= self.run_at <= LATEST_SECONDS:
            _refuse("run_at", "must be a moment of the calendar, in seconds since the epoch")
        for name, seconds in (
            ("timeout_seconds", self.timeout_seconds),
            ("expires_seconds", self.expires_seconds),
        ):
            if seconds is not None and not 0 < seconds <= MAX_SECONDS:
                _refuse(name, f"must be more than 0, and at most {MAX_SECONDS:.0f}")
        if not -LARGEST <= self.priority <= LARGEST:
            _refuse("priority", f"must be between {-LARGEST} and {LARGEST}")
        if not 1 <= self.max_attempts <= LARGEST:
            _refuse("max_attempts", f"must be between 1 and {LARGEST}")


def _check_text(name: str, text: str | None, longest: int) -> None:
    """What every database can keep in an indexed column: no NUL, no half characters, not too long."""
    if text is None:
        return
    if len(text) > longest:
        _refuse(name, f"must have at most {longest} characters")
    if "\x00" in text or not is_unicode(text):
        _refuse(name, "must not hold NUL or half characters (lone surrogates)")


def _refuse(name: str, problem: str) -> NoReturn:
    message = f"{name} {problem}"
    raise InvalidRequest(message, field=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A promise to run something.

    Attributes:
        id: UUIDv7 as text: sorts by the moment of submission.
        status: where it stands.
        run_after: a worker may claim it from then on; while it waits for an answer, the moment at which that expires;
            ``None`` where it never does, and while it waits for its turn in a thread.
        attempt: how often it was started, without starts that made progress or were handed over in good order.
        epoch: raised by every claim; what an older holder writes is refused.
        steps: how many are recorded.
        cancel_requested: the worker that holds it will end it as cancelled.
        deadline_at: when ``timeout_seconds`` run out; before the first start, the moment at which it expires.
        lease_owner: the worker that holds it.
        lease_until: until then nobody else may claim it.
        error: why it failed, or why the last attempt did.
        thread_id: the conversation that it belongs to.
        unsettled: nano-dollars that its run has reserved for calls whose cost nobody knows (yet).
        trace: the trace of whoever has submitted it.
        approvals: questions to a person that are open; known of a task that was looked up by its id.
        late_results: what workers have reported of its calls after they had lost their leases, the oldest first; known
            of a task that was looked up by its id.
        retried_as: id of the task that carries it on; ``None`` where it was not retried.
        status_since: when it became running or waiting, if it is one of these.
        looked_at: the moment at which this was read, by the database's clock; ``None`` where it was not asked for.
    """

    id: str
    tenant: str
    agent: str
    status: TaskStatus
    input: JsonValue
    output: JsonValue = None
    error: RunError | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    priority: int = 0
    run_after: float | None = None
    timeout_seconds: float | None = None
    deadline_at: float | None = None
    budget: Limits | None = None
    attempt: int = 0
    max_attempts: int = 5
    epoch: int = 0
    steps: int = 0
    cancel_requested: bool = False
    lease_owner: str | None = None
    lease_until: float | None = None
    model_calls: int = 0
    tool_calls: int = 0
    tokens: Usage = field(default_factory=Usage)
    created_at: float = 0.0
    updated_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    thread_id: str | None = None
    unsettled: int = 0
    trace: Trace | None = None
    approvals: tuple[Approval, ...] = ()
    late_results: tuple[LateResult, ...] = ()
    retried_as: str | None = None
    status_since: float | None = None
    looked_at: float | None = field(default=None, compare=False)

    @property
    def expires_at(self) -> float | None:
        """It is not started for the first time from this moment on; ``None`` for never, and once it was started."""
        return self.deadline_at if self.started_at is None else None

    @property
    def lease_expired_seconds(self) -> float | None:
        """Time since the lease of its worker has run out; ``None`` while it holds, and for a task without one."""
        if self.lease_until is None or self.looked_at is None or self.lease_until >= self.looked_at:
            return None
        return self.looked_at - self.lease_until


@dataclass(frozen=True, slots=True, kw_only=True)
class LateResult:
    """What came of an unsafe call, from a worker that had lost its lease by then: evidence, and no step of the run.

    Attributes:
        call_id: which call.
        tool: the tool's name.
        worker: which worker began the call.
        epoch: of the lease under which it was begun.
        at: when it was reported.
        failed: the call has failed.
        shown: the result as JSON, or why the call has failed; at most the first :data:`MAX_LATE_SHOWN` characters.
    """

    call_id: str
    tool: str
    worker: str
    epoch: int
    at: float
    failed: bool
    shown: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A question to a person that is open.

    Attributes:
        task_id: of the task that waits for it.
        agent: whose call it is.
        seq: number of the step that asked.
        asked_at: when it was recorded.
        asked: the question.
        late_results: what came of the call, from workers that had lost their leases; the oldest first.
    """

    task_id: str
    agent: str
    seq: int
    asked_at: float
    asked: ApprovalAsked
    late_results: tuple[LateResult, ...] = ()

    @property
    def expires_at(self) -> float | None:
        """From then on it cannot be answered; ``None`` for never."""
        return expiry(self.asked_at, self.asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One worker's claim on a task; the fence that every write of a worker carries."""

    tenant: str
    task_id: str
    owner: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A task with the lease under which it may be written to.

    Attributes:
        seconds_left: until its deadline, by the database's clock; ``None`` for no deadline.
        begun: the first step, where the claim has recorded it: that of a run that begins, unless it is a thread's,
            whose first step says what it is shown.
    """

    task: Task
    lease: Lease
    seconds_left: float | None = None
    begun: Recorded | None = None

    @property
    def steps(self) -> tuple[Recorded, ...] | None:
        """All steps of the task, where they need not be read: it has none, or the one of this claim."""
        if self.begun is not None:
            return (self.begun,)
        return () if self.task.steps == 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a failed attempt is tried again: exponential, capped, with jitter.

    Attributes:
        first_seconds: the longest wait before the second attempt.
        factor: each further wait may be so many times longer.
        max_seconds: no wait is longer.
    """

    first_seconds: float = 1.0
    factor: float = 2.0
    max_seconds: float = 300.0

    def delay(self, attempt: int, chance: float) -> float:
        """Seconds to wait after ``attempt`` (from 1) has failed.

        Args:
            attempt: the one that failed.
            chance: a random number in [0, 1]; at least half of the longest wait is always kept.
        """
        try:
            longest = min(self.max_seconds, self.first_seconds * self.factor ** (attempt - 1))
        except OverflowError:
            longest = self.max_seconds
        return longest * (0.5 + 0.5 * chance)


def stopped_in_vain(handovers: int) -> Finished:
    """The end of a task whose workers were stopped too often before it recorded anything."""
    message = f"its worker was stopped {handovers} times in a row before anything was recorded"
    return Finished(
        status="failed", error=RunError(code="worker_lost", message=message, actor=Actor.OPERATOR)
    )


def out_of_time(timeout_seconds: float | None) -> Finished:
    """The end of a task whose ``timeout_seconds`` have run out; ``None`` where the row has lost them."""
    said = f"{timeout_seconds:g} seconds" if isinstance(timeout_seconds, int | float) else "time"
    message = f"the task did not end within its {said}"
    return Finished(status="failed", error=RunError(code="timeout", message=message, actor=Actor.USER))


EXPIRED = "expired"
"""Code of the error of a task that was not started in time."""


def expired() -> Finished:
    """The end of a task that was not started before it expired."""
    message = "the task expired before it was started, and is not started any more"
    return Finished(status="failed", error=RunError(code=EXPIRED, message=message, actor=Actor.USER))
