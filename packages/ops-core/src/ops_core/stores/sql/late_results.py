"""Results that workers report after they have lost their leases: kept beside the steps, and never among them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sqlalchemy import Connection, bindparam, func, insert, literal, select

from agentkit.recorded_text import recordable
from agentkit.transcript.codec import decode_shown, encode_step, from_json_text, to_json_text
from agentkit.transcript.steps import ToolReturned, ToolStarted
from ops_core.stores.dialects import now
from ops_core.stores.tables import checked, late_result
from ops_core.stores.tables import step as s
from ops_core.stores.tables import task as t
from ops_core.stores.transaction import Transaction
from ops_core.task import MAX_LATE_SHOWN, Approval, LateResult, Lease

MAX_SHOWN_RESULTS = 50
"""So many late results of a task are shown, the newest ones; further ones are kept."""

_PLAIN_ID = re.compile(r"[!-~]{1,200}")

_r = late_result.c
_ranked = (
    select(
        _r.task_id, _r.call_id, _r.tool, _r.worker, _r.epoch, _r.at, _r.failed, _r.shown,
        func.row_number().over(partition_by=_r.task_id, order_by=_r.at.desc()).label("place"),
    )
    .where(_r.task_id.in_(bindparam("of_tasks", expanding=True)))
    .subquery()
)  # fmt: skip
_of_tasks = (
    select(_ranked)
    .where(_ranked.c.place <= MAX_SHOWN_RESULTS)
    .order_by(_ranked.c.task_id, _ranked.c.at, _ranked.c.epoch)
)
_of_call = (
    select(_r.body)
    .where(
        _r.task_id == bindparam("of_task"), _r.tenant == bindparam("of_tenant"), _r.call_id == bindparam("of_call")
    )
    .order_by(_r.at.desc(), _r.epoch.desc())
    .limit(1)
)  # fmt: skip
_begun = select(s.c.seq, s.c.body).where(
    s.c.task_id == bindparam("of_task"),
    s.c.epoch == bindparam("of_epoch"),
    checked(s.c.kind) == "tool_started",
)


def key_of_call(call_id: str) -> str:
    """The id of a call as a key: a model may have made it of anything, and of any length."""
    if _PLAIN_ID.fullmatch(call_id):
        return call_id
    return hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).hexdigest()


def attach_late_result(writing: Transaction, lease: Lease, returned: ToolReturned) -> bool:
    """Keep a result, if its call was begun under this lease; in a retried task, of the task that carries it on."""
    begun = writing.execute(_begun.params(of_task=lease.task_id, of_epoch=lease.epoch)).all()
    if not any(_begins(decode_shown(row.body), returned.call_id) for row in begun):
        return False
    task_id = _carried_on_as(writing, lease)
    if task_id is None:
        return False
    call = key_of_call(returned.call_id)
    known = select(_r.epoch).where(_r.task_id == task_id, _r.call_id == call, _r.epoch == lease.epoch)
    if writing.execute(known).first() is not None:
        return True
    text = to_json_text(returned.output) if returned.error is None else returned.error.message
    values = {
        "tenant": lease.tenant, "task_id": task_id, "call_id": call, "epoch": lease.epoch,
        "tool": recordable(returned.tool, 200), "worker": lease.owner, "at": now(),
        "failed": returned.error is not None,
        "shown": to_json_text(text[:MAX_LATE_SHOWN]), "body": encode_step(returned),
    }  # fmt: skip
    writing.execute(insert(late_result).values(values))
    return True


def _begins(step: object, call_id: str) -> bool:
    return isinstance(step, ToolStarted) and step.call_id == call_id


def _carried_on_as(writing: Transaction, lease: Lease) -> str | None:
    """The last of the tasks that carry this one on, locked: none is retried in between. ``None`` where it is gone."""
    wanted: str | None = lease.task_id
    task_id = None
    while wanted is not None:
        row = writing.execute(
            select(t.c.retried_as)
            .where(t.c.id == wanted, checked(t.c.tenant) == lease.tenant)
            .with_for_update()
        ).first()
        if row is None:
            break
        task_id, wanted = wanted, row.retried_as
    return task_id


def pass_late_results_on(writing: Transaction, task_id: str, new_id: str) -> None:
    """Copy the late results of a task to the one that carries it on, as its steps are."""
    columns = [column.name for column in late_result.c]
    copied = [literal(new_id) if name == "task_id" else _r[name] for name in columns]
    writing.execute(insert(late_result).from_select(columns, select(*copied).where(_r.task_id == task_id)))


def get_late_result(connection: Connection, tenant: str, task_id: str, call_id: str) -> ToolReturned | None:
    """The newest one of a call, whole."""
    given = {"of_tenant": tenant, "of_task": task_id, "of_call": key_of_call(call_id)}
    row = connection.execute(_of_call, given).first()
    step = None if row is None else decode_shown(row.body)
    return step if isinstance(step, ToolReturned) else None


def list_late_results(connection: Connection, task_ids: Sequence[str]) -> dict[str, tuple[LateResult, ...]]:
    """What is shown of the late results of these tasks, the oldest first."""
    found: dict[str, tuple[LateResult, ...]] = {}
    for row in connection.execute(_of_tasks, {"of_tasks": task_ids}) if task_ids else ():
        one = LateResult(
            call_id=row.call_id, tool=row.tool, worker=row.worker, epoch=row.epoch, at=row.at,
            failed=bool(row.failed), shown=str(from_json_text(row.shown)),
        )  # fmt: skip
        found[row.task_id] = (*found.get(row.task_id, ()), one)
    return found


def with_late_results(approvals: Iterable[Approval], late: Sequence[LateResult]) -> tuple[Approval, ...]:
    """Questions with what is known of their calls."""
    return tuple(
        replace(
            one, late_results=tuple(each for each in late if each.call_id == key_of_call(one.asked.call_id))
        )
        for one in approvals
    )
