"""Every statement, once. Each function is one verb inside a transaction that the caller has begun.

A function raises an :class:`~ops_core.errors.OpsError` only before it has written anything, so that several verbs can
share a transaction and fail alone.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from agentkit.codec import encode_step, kind_of
from agentkit.errors import Actor, RunError
from agentkit.transcript import ApprovalGiven, Finished, Recorded, RunRetried, Step, ToolStarted
from ops_core.errors import IdempotencyConflict, LeaseLost, TaskNotFound, TaskUnreadable, TransitionRefused
from ops_core.ports import Inserted, Renewed, RetryLater, Swept, TaskFilter
from ops_core.stores.dialects import now
from ops_core.stores.rows import (
    NEW_TASK_COLUMNS,
    AnyRow,
    accepted,
    ending_values,
    error_text,
    new_task_values,
    recorded_of,
    task_of,
    used_by,
)
from ops_core.stores.tables import step as s
from ops_core.stores.tables import task as t
from ops_core.stores.tables import task_label
from ops_core.task import (
    Claimed,
    Lease,
    NewTask,
    Task,
    TaskStatus,
    Verb,
    out_of_time,
    statuses_that,
    transition,
)

log = logging.getLogger("ops_core.stores")

CLAIMABLE = statuses_that(Verb.CLAIM)
OPEN = statuses_that(Verb.CANCEL)
_NO_LEASE: Mapping[str, Any] = {"lease_owner": None, "lease_until": None}

_fence = (
    t.c.id == bindparam("of_task"),
    t.c.tenant == bindparam("of_tenant"),
    t.c.epoch == bindparam("of_epoch"),
    t.c.status == TaskStatus.RUNNING,
)
_progressed = t.c.steps > t.c.steps_at_claim

_add_cost_usd = cast(
    bindparam("add_cost_usd"), t.c.cost_usd.type
)  # of a bare NULL no database knows the type
_count_step: Mapping[str, Any] = {
    "steps": t.c.steps + 1,
    "updated_at": now(),
    "model_calls": t.c.model_calls + bindparam("add_model_calls"),
    "tool_calls": t.c.tool_calls + bindparam("add_tool_calls"),
    "input_tokens": t.c.input_tokens + bindparam("add_input_tokens"),
    "output_tokens": t.c.output_tokens + bindparam("add_output_tokens"),
    "cost_usd": case(
        (_add_cost_usd.is_(None), t.c.cost_usd),
        else_=func.coalesce(t.c.cost_usd, 0.0) + _add_cost_usd,
    ),
}
_append = (
    update(t)
    .where(*_fence)
    # a step that says only that a call began is no progress: the call may be what kills the workers
    .values(**_count_step, steps_at_claim=t.c.steps_at_claim + bindparam("only_began"))
    .returning(t.c.tenant, t.c.steps, t.c.updated_at)
)
_finish = (
    update(t)
    .where(*_fence)
    .values(
        **_count_step,
        **_NO_LEASE,
        finished_at=now(),
        run_after=None,
        status=bindparam("to_status"),
        output=bindparam("to_output"),
        error=bindparam("to_error"),
    )
    .returning(t.c.tenant, t.c.steps, t.c.updated_at)
)
_insert_step = insert(s)
_insert_task = (
    insert(t)
    .values(
        **{name: bindparam(f"new_{name}", type_=t.c[name].type) for name in NEW_TASK_COLUMNS},
        created_at=now(),
        updated_at=now(),
        run_after=func.coalesce(bindparam("run_at", type_=t.c.run_after.type), now()),
    )
    .returning(t.c.created_at, t.c.updated_at, t.c.run_after)
)
_one_task = select(t).where(t.c.tenant == bindparam("of_tenant"), t.c.id == bindparam("of_task"))
_same_key = select(t).where(t.c.tenant == bindparam("of_tenant"), t.c.idempotency_key == bindparam("key"))
_steps_after = (
    select(s.c.seq, s.c.at, s.c.body)
    .where(
        s.c.task_id == bindparam("of_task"),
        s.c.tenant == bindparam("of_tenant"),
        s.c.seq > bindparam("after"),
    )
    .order_by(s.c.seq)
)


def _claim(*wanted: ColumnElement[bool]) -> ReturningUpdate[Any]:
    due = (
        select(t.c.id)
        .where(t.c.status.in_(CLAIMABLE), t.c.run_after <= now(), *wanted)
        .where(t.c.agent.in_(bindparam("agents", expanding=True)))
        .order_by(t.c.priority.desc(), t.c.run_after, t.c.id)
        .limit(bindparam("slots", type_=Integer()))
        .with_for_update(skip_locked=True)
        .cte("due")  # a subquery could be carried out once for each row, and take more than there are slots
    )
    values: dict[str, Any] = {
        "status": TaskStatus.RUNNING,
        "epoch": t.c.epoch + 1,
        "attempt": t.c.attempt + case((t.c.status == TaskStatus.PENDING, 1), else_=0),
        # the first step says only that the run began: recording it is no progress
        "steps_at_claim": case((t.c.steps == 0, 1), else_=t.c.steps),
        "lease_owner": bindparam("by"),
        "lease_until": now() + bindparam("seconds"),
        "started_at": func.coalesce(t.c.started_at, now()),
        "deadline_at": func.coalesce(t.c.deadline_at, now() + t.c.timeout_seconds),
        "updated_at": now(),
    }
    return update(t).where(t.c.id.in_(select(due.c.id))).values(values).returning(t, now().label("moment"))


_claim_any = _claim()
_claim_only = _claim(t.c.id.in_(bindparam("only", expanding=True)))
_renew = (
    update(t)
    .where(tuple_(t.c.tenant, t.c.id, t.c.epoch).in_(bindparam("held", expanding=True)))
    .where(t.c.status == TaskStatus.RUNNING)
    .values(lease_until=now() + bindparam("seconds"))
    .returning(t.c.id, t.c.epoch, t.c.cancel_requested)
)


# --- submitting and looking --------------------------------------------------------------------------------------


def insert_task(connection: Connection, new: NewTask, values: Mapping[str, Any]) -> Inserted:
    """Accept a task whose columns are ``values``, or find the one that was accepted under the same key."""
    if new.idempotency_key is not None:
        same_key = {"of_tenant": new.tenant, "key": new.idempotency_key}
        found = connection.execute(_same_key, same_key).first()
        if found is not None:
            if found.fingerprint != new.fingerprint:
                message = "this idempotency key was used for a request with another body"
                raise IdempotencyConflict(message, field="Idempotency-Key")
            return Inserted(task=task_of(found), created=False)
    return Inserted(task=_insert(connection, values, new), created=True)


def _insert(connection: Connection, values: Mapping[str, Any], new: NewTask) -> Task:
    given = {f"new_{name}": value for name, value in values.items()}
    row = connection.execute(_insert_task, {**given, "run_at": new.run_at}).one()
    if new.labels:
        of = {"tenant": new.tenant, "task_id": values["id"]}
        connection.execute(
            insert(task_label), [{**of, "key": key, "value": value} for key, value in new.labels.items()]
        )
    return accepted(new, values, row)


def get_task(connection: Connection, tenant: str, task_id: str) -> Task:
    """One task of this tenant."""
    return task_of(_row(connection, tenant, task_id))


def _row(connection: Connection, tenant: str, task_id: str, *, locked: bool = False) -> AnyRow:
    wanted = _one_task.with_for_update() if locked else _one_task
    row = connection.execute(wanted, {"of_tenant": tenant, "of_task": task_id}).first()
    if row is None:
        message = f"there is no task {task_id}"
        raise TaskNotFound(message)
    return row


def list_tasks(connection: Connection, tenant: str, wanted: TaskFilter) -> Sequence[Task]:
    """Tasks of this tenant, newest first (their ids sort by the moment of submission)."""
    conditions: list[ColumnElement[bool]] = [t.c.tenant == tenant]
    if wanted.status:
        conditions.append(t.c.status.in_(wanted.status))
    if wanted.agent is not None:
        conditions.append(t.c.agent == wanted.agent)
    if wanted.before is not None:
        conditions.append(t.c.id < wanted.before)
    if wanted.label is not None:
        key, given, value = wanted.label.partition("=")
        labelled = [task_label.c.tenant == tenant, task_label.c.key == key]
        if given:
            labelled.append(task_label.c.value == value)
        conditions.append(t.c.id.in_(select(task_label.c.task_id).where(*labelled)))
    rows = connection.execute(select(t).where(*conditions).order_by(t.c.id.desc()).limit(wanted.limit))
    return [task_of(row) for row in rows]


def list_steps(
    connection: Connection, tenant: str, task_id: str, after: int, limit: int | None
) -> Sequence[Recorded]:
    """Steps of one task of this tenant, in order."""
    wanted = _steps_after if limit is None else _steps_after.limit(limit)
    rows = connection.execute(wanted, {"of_tenant": tenant, "of_task": task_id, "after": after})
    steps = [recorded_of(row) for row in rows]
    if not steps:
        _row(connection, tenant, task_id)  # no steps, or no task?
    return steps


# --- what workers do ---------------------------------------------------------------------------------------------


def claim_tasks(
    connection: Connection,
    owner: str,
    slots: int,
    lease_seconds: float,
    agents: Collection[str],
    only: Collection[str] | None = None,
) -> Sequence[Claimed]:
    """Take due tasks. One statement: whoever else looks at the same time finds them taken."""
    given: dict[str, Any] = {"by": owner, "slots": slots, "seconds": lease_seconds, "agents": list(agents)}
    if only is None:
        taken = connection.execute(_claim_any, given)
    else:
        taken = connection.execute(_claim_only, {**given, "only": list(only)})
    rows = sorted(taken, key=lambda row: (-row.priority, row.run_after, row.id))
    return [claimed for row in rows if (claimed := _claimed_if_readable(connection, row)) is not None]


def _claimed_if_readable(connection: Connection, row: AnyRow) -> Claimed | None:
    try:
        return _claimed(row)
    except (TypeError, ValueError) as error:  # by a newer release: one task must not strand all others
        log.error("task %s cannot be read here (%s); left to newer workers", row.id, type(error).__name__)
        lease = Lease(tenant=row.tenant, task_id=row.id, owner=row.lease_owner, epoch=row.epoch)
        release_task(connection, lease, RetryLater.by_a_newer_release(TaskUnreadable()))
        return None


def _claimed(row: AnyRow) -> Claimed:
    task = task_of(row)
    lease = Lease(tenant=task.tenant, task_id=task.id, owner=row.lease_owner, epoch=task.epoch)
    seconds_left = None if task.deadline_at is None else task.deadline_at - row.moment
    return Claimed(task=task, lease=lease, seconds_left=seconds_left)


def append_step(connection: Connection, lease: Lease, body: str, step: Step) -> Recorded:
    """Record a step under a lease; the number and the time come from the task's row, which this locks."""
    given = {**_of(lease), **_sums(step), "only_began": int(isinstance(step, ToolStarted))}
    row = connection.execute(_append, given).first()
    return _written(connection, lease, row, body, step)


