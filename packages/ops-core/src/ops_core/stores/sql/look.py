"""Tasks and steps as they are."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, bindparam, select

from agentkit.transcript import Recorded
from ops_core.errors import TaskNotFound
from ops_core.ports import TaskFilter
from ops_core.stores.rows import AnyRow, recorded_of, task_of
from ops_core.stores.tables import step as s
from ops_core.stores.tables import task as t
from ops_core.stores.tables import task_label, turn
from ops_core.task import Task

_one_task = select(t).where(t.c.tenant == bindparam("of_tenant"), t.c.id == bindparam("of_task"))
_steps_after = (
    select(s.c.seq, s.c.at, s.c.body)
    .where(
        s.c.task_id == bindparam("of_task"),
        s.c.tenant == bindparam("of_tenant"),
        s.c.seq > bindparam("after"),
    )
    .order_by(s.c.seq)
)


def get_task(connection: Connection, tenant: str, task_id: str) -> Task:
    """One task of this tenant."""
    return task_of(row_of(connection, tenant, task_id))


def row_of(connection: Connection, tenant: str, task_id: str, *, locked: bool = False) -> AnyRow:
    """The row of a task; ``locked`` until the transaction ends.

    Raises:
        TaskNotFound: this tenant has none of this id.
    """
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
    if wanted.thread is not None:
        of_thread = select(turn.c.task_id).where(turn.c.tenant == tenant, turn.c.thread_id == wanted.thread)
        conditions.append(t.c.id.in_(of_thread))
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
        row_of(connection, tenant, task_id)  # no steps, or no task?
    return steps
