"""Threads: tasks of one conversation have their turn one after the other, in the order in which they came.

A task that has to wait is pending without a moment from which it may be claimed, so that claims know nothing of
threads. Whatever ends a task passes the turn on, in the same transaction; a sweep finds what an older release has left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from agentkit.transcript.steps import Turn
from ops_core.errors import ThreadBusy, ThreadNotFound
from ops_core.ports import ThreadFilter
from ops_core.stores.dialects import now
from ops_core.stores.rows import AnyRow, thread_of, turn_of
from ops_core.stores.tables import is_one_of, step, task_label
from ops_core.stores.tables import task as t
from ops_core.stores.tables import thread as th
from ops_core.stores.tables import turn as tn
from ops_core.stores.transaction import Transaction
from ops_core.task import NewTask, Task, TaskStatus, Thread

_has_not_ended = is_one_of(t, *(status for status in TaskStatus if not status.terminal))
_has_ended = is_one_of(t, *(status for status in TaskStatus if status.terminal))

_one_thread = select(th).where(th.c.tenant == bindparam("of_tenant"), th.c.id == bindparam("of_thread"))

_mine = tn.alias("mine")
_earlier = (
    select(t.c.status, t.c.input, t.c.output)
    .select_from(_mine)
    .join(tn, and_(tn.c.tenant == _mine.c.tenant, tn.c.thread_id == _mine.c.thread_id))
    .join(t, t.c.id == tn.c.task_id)
    .where(_mine.c.task_id == bindparam("of_task"), _mine.c.tenant == bindparam("of_tenant"))
    .where(tn.c.number >= _mine.c.seen_from, tn.c.number < _mine.c.seen_until, _has_ended)
    .order_by(tn.c.number)
)

LEFT_BEHIND = select(th).where(
    th.c.current_task.is_not(None),
    ~select(t.c.id).where(t.c.id == th.c.current_task, _has_not_ended).exists(),
)
"""Threads whose turn nobody has passed on."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a new task stands in its thread.

    Attributes:
        number: of its turn, from 1.
        seen_from: its run is shown the turns from this one on,
        seen_until: up to this one, which it is not shown.
        waits: another task has its turn.
    """

    number: int
    seen_from: int
    seen_until: int
    waits: bool


# --- joining ------------------------------------------------------------------------------------------------------


def take_place(
    writing: Transaction, new: NewTask, task_id: str, again: str | None = None
) -> Place | ThreadBusy:
    """The next turn of its thread, for a task that is about to be inserted; where it is refused, nothing is written.

    Args:
        writing: the transaction.
        new: with a thread.
        task_id: its id.
        again: the task that it carries on, whose conversation it is shown.
    """
    assert new.thread is not None
    key = {"of_tenant": new.tenant, "of_thread": new.thread.id}
    row = writing.execute(_one_thread.with_for_update(), key).first()
    if row is not None and row.current_task is not None and new.thread.refuse:
        message = f"task {row.current_task} of thread {new.thread.id} has not ended yet"
        return ThreadBusy(message, field="thread_id")
    if row is None:
        first = {"tenant": new.tenant, "id": new.thread.id, "turns": 1, "current_task": task_id}
        writing.execute(insert(th).values(**first, created_at=now(), updated_at=now()))
        return Place(1, 1, 1, waits=False)
    number = row.turns + 1
    whose = row.current_task or task_id
    writing.execute(update(th).where(_is(row)).values(turns=number, current_task=whose, updated_at=now()))
    seen_from, seen_until = _seen_by(writing, again) or (max(1, number - new.thread.seen), number)
    return Place(number, seen_from, seen_until, waits=row.current_task is not None)


def _seen_by(writing: Transaction, task_id: str | None) -> tuple[int, int] | None:
    if task_id is None:
        return None
    row = writing.execute(select(tn.c.seen_from, tn.c.seen_until).where(tn.c.task_id == task_id)).first()
    return None if row is None else (row.seen_from, row.seen_until)


def join(writing: Transaction, new: NewTask, task: Task, place: Place) -> Task:
    """Put a task that was just inserted into its place; it as it is then."""
    assert new.thread is not None
    changed = update(t).where(t.c.id == task.id).values(thread_id=new.thread.id)
    writing.execute(changed.values(run_after=None) if place.waits else changed)
    writing.execute(
        insert(tn).values(
            tenant=new.tenant, thread_id=new.thread.id, number=place.number, task_id=task.id,
            seen_from=place.seen_from, seen_until=place.seen_until, run_at=new.run_at,
        )
    )  # fmt: skip
    return replace(task, thread_id=new.thread.id, run_after=None if place.waits else task.run_after)


# --- passing on ---------------------------------------------------------------------------------------------------


def pass_on(writing: Transaction, tenant: str, thread_id: str, ended: str) -> None:
    """A task of a thread has ended: if it was its turn, the next one has it now.

    The thread is locked by whoever passes its turn on, and not by one who ends a task that waits: he holds that task,
    which the other one may be about to change.
    """
    key = {"of_tenant": tenant, "of_thread": thread_id}
    row = writing.execute(_one_thread, key).first()
    if row is None or row.current_task != ended:
        return
    row = writing.execute(_one_thread.with_for_update(), key).first()
    if row is not None and row.current_task == ended:
        _pass_on(writing, row)


def _pass_on(writing: Transaction, row: AnyRow) -> None:
    number = select(tn.c.number).where(tn.c.task_id == row.current_task).scalar_subquery()
    waiting = (
        select(tn.c.task_id, tn.c.run_at)
        .join(t, t.c.id == tn.c.task_id)
        .where(tn.c.tenant == row.tenant, tn.c.thread_id == row.id, _has_not_ended)
        .where(tn.c.number > func.coalesce(number, 0))
        .order_by(tn.c.number)
        .limit(1)
    )
    after: str | None = None
    while (following := writing.execute(waiting).first()) is not None:
        if _has_its_turn(writing, following):
            after = following.task_id
            break  # else it was cancelled in this very moment
    writing.execute(update(th).where(_is(row)).values(current_task=after, updated_at=now()))


def _has_its_turn(writing: Transaction, following: AnyRow) -> bool:
    run_at = following.run_at
    moment = now() if run_at is None else case((now() < run_at, run_at), else_=now())
    due = update(t).where(t.c.id == following.task_id, _has_not_ended).values(run_after=moment)
    writing.due = True
    return writing.execute(due).rowcount == 1


def sweep_threads(writing: Transaction, limit: int) -> None:
    """Pass on the turns of tasks that ended in the hands of a release that knows no threads."""
    for row in writing.execute(LEFT_BEHIND.limit(limit).with_for_update(skip_locked=True)).all():
        _pass_on(writing, row)


# --- looking ------------------------------------------------------------------------------------------------------


def get_thread(connection: Connection, tenant: str, thread_id: str, *, locked: bool = False) -> Thread:
    """One thread of this tenant.

    Raises:
        ThreadNotFound: it has none of this id.
    """
    wanted = _one_thread.with_for_update() if locked else _one_thread
    row = connection.execute(wanted, {"of_tenant": tenant, "of_thread": thread_id}).first()
    if row is None:
        message = f"there is no thread {thread_id}"
        raise ThreadNotFound(message)
    return thread_of(row)


def list_threads(connection: Connection, tenant: str, wanted: ThreadFilter) -> Sequence[Thread]:
    """Threads of this tenant, those first in which something happened last."""
    listed = select(th).where(th.c.tenant == tenant)
    if wanted.before is not None:
        listed = listed.where(tuple_(th.c.updated_at, th.c.id) < wanted.before)
    rows = connection.execute(listed.order_by(th.c.updated_at.desc(), th.c.id.desc()).limit(wanted.limit))
    return [thread_of(row) for row in rows]


def list_earlier(connection: Connection, tenant: str, task_id: str) -> Sequence[Turn]:
    """What the run of this task is shown of its thread. Always the same: all of it has ended when the task begins."""
    rows = connection.execute(_earlier, {"of_tenant": tenant, "of_task": task_id})
    return [turn_of(row) for row in rows]


# --- forgetting ---------------------------------------------------------------------------------------------------


def forget_thread(writing: Transaction, tenant: str, thread_id: str) -> int:
    """Delete a thread with its tasks and all that belongs to them; how many tasks it were.

    Raises:
        ThreadNotFound: this tenant has none of this id.
        ThreadBusy: a task of it has not ended.
    """
    found = get_thread(writing.connection, tenant, thread_id, locked=True)
    if found.current is not None:
        message = f"task {found.current} of thread {thread_id} has not ended: cancel it first"
        raise ThreadBusy(message)
    ids = select(tn.c.task_id).where(tn.c.tenant == tenant, tn.c.thread_id == thread_id)
    for table, column in ((step, step.c.task_id), (task_label, task_label.c.task_id)):
        writing.execute(delete(table).where(column.in_(ids)))
    tasks = [row.task_id for row in writing.execute(ids)]
    writing.execute(delete(tn).where(tn.c.tenant == tenant, tn.c.thread_id == thread_id))
    writing.execute(delete(t).where(t.c.tenant == tenant, t.c.thread_id == thread_id, t.c.id.in_(tasks)))
    writing.execute(delete(th).where(th.c.tenant == tenant, th.c.id == thread_id))
    return len(tasks)


def idle_threads(writing: Transaction, threads: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of these threads, each a tenant and an id, in which nobody has its turn; none begins meanwhile."""
    if not threads:
        return set()
    free = select(th.c.tenant, th.c.id).where(
        tuple_(th.c.tenant, th.c.id).in_(threads), th.c.current_task.is_(None)
    )
    return {(row.tenant, row.id) for row in writing.execute(free.with_for_update(skip_locked=True))}


def forget_empty(writing: Transaction, threads: Sequence[tuple[str, str]]) -> None:
    """Delete those of these threads that have no tasks any more."""
    has_turns = select(tn.c.number).where(tn.c.tenant == th.c.tenant, tn.c.thread_id == th.c.id).exists()
    if threads:
        writing.execute(delete(th).where(tuple_(th.c.tenant, th.c.id).in_(threads), ~has_turns))


may_be_purged = or_(
    t.c.thread_id.is_(None),
    ~select(th.c.id)
    .where(th.c.tenant == t.c.tenant, th.c.id == t.c.thread_id, th.c.current_task.is_not(None))
    .exists(),
)
"""Tasks that no run is shown any more: while one of a thread is under way, what it was shown stays."""


def _is(row: AnyRow) -> ColumnElement[bool]:
    return and_(th.c.tenant == row.tenant, th.c.id == row.id)