def finish_task(connection: Connection, lease: Lease, body: str, step: Finished) -> Recorded:
    """Record the last step and the status that goes with it."""
    ending = ending_values(step)
    to = {"to_status": ending["status"], "to_output": ending["output"], "to_error": ending["error"]}
    row = connection.execute(_finish, {**_of(lease), **_sums(step), **to}).first()
    return _written(connection, lease, row, body, step)


def _written(connection: Connection, lease: Lease, row: AnyRow | None, body: str, step: Step) -> Recorded:
    if row is None:
        raise _lost(lease)
    recorded = Recorded(seq=row.steps - 1, at=row.updated_at, step=step)
    _add_step(connection, (row.tenant, lease.task_id, lease.epoch), recorded, body)
    return recorded


def _add_step(connection: Connection, of: tuple[str, str, int], recorded: Recorded, body: str) -> None:
    tenant, task_id, epoch = of
    values = {"tenant": tenant, "task_id": task_id, "epoch": epoch, "seq": recorded.seq, "at": recorded.at}
    connection.execute(_insert_step, {**values, "kind": kind_of(recorded.step), "body": body})


def _of(lease: Lease) -> dict[str, Any]:
    return {"of_task": lease.task_id, "of_tenant": lease.tenant, "of_epoch": lease.epoch}


