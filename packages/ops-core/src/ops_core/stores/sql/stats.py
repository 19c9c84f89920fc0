"""Statistics of the store. Their cost does not grow with the number of tasks.

Tasks that wait are counted up to :data:`COUNTED`. Where there are more, their number is an estimate from a sample:
places in the table are drawn, and what stands there is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    ScalarSelect,
    Text,
    case,
    distinct,
    func,
    literal_column,
    select,
    text,
)

from ops_core.ports import Stats
from ops_core.stores.dialects import now
from ops_core.stores.tables import counted_at, counted_status, halt, is_running
from ops_core.stores.tables import task as t
from ops_core.task import TaskStatus

COUNTED = 10_000
"""Tasks of a status that are counted one by one."""

SAMPLE = 400
"""Pages of the table that are looked at on PostgreSQL; on SQLite as many rows, five times over."""

_UNHELD = (TaskStatus.PENDING, TaskStatus.WAITING)
_due = counted_at <= now()


def _are(status: TaskStatus) -> Sequence[ColumnElement[bool]]:
    """Tasks of a status; all of them are named as well, as the index names them."""
    named = {one: literal_column(f"'{one.value}'", Text()) for one in _UNHELD}
    return counted_status.in_(list(named.values())), counted_status == named[status]


def _number(status: TaskStatus, *conditions: ColumnElement[bool]) -> ScalarSelect[int]:
    some = select(literal_column("1", Integer())).where(*_are(status), *conditions)
    some = some.order_by(counted_at).limit(COUNTED + 1)  # ordered, so that one index alone will do
    return select(func.count()).select_from(some.subquery()).scalar_subquery()


def _first_due(status: TaskStatus) -> ScalarSelect[float]:
    first = select(counted_at).where(*_are(status), _due).order_by(counted_at).limit(1)
    return first.scalar_subquery()


UNHELD = select(
    *(_number(status).label(status.value) for status in _UNHELD),
    *(_number(status, _due).label(f"due_{status.value}") for status in _UNHELD),
    *(_first_due(status).label(f"since_{status.value}") for status in _UNHELD),
    now().label("moment"),
)
HELD = select(
    func.count().label("running"),
    func.coalesce(func.sum(case((t.c.lease_until < now(), 1), else_=0)), 0).label("expired"),
    func.count(distinct(t.c.lease_owner)).label("workers"),
).where(is_running)
_halts = select(func.count()).select_from(halt).where(halt.c.lifted_at.is_(None))


def read_stats(connection: Connection) -> Stats:
    """What :class:`~ops_core.ports.Stats` says."""
    unheld: dict[str, Any] = {**connection.execute(UNHELD).mappings().one()}
    held = connection.execute(HELD).one()
    counts = {name: unheld[name] for status in _UNHELD for name in (status.value, f"due_{status.value}")}
    estimated = any(count > COUNTED for count in counts.values())
    if estimated:
        sampled = _sampled(connection, unheld["moment"])
        counts = {
            name: count if count <= COUNTED else max(count, sampled[name]) for name, count in counts.items()
        }
    since = [
        unheld[f"since_{status.value}"] for status in _UNHELD if unheld[f"since_{status.value}"] is not None
    ]
    return Stats(
        tasks={**{status: counts[status.value] for status in _UNHELD}, TaskStatus.RUNNING: held.running},
        due=sum(counts[f"due_{status.value}"] for status in _UNHELD),
        oldest_due_seconds=unheld["moment"] - min(since) if since else 0.0,
        expired_leases=held.expired,
        workers=held.workers,
        moment=unheld["moment"],
        halts=connection.execute(_halts).scalar_one(),
        estimated=estimated,
    )


_PAGES = text("SELECT pg_relation_size('task') / current_setting('block_size')::integer")
_SAMPLE_OF_PAGES = text(
    "SELECT status, count(*) AS tasks, count(*) FILTER (WHERE run_after <= :moment) AS due"
    " FROM task TABLESAMPLE SYSTEM (:percent) WHERE status IN ('pending', 'waiting') GROUP BY status"
)
_ROWS = text("SELECT min(rowid) AS first, max(rowid) AS last FROM task")
_SAMPLE_OF_ROWS = text(
    "WITH RECURSIVE drawn(number, place) AS (SELECT 1, :first + abs(random() % :span)"
    " UNION ALL SELECT number + 1, :first + abs(random() % :span) FROM drawn WHERE number < :draws)"
    " SELECT status, count(*) AS tasks, sum(coalesce(run_after <= :moment, 0)) AS due"
    # CROSS, and +: else all that wait are looked through
    " FROM drawn CROSS JOIN task ON task.rowid = drawn.place WHERE +status IN ('pending', 'waiting') GROUP BY status"
)


def _sampled(connection: Connection, moment: float) -> dict[str, int]:
    """How many tasks there are of each status, and how many of them are due, roughly."""
    if connection.dialect.name == "postgresql":
        pages = max(1, connection.execute(_PAGES).scalar_one())
        percent = min(100.0, 100.0 * SAMPLE / pages)
        rows, times = (
            connection.execute(_SAMPLE_OF_PAGES, {"percent": percent, "moment": moment}).all(),
            100.0 / percent,
        )
    else:
        ends = connection.execute(_ROWS).one()
        span, draws = ends.last - ends.first + 1, 5 * SAMPLE
        drawn = {"first": ends.first, "span": span, "draws": draws, "moment": moment}
        rows, times = connection.execute(_SAMPLE_OF_ROWS, drawn).all(), span / draws
    found = {name: 0 for status in _UNHELD for name in (status.value, f"due_{status.value}")}
    for row in rows:
        found[row.status], found[f"due_{row.status}"] = round(row.tasks * times), round(row.due * times)
    return found
