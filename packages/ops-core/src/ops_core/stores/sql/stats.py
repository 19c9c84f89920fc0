"""How full the store is: a statement that looks at tasks that have not ended only, and one at halts."""

from __future__ import annotations

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Integer,
    String,
    case,
    distinct,
    func,
    literal_column,
    null,
    select,
    union_all,
)

from ops_core.ports import Stats
from ops_core.stores.dialects import now
from ops_core.stores.tables import halt, is_open, is_running
from ops_core.stores.tables import task as t
from ops_core.task import TaskStatus

_UNHELD = (TaskStatus.PENDING, TaskStatus.WAITING)


def _named(status: TaskStatus) -> ColumnElement[str]:
    """Written out: an index of some of the rows is used only where the statement itself names them."""
    return literal_column(f"'{status.value}'", String())


_due = t.c.run_after <= now()
_unheld = (
    select(
        t.c.status.label("status"),
        func.count().label("tasks"),
        func.sum(case((_due, 1), else_=0)).label("due"),
        func.min(case((_due, t.c.run_after))).label("due_since"),
        literal_column("0", Integer()).label("expired"),
        literal_column("0", Integer()).label("workers"),
        now().label("moment"),
    )
    .where(is_open)
    .group_by(t.c.status)
)
_held = select(
    _named(TaskStatus.RUNNING),
    func.count(),
    literal_column("0", Integer()),
    null().cast(Float()),
    func.coalesce(func.sum(case((t.c.lease_until < now(), 1), else_=0)), 0),
    func.count(distinct(t.c.lease_owner)),
    now(),
).where(is_running)
_halts = select(func.count()).select_from(halt).where(halt.c.lifted_at.is_(None))
_stats = union_all(_unheld, _held)  # the second one always has its row, and with it the moment


def read_stats(connection: Connection) -> Stats:
    """What :class:`~ops_core.ports.Stats` says."""
    rows = connection.execute(_stats).all()
    tasks: dict[TaskStatus, int] = dict.fromkeys((*_UNHELD, TaskStatus.RUNNING), 0)
    tasks.update({TaskStatus(row.status): row.tasks for row in rows})
    moment = max(row.moment for row in rows)
    oldest = min((row.due_since for row in rows if row.due_since is not None), default=None)
    return Stats(
        tasks=tasks,
        due=sum(row.due for row in rows),
        oldest_due_seconds=0.0 if oldest is None else moment - oldest,
        expired_leases=sum(row.expired for row in rows),
        workers=sum(row.workers for row in rows),
        moment=moment,
        halts=connection.execute(_halts).scalar_one(),
    )