def _sums(step: Step) -> dict[str, Any]:
    used = used_by(step)
    names = ("model_calls", "tool_calls", "input_tokens", "output_tokens")
    return {**{f"add_{name}": used.get(name, 0) for name in names}, "add_cost_usd": used.get("cost_usd")}


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"the lease on task {lease.task_id} (epoch {lease.epoch}) is lost")


def wait_task(connection: Connection, lease: Lease, seen: int) -> None:
    """Put a task to waiting; due at once where a step was added that its worker has not seen."""
    _let_go(connection, lease, Verb.WAIT, {"run_after": case((t.c.steps > seen, now()), else_=None)})


def release_task(connection: Connection, lease: Lease, later: RetryLater | None) -> None:
    """Give a task back. Neither a hand-over in good order nor one that made progress is an attempt."""
    values: dict[str, Any] = {"attempt": t.c.attempt - 1, "run_after": now()}
    if later is not None:
        attempt = t.c.attempt - (case((_progressed, 1), else_=0) if later.counted else 1)
        values = {
            "attempt": attempt, "run_after": now() + later.delay_seconds, "error": error_text(later.error),
        }  # fmt: skip
    _let_go(connection, lease, Verb.RELEASE, values)


def _let_go(connection: Connection, lease: Lease, verb: Verb, values: Mapping[str, Any]) -> None:
    """A task that its worker lets go ends here where it was to be cancelled: nobody else would be asked again."""
    let_go = (
        update(t)
        .where(*_fence)
        .values(status=transition(TaskStatus.RUNNING, verb), updated_at=now(), **_NO_LEASE, **values)
        .returning(t)
    )
    row = connection.execute(let_go, _of(lease)).first()
    if row is None:
        raise _lost(lease)
    if row.cancel_requested:
        _end(connection, row, Finished(status="cancelled"))


