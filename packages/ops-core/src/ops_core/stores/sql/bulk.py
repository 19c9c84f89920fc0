"""Statements on many tasks at once: selected by a filter, and cancelled or retried in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import ColumnElement, Connection, func, select, update

from agentkit.transcript.steps import Finished
from ops_core.bulk import BulkVerb, Count, Outcome, TaskSelection
from ops_core.errors import OpsError, TaskNotFound
from ops_core.ports import TaskFilter
from ops_core.stores.dialects import by_moment, now
from ops_core.stores.sql.decisions import end_task
from ops_core.stores.sql.queries import conditions_of
from ops_core.stores.sql.submit import Retry, retry_task
from ops_core.stores.tables import checked, is_still_running
from ops_core.stores.tables import task as t
from ops_core.stores.transaction import Transaction
from ops_core.task import TaskStatus

_ENDED = frozenset({"completed", "failed", "cancelled"})


def select_tasks(connection: Connection, tenant: str, selection: TaskSelection, limit: int) -> Sequence[str]:
    """Ids of tasks that fit, in the order in which the verb is for them."""
    moment = by_moment(t.c.id)
    conditions = _conditions(tenant, selection)
    newest_first = selection.verb is BulkVerb.CANCEL
    if selection.after is not None:
        conditions.append(moment < selection.after if newest_first else moment > selection.after)
    ids = select(t.c.id).where(*conditions).order_by(moment.desc() if newest_first else moment).limit(limit)
    return connection.execute(ids).scalars().all()


def count_tasks(connection: Connection, tenant: str, selection: TaskSelection) -> Count:
    """How many fit, and when the oldest and the newest were submitted."""
    columns = (func.count(), func.min(t.c.created_at), func.max(t.c.created_at))
    row = connection.execute(select(*columns).where(*_conditions(tenant, selection))).one()
    return Count(tasks=row[0], oldest_at=row[1], newest_at=row[2])


def _conditions(tenant: str, selection: TaskSelection) -> list[ColumnElement[bool]]:
    wanted = TaskFilter(
        status=selection.status, agent=selection.agent, label=selection.label, thread=selection.thread
    )
    conditions = [*conditions_of(tenant, wanted)]
    if selection.older_seconds is not None:
        conditions.append(t.c.created_at < now() - selection.older_seconds)
    return conditions


def cancel_tasks(writing: Transaction, tenant: str, ids: Sequence[str]) -> Mapping[str, str]:
    """Cancel each of these tasks, or say why it is left out."""
    wanted = select(t).where(t.c.id.in_(ids), checked(t.c.tenant) == tenant)
    rows = {row.id: row for row in writing.execute(wanted.order_by(t.c.id).with_for_update())}
    outcomes: dict[str, str] = dict.fromkeys(ids, Outcome.GONE)
    for id_ in filter(rows.__contains__, ids):
        row = rows[id_]
        if row.status in _ENDED:
            outcomes[id_] = Outcome.ENDED
        elif row.status == TaskStatus.RUNNING:
            outcomes[id_] = Outcome.CANCELLING_BEFORE if row.cancel_requested else Outcome.CANCELLING
        else:
            ended = end_task(writing, row, Finished(status="cancelled"))
            outcomes[id_] = Outcome.CANCELLED if ended else Outcome.CHANGED
    asked = [id_ for id_, outcome in outcomes.items() if outcome is Outcome.CANCELLING]
    if asked:
        ask = update(t).where(t.c.id.in_(asked), is_still_running)
        writing.execute(ask.values(cancel_requested=True, updated_at=now()))
        writing.cancelled += asked
    return outcomes


def retry_tasks(
    writing: Transaction, tenant: str, ids: Sequence[str], new_id: Callable[[], str], *, refuse_busy: bool
) -> Mapping[str, str]:
    """Carry on each of these tasks by a new one, or say why it is left out: each is retried once."""
    outcomes: dict[str, str] = {}
    for id_ in ids:
        try:
            asked = Retry(tenant=tenant, task_id=id_, new_id=new_id(), refuse_busy=refuse_busy)
            created = retry_task(writing, asked).created
            outcomes[id_] = Outcome.RETRIED if created else Outcome.RETRIED_BEFORE
        except TaskNotFound:
            outcomes[id_] = Outcome.GONE
        except OpsError as error:  # it has changed nothing, and is this task's alone
            outcomes[id_] = error.code
    return outcomes
