"""Statements of maintenance: lost workers, deadlines, old tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, case, delete, func, insert, select, update

from agentkit.errors import Actor, RunError
from agentkit.transcript.steps import Finished
from ops_core.bulk import Count
from ops_core.ports import SweepResult, SweepTerms
from ops_core.stores.dialects import now
from ops_core.stores.rows import AnyRow
from ops_core.stores.sql.decisions import end_task
from ops_core.stores.sql.leases import any_due
from ops_core.stores.sql.steps import NO_LEASE, progressed
from ops_core.stores.sql.threads import forget_empty, idle_threads, may_be_purged, sweep_threads
from ops_core.stores.tables import is_open, is_running, is_still_running, step, task_label, turn
from ops_core.stores.tables import task as t
from ops_core.stores.tables import upkeep as u
from ops_core.stores.transaction import Transaction
from ops_core.task import TaskStatus, Verb, expired, out_of_time, transition

LEASES_RUN_OUT = select(t, now().label("moment")).where(is_running, t.c.lease_until < now())
OUT_OF_TIME = select(t).where(is_open, t.c.deadline_at < now())


SWEEP, PROBE = "sweep", "probe"
_last_sweep = select(u.c.at, u.c.held_until, now().label("moment")).where(u.c.name == SWEEP)


def lease_owners(connection: Connection, place: str) -> Sequence[str]:
    """The names of workers at this place that hold a lease."""
    of_place = t.c.lease_owner.contains(place, autoescape=True)
    return connection.execute(select(t.c.lease_owner).where(is_running, of_place).distinct()).scalars().all()


def try_write(writing: Transaction) -> None:
    """Write something that means nothing: whoever can read a database need not be able to write to it."""
    if writing.execute(update(u).where(u.c.name == PROBE).values(at=now())).rowcount == 0:
        writing.execute(insert(u).values(name=PROBE, at=now()))


def sweep_tasks(writing: Transaction, limit: int, terms: SweepTerms) -> SweepResult:
    """Take tasks from workers that are gone, end what is out of time, and see whether something is due."""
    released: list[str] = []
    ended: list[str] = []
    lost = _taken_from_gone(writing, terms, limit) if terms.gone else list[AnyRow]()
    if _could_be_renewed(writing, terms):
        lost += writing.execute(_held(LEASES_RUN_OUT, limit)).all()
    for row in {row.id: row for row in lost}.values():
        try:
            ending = _ending_of_lost(row)
        except TypeError:  # its row is damaged: whoever claims it says so
            ending = None
        if ending is None:
            if _release_lost(writing, row):
                released.append(row.id)
        elif end_task(writing, row, ending):
            ended.append(row.id)
    overdue = writing.execute(_held(OUT_OF_TIME, limit)).all()
    ended += [row.id for row in overdue if end_task(writing, row, _ending_of_late(row))]
    sweep_threads(writing, limit)
    more = len(released) + len(ended) >= limit
    return SweepResult(released=tuple(released), ended=tuple(ended), due=any_due(writing), more=more)


def _ending_of_late(row: AnyRow) -> Finished:
    return expired() if row.started_at is None else out_of_time(row.timeout_seconds)


def _taken_from_gone(writing: Transaction, terms: SweepTerms, limit: int) -> list[AnyRow]:
    """The tasks of processes that have ended; their leases run out at this moment."""
    gone = t.c.lease_owner.in_(list(terms.gone))
    rows = writing.execute(_held(select(t, now().label("moment")).where(is_running, gone), limit)).all()
    if rows:
        writing.execute(update(t).where(t.c.id.in_([row.id for row in rows])).values(lease_until=now()))
    return [*rows]


def _could_be_renewed(writing: Transaction, terms: SweepTerms) -> bool:
    """Whether a lease that has run out says that its worker is gone.

    Where nobody could sweep for a while, nobody could renew a lease either: the database stood still, or was away, or
    its clock has leapt. All workers that live have a moment then, whichever process sweeps first.
    """
    if terms.grace_seconds <= 0:
        return True
    row = writing.execute(_last_sweep).first()
    if row is None:
        writing.execute(insert(u).values(name=SWEEP, at=now()))
        return True
    since = row.moment - row.at
    stood_still = not -terms.quiet_seconds <= since <= terms.quiet_seconds
    until = row.moment + terms.grace_seconds if stood_still else row.held_until or 0.0
    if stood_still or since > terms.quiet_seconds / 4:
        writing.execute(update(u).where(u.c.name == SWEEP).values(at=row.moment, held_until=until))
    return bool(until <= row.moment or until > row.moment + terms.grace_seconds)


def _held(wanted: Select[Any], limit: int) -> Select[Any]:
    """None that another sweeper, or its worker, has in hand at this moment."""
    return wanted.limit(limit).with_for_update(skip_locked=True)


def _ending_of_lost(row: AnyRow) -> Finished | None:
    """How a task ends whose worker is gone; ``None`` where it is to go on."""
    if row.cancel_requested:
        return Finished(status="cancelled")
    if row.deadline_at is not None and row.deadline_at < row.moment:
        return out_of_time(row.timeout_seconds)
    if row.steps <= max(row.steps_at_claim, 1) and row.attempt >= row.max_attempts:
        message = f"its worker was lost in {row.attempt} attempts that recorded nothing"
        return Finished(
            status="failed", error=RunError(code="worker_lost", message=message, actor=Actor.OPERATOR)
        )
    return None


def _release_lost(writing: Transaction, row: AnyRow) -> bool:
    """An attempt that recorded something before its worker died is not held against the task."""
    released = (
        update(t)
        .where(t.c.id == row.id, t.c.epoch == row.epoch, is_still_running)
        .values(
            status=transition(TaskStatus.RUNNING, Verb.RELEASE),
            attempt=t.c.attempt - case((progressed, 1), else_=0),
            handovers=case((progressed, 0), else_=t.c.handovers),
            run_after=now(),
            updated_at=now(),
            **NO_LEASE,
        )
    )
    writing.due = True
    return writing.execute(released).rowcount == 1


def count_purgeable(connection: Connection, older_seconds: float) -> Count:
    """How many tasks ended so long ago and may be deleted, and when the first and the last of them ended."""
    columns = (func.count(), func.min(t.c.finished_at), func.max(t.c.finished_at))
    row = connection.execute(
        select(*columns).where(t.c.finished_at < now() - older_seconds, may_be_purged)
    ).one()
    return Count(tasks=row[0], oldest_at=row[1], newest_at=row[2])


def purge_tasks(writing: Transaction, older_seconds: float, limit: int) -> int:
    """Delete tasks that ended so long ago, their steps and labels; the oldest first. Returns how many."""
    old = (
        select(t.c.id, t.c.tenant, t.c.thread_id)
        .where(t.c.finished_at < now() - older_seconds, may_be_purged)
        .order_by(t.c.finished_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = writing.execute(old).all()
    threads = sorted({(row.tenant, row.thread_id) for row in rows if row.thread_id is not None})
    idle = idle_threads(writing, threads)
    ids = [row.id for row in rows if row.thread_id is None or (row.tenant, row.thread_id) in idle]
    if ids:
        of_tasks = (step.c.task_id, task_label.c.task_id, turn.c.task_id, t.c.id)
        for column in of_tasks if threads else (step.c.task_id, task_label.c.task_id, t.c.id):
            writing.execute(delete(column.table).where(column.in_(ids)))
    forget_empty(writing, sorted(idle))
    return len(ids)