def renew_leases(connection: Connection, leases: Collection[Lease], lease_seconds: float) -> Renewed:
    """Prolong leases, and say which are lost and which tasks are to be cancelled."""
    held = [(lease.tenant, lease.task_id, lease.epoch) for lease in leases]
    cancelled: dict[tuple[str, int], bool] = {}
    if held:
        for row in connection.execute(_renew, {"held": held, "seconds": lease_seconds}):
            cancelled[row.id, row.epoch] = row.cancel_requested
    return Renewed(
        lost=frozenset(lease for lease in leases if (lease.task_id, lease.epoch) not in cancelled),
        cancelled=frozenset(lease for lease in leases if cancelled.get((lease.task_id, lease.epoch))),
    )


# --- what people do ----------------------------------------------------------------------------------------------


def cancel_task(connection: Connection, tenant: str, task_id: str) -> Task:
    """Cancel: at once where no worker holds the task, else by asking its worker."""
    row = _row(connection, tenant, task_id, locked=True)  # nobody claims or ends it in between
    status = TaskStatus(row.status)
    if status is TaskStatus.RUNNING:
        connection.execute(update(t).where(t.c.id == task_id).values(cancel_requested=True, updated_at=now()))
    elif not status.terminal:
        _end(connection, row, Finished(status="cancelled"))
    return get_task(connection, tenant, task_id)


def _end(connection: Connection, row: AnyRow, step: Finished) -> bool:
    """End a task that no live worker holds; ``False`` where it was changed since ``row`` was read."""
    ended = (
        update(t)
        .where(t.c.id == row.id, t.c.epoch == row.epoch, t.c.status == row.status)
        .values(
            **ending_values(step), **_NO_LEASE, epoch=t.c.epoch + 1, steps=t.c.steps + 1,
            finished_at=now(), updated_at=now(),
        )
        .returning(t.c.steps, t.c.epoch, t.c.updated_at)
    )  # fmt: skip
    after = connection.execute(ended).first()
    if after is not None:
        recorded = Recorded(seq=after.steps - 1, at=after.updated_at, step=step)
        _add_step(connection, (row.tenant, row.id, after.epoch), recorded, encode_step(step))
    return after is not None


def answer_approval(
    connection: Connection, tenant: str, task_id: str, step: ApprovalGiven, seen: int
) -> bool:
    """Record an answer, unless steps were added since the caller looked; makes a waiting task due.

    A task that is pending can have an open approval, too: its worker was lost, or stopped, before it could wait.
    """
    waiting = t.c.status == TaskStatus.WAITING
    answered = (
        update(t)
        .where(t.c.tenant == tenant, t.c.id == task_id, t.c.steps == seen)
        .where(t.c.status.in_(OPEN))
        .values(steps=t.c.steps + 1, updated_at=now(), run_after=case((waiting, now()), else_=t.c.run_after))
        .returning(t.c.steps, t.c.epoch, t.c.updated_at)
    )
    row = connection.execute(answered).first()
    if row is None:
        status = _row(connection, tenant, task_id).status
        if TaskStatus(status).terminal:
            message = f"the task is {status}; its approvals are closed"
            raise TransitionRefused(message)
        return False
    recorded = Recorded(seq=row.steps - 1, at=row.updated_at, step=step)
    _add_step(connection, (tenant, task_id, row.epoch), recorded, encode_step(step))
    return True


