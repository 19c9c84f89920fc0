"""Statements of people's decisions about an existing task."""

from __future__ import annotations

from sqlalchemy import case, select, update

from agentkit.transcript.codec import encode_step
from agentkit.transcript.steps import ApprovalGiven, Finished, Recorded
from ops_core.errors import ApprovalExpired, TransitionRefused
from ops_core.stores.dialects import now
from ops_core.stores.rows import AnyRow, ending_values, status_of
from ops_core.stores.sql.queries import get_task, row_of
from ops_core.stores.sql.steps import NO_LEASE, add_steps, step_row
from ops_core.stores.sql.threads import pass_on
from ops_core.stores.tables import checked
from ops_core.stores.tables import task as t
from ops_core.stores.transaction import Transaction
from ops_core.task import Task, TaskStatus, Verb, statuses_that

OPEN = statuses_that(Verb.CANCEL)


def cancel_task(writing: Transaction, tenant: str, task_id: str) -> Task:
    """Cancel: at once where no worker holds the task, else by asking its worker."""
    row = row_of(writing.connection, tenant, task_id, locked=True)  # nobody claims or ends it in between
    status = status_of(row)
    if status is TaskStatus.RUNNING:
        writing.execute(update(t).where(t.c.id == task_id).values(cancel_requested=True, updated_at=now()))
        writing.cancelled.append(task_id)
    elif not status.terminal:
        end_task(writing, row, Finished(status="cancelled"))
    return get_task(writing.connection, tenant, task_id)


def end_task(writing: Transaction, row: AnyRow, step: Finished) -> bool:
    """End a task that no live worker holds; ``False`` where it was changed since ``row`` was read."""
    ended = (
        update(t)
        .where(t.c.id == row.id, t.c.epoch == row.epoch, checked(t.c.status) == row.status)
        .values(
            **ending_values(step), **NO_LEASE, epoch=t.c.epoch + 1, steps=t.c.steps + 1,
            finished_at=now(), updated_at=now(),
        )
        .returning(t.c.steps, t.c.epoch, t.c.updated_at)
    )  # fmt: skip
    after = writing.execute(ended).first()
    if after is not None:
        recorded = Recorded(seq=after.steps - 1, at=after.updated_at, step=step)
        add_steps(writing, [step_row((row.tenant, row.id, after.epoch), recorded, encode_step(step))])
        writing.ended.append(row.id)
        if row.thread_id is not None:
            pass_on(writing, row.tenant, row.thread_id, row.id)
    return after is not None


def answer_approval(
    writing: Transaction,
    tenant: str,
    task_id: str,
    step: ApprovalGiven,
    seen: int,
    until: float | None = None,
) -> bool:
    """Record an answer, unless steps were added since the caller looked; makes a waiting task due.

    A task that is pending can have an open approval, too: its worker was lost, or stopped, before it could wait.
    """
    waiting = t.c.status == TaskStatus.WAITING
    if until is not None and writing.execute(select(now() >= until)).scalar():
        message = "the time in which this approval could be answered is over"
        raise ApprovalExpired(message)
    answered = (
        update(t)
        .where(t.c.id == task_id, checked(t.c.tenant) == tenant, t.c.steps == seen)
        .where(checked(t.c.status).in_(OPEN))
        .values(steps=t.c.steps + 1, updated_at=now(), run_after=case((waiting, now()), else_=t.c.run_after))
        .returning(t.c.steps, t.c.epoch, t.c.updated_at)
    )
    row = writing.execute(answered).first()
    if row is None:
        status = status_of(row_of(writing.connection, tenant, task_id))
        if status.terminal:
            message = f"the task is {status}; its approvals are closed"
            raise TransitionRefused(message)
        return False
    recorded = Recorded(seq=row.steps - 1, at=row.updated_at, step=step)
    add_steps(writing, [step_row((tenant, task_id, row.epoch), recorded, encode_step(step))])
    writing.due = True
    return True
