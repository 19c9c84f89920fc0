"""Workers: announced, renewed with their leases, and listed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    FromClause,
    Integer,
    Select,
    case,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)

from ops_core.ports import Activity, Oldest, RenewResult
from ops_core.stores.dialects import now
from ops_core.stores.rows import AnyRow
from ops_core.stores.sql.leases import DUE_AGENTS, renew_leases
from ops_core.stores.tables import checked, is_one_of, is_running
from ops_core.stores.tables import task as t
from ops_core.stores.tables import worker as w
from ops_core.stores.transaction import Transaction
from ops_core.task import Lease, TaskStatus
from ops_core.workers import MAX_HELD, Announcement, HeldTask, Worker

KEPT_SECONDS = 600.0
"""A worker that fell silent is listed for so long."""

MAX_AGENTS = 1000
"""Number of agents whose oldest task is looked for."""

_is_alive = w.c.until >= now()
_has_lease = (is_running, t.c.lease_until > 0.0)
"""Running tasks, in a form that the index of leases serves better than any other, whatever was counted."""


_holds = w.c.name.in_(select(t.c.lease_owner).where(*_has_lease))


def announce(writing: Transaction, worker: Announcement, seconds: float) -> None:
    """Say that a worker is alive, and forget those that have been silent for long."""
    moments = {"seen_at": now(), "until": now() + seconds}
    if writing.execute(update(w).where(w.c.name == worker.name).values(moments)).rowcount:
        return
    agents = json.dumps(list(worker.agents))
    known = {"name": worker.name, "version": worker.version, "agents": agents, "capacity": worker.capacity}
    writing.execute(delete(w).where(w.c.until < now() - KEPT_SECONDS))
    writing.execute(insert(w).values(**known, started_at=now(), **moments))


def beat(
    writing: Transaction, leases: Collection[Lease], lease_seconds: float, worker: Announcement | None
) -> RenewResult:
    """Prolong leases, and say that their worker is alive."""
    if worker is not None:
        announce(writing, worker, lease_seconds)
    return renew_leases(writing, leases, lease_seconds)


def forget_worker(writing: Transaction, name: str) -> None:
    """Forget a worker that stops."""
    writing.execute(delete(w).where(w.c.name == name))


# --- listing ------------------------------------------------------------------------------------------------------

_owners = (
    select(
        t.c.lease_owner.label("name"),
        func.count().label("running"),
        func.max(t.c.lease_until).label("until"),
    )
    .where(*_has_lease)
    .group_by(t.c.lease_owner)
)
_all_workers = select(w, now().label("moment")).where(w.c.until >= now() - KEPT_SECONDS)


def list_workers(connection: Connection, tenant: str) -> Sequence[Worker]:
    """Workers by name, with the tasks of a tenant that they hold."""
    announced = {row.name: row for row in connection.execute(_all_workers)}
    owners = {row.name: row for row in connection.execute(_owners)}
    moment: float = connection.execute(select(now())).scalar_one()
    held = _held(connection, tenant)
    return [
        _worker(name, announced.get(name), owners.get(name), held.get(name, ()), moment)
        for name in sorted({*announced, *owners})
    ]


def _held(connection: Connection, tenant: str) -> dict[str, list[HeldTask]]:
    place = func.row_number().over(partition_by=t.c.lease_owner, order_by=(t.c.status_since, t.c.id))
    columns = (t.c.id, t.c.agent, t.c.lease_owner, t.c.lease_until, t.c.status_since, place.label("place"))
    numbered = select(*columns).where(*_has_lease, checked(t.c.tenant) == tenant).subquery()
    found: dict[str, list[HeldTask]] = {}
    rows = connection.execute(select(numbered).where(numbered.c.place <= MAX_HELD).order_by(numbered.c.place))
    for row in rows:
        held = HeldTask(task_id=row.id, agent=row.agent, since=row.status_since, until=row.lease_until)
        found.setdefault(row.lease_owner, []).append(held)
    return found


def _worker(
    name: str, row: AnyRow | None, owner: AnyRow | None, held: Sequence[HeldTask], moment: float
) -> Worker:
    holds: dict[str, Any] = {"name": name, "held": tuple(held), "looked_at": moment}
    holds["running"] = 0 if owner is None else owner.running
    if row is None:
        assert owner is not None
        return Worker(until=owner.until, **holds)
    return Worker(
        version=row.version,
        agents=_names(row.agents),
        capacity=row.capacity,
        started_at=row.started_at,
        seen_at=row.seen_at,
        until=row.until,
        **holds,
    )


def _names(stored: str) -> tuple[str, ...]:
    """The agents in a row; none where it is damaged, so that it spoils no list."""
    try:
        return tuple(map(str, json.loads(stored)))
    except (ValueError, TypeError):
        return ()


# --- measuring ----------------------------------------------------------------------------------------------------

COUNT_WORKERS = select(
    func.count().label("alive"), func.coalesce(func.sum(case((_holds, 1), else_=0)), 0).label("busy")
).where(_is_alive)

OLDEST_RUNNING = (
    select(t.c.agent, func.min(t.c.status_since).label("since"), now().label("moment"))
    .where(*_has_lease)
    .group_by(t.c.agent)
)


def _oldest_waiting() -> Select[*tuple[Any, ...]]:
    """Agent by agent, the first entry of each in the index of tasks that wait."""
    n, m, o = t.alias("n"), t.alias("m"), t.alias("o")
    first = select(func.min(n.c.agent).label("agent"), literal(0, Integer()).label("hops"))
    # by its column: SQLite then takes no other index, whatever was counted
    agents = _of_waiting(first.where(n.c.agent > ""), n).cte("waiting_agents", recursive=True)
    following = _of_waiting(select(func.min(m.c.agent)).where(m.c.agent > agents.c.agent), m)
    onward = select(following.correlate(agents).scalar_subquery(), agents.c.hops + 1)
    agents = agents.union_all(onward.where(agents.c.agent.is_not(None), agents.c.hops < MAX_AGENTS))
    since = _of_waiting(select(func.min(o.c.status_since)).where(o.c.agent == agents.c.agent), o)
    columns = (
        agents.c.agent,
        since.correlate(agents).scalar_subquery().label("since"),
        now().label("moment"),
    )
    return select(*columns).where(agents.c.agent.is_not(None))


def _of_waiting(statement: Select[*tuple[Any, ...]], of: FromClause) -> Select[*tuple[Any, ...]]:
    return statement.where(is_one_of(of, "waiting"))


OLDEST_WAITING = _oldest_waiting()

_agents_of_living = select(w.c.agents).where(_is_alive)


def read_activity(connection: Connection) -> Activity:
    """What :class:`~ops_core.ports.Activity` says."""
    counts = connection.execute(COUNT_WORKERS).one()
    served = {name for text in connection.execute(_agents_of_living).scalars() for name in _names(text)}
    due = connection.execute(DUE_AGENTS, {"after_tenant": "", "slots": 1}).scalars()
    return Activity(
        idle=counts.alive - counts.busy,
        busy=counts.busy,
        oldest=tuple(_oldest(connection)),
        unserved=tuple(sorted({*due} - served)),
    )


def _oldest(connection: Connection) -> Iterator[Oldest]:
    of = ((TaskStatus.RUNNING, OLDEST_RUNNING), (TaskStatus.WAITING, OLDEST_WAITING))
    for status, statement in of:
        for row in connection.execute(statement):
            if row.since is not None:
                yield Oldest(agent=row.agent, status=status, seconds=max(0.0, row.moment - row.since))