def retry_task(connection: Connection, tenant: str, task_id: str, new_id: str) -> Task:
    """A new task that starts with the steps of one that did not complete, its last step excepted."""
    row = _row(connection, tenant, task_id)
    if TaskStatus(row.status) not in (TaskStatus.FAILED, TaskStatus.CANCELLED):
        message = f"only a failed or cancelled task can be retried; this one is {row.status}"
        raise TransitionRefused(message)
    task = task_of(row)
    new = NewTask(
        agent=task.agent, input=task.input, tenant=tenant, labels=task.labels, priority=task.priority,
        timeout_seconds=task.timeout_seconds, budget=task.budget, max_attempts=task.max_attempts,
    )  # fmt: skip
    kept = task.steps - 1
    _insert(connection, new_task_values(new, new_id), new)
    if kept:
        connection.execute(update(t).where(t.c.id == new_id).values(steps=kept + 1))
        copied = select(s.c.tenant, literal(new_id), s.c.seq, literal(0), s.c.at, s.c.kind, s.c.body)
        columns = ["tenant", "task_id", "seq", "epoch", "at", "kind", "body"]
        connection.execute(
            insert(s).from_select(columns, copied.where(s.c.task_id == task_id, s.c.seq < kept))
        )
        mark = RunRetried(of=task_id)
        moment = connection.execute(select(now())).scalar_one()
        recorded = Recorded(seq=kept, at=moment, step=mark)
        _add_step(connection, (tenant, new_id, 0), recorded, encode_step(mark))
    return get_task(connection, tenant, new_id)


# --- what the sweeper does ---------------------------------------------------------------------------------------


def sweep_tasks(connection: Connection, limit: int) -> Swept:
    """Take tasks from workers that are gone, end what is out of time, and count what is due."""
    released: list[str] = []
    ended: list[str] = []
    expired = (t.c.status == TaskStatus.RUNNING, t.c.lease_until < now())
    for row in connection.execute(_held(select(t, now().label("moment")).where(*expired), limit)).all():
        ending = _ending_of_lost(row)
        if ending is None:
            if _release_lost(connection, row):
                released.append(row.id)
        elif _end(connection, row, ending):
            ended.append(row.id)
    late = (t.c.status.in_(CLAIMABLE), t.c.deadline_at < now())
    overdue = connection.execute(_held(select(t).where(*late), limit)).all()
    ended += [row.id for row in overdue if _end(connection, row, out_of_time(row.timeout_seconds))]
    due = select(func.count()).select_from(t).where(t.c.status.in_(CLAIMABLE), t.c.run_after <= now())
    return Swept(released=tuple(released), ended=tuple(ended), due=connection.execute(due).scalar_one())


def _held(wanted: Select[Any], limit: int) -> Select[Any]:
    """None that another sweeper, or its worker, has in hand at this moment."""
    return wanted.limit(limit).with_for_update(skip_locked=True)


def _ending_of_lost(row: AnyRow) -> Finished | None:
    """How a task ends whose worker is gone; ``None`` where it is to go on."""
    if row.cancel_requested:
        return Finished(status="cancelled")
    if row.deadline_at is not None and row.deadline_at < row.moment:
        return out_of_time(row.timeout_seconds)
    if row.steps <= row.steps_at_claim and row.attempt >= row.max_attempts:
        message = f"its worker was lost in {row.attempt} attempts that recorded nothing"
        return Finished(
            status="failed", error=RunError(code="worker_lost", message=message, actor=Actor.OPERATOR)
        )
    return None


def _release_lost(connection: Connection, row: AnyRow) -> bool:
    """An attempt that recorded something before its worker died is not held against the task."""
    released = (
        update(t)
        .where(t.c.id == row.id, t.c.epoch == row.epoch, t.c.status == TaskStatus.RUNNING)
        .values(
            status=transition(TaskStatus.RUNNING, Verb.RELEASE),
            attempt=t.c.attempt - case((_progressed, 1), else_=0),
            run_after=now(),
            updated_at=now(),
            **_NO_LEASE,
        )
    )
    return connection.execute(released).rowcount == 1
