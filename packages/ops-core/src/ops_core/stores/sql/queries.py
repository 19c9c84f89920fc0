"""Queries of tasks and steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, literal, literal_column, select

from agentkit.transcript.steps import ApprovalAsked, ApprovalGiven, Recorded, Unreadable, expiry
from ops_core.errors import TaskNotFound
from ops_core.ports import PAGE_BYTES, ApprovalFilter, Page, TaskFilter
from ops_core.stores.damage import shown_task
from ops_core.stores.dialects import by_moment, byte_length, bytewise, now
from ops_core.stores.rows import AnyRow, recorded_of
from ops_core.stores.sql.late_results import list_late_results, with_late_results
from ops_core.stores.tables import checked, late_result, task_label, turn
from ops_core.stores.tables import step as s
from ops_core.stores.tables import task as t
from ops_core.task import Approval, Task, Verb, statuses_that

LOOKED_AT = 200
"""So many tasks are looked at together for open approvals."""

LAST_ID = "g"
"""Behind all ids of tasks, which are hexadecimal."""

_one_task = select(t).where(t.c.id == bindparam("of_task"), checked(t.c.tenant) == bindparam("of_tenant"))
_is_about_approval = s.c.kind.in_(
    [literal_column("'approval_asked'", s.c.kind.type), literal_column("'approval_given'", s.c.kind.type)]
)  # written into the statement, as the partial index has it
_asked = select(s.c.seq).where(s.c.task_id == t.c.id, _is_about_approval).exists()
_reported = select(late_result.c.epoch).where(late_result.c.task_id == t.c.id).exists()
_one_task_asked = _one_task.add_columns(
    _asked.label("asked"), _reported.label("reported"), now().label("moment")
)
_asking = (
    select(t.c.id, t.c.agent, now().label("moment"))
    .where(bytewise(t.c.status).in_(statuses_that(Verb.CANCEL)), t.c.steps > 1, _asked)
    .order_by(by_moment(t.c.id).desc())
    .limit(LOOKED_AT)
)
_questions_and_answers = (
    select(s.c.task_id, s.c.seq, s.c.at, s.c.body)
    .where(s.c.task_id.in_(bindparam("of_tasks", expanding=True)), _is_about_approval)
    .order_by(s.c.task_id, s.c.seq)
)
_step_bytes = byte_length(s.c.body)
_steps_after = (
    select(s.c.seq, s.c.at, s.c.body)
    .where(
        s.c.task_id == bindparam("of_task"),
        s.c.tenant == bindparam("of_tenant"),
        s.c.seq > bindparam("after"),
    )
    .order_by(s.c.seq)
)
_some_after = (
    _steps_after.add_columns(
        (func.sum(_step_bytes).over(order_by=s.c.seq) - _step_bytes).label("bytes_before")
    )
    .limit(bindparam("at_most"))
    .subquery()
)
_sized = select(_some_after, func.count().over().label("found")).subquery()
_page_of_steps = select(_sized).where(_sized.c.bytes_before < bindparam("max_bytes")).order_by(_sized.c.seq)


def get_task(connection: Connection, tenant: str, task_id: str) -> Task:
    """One task of this tenant, with its open approvals."""
    row = connection.execute(_one_task_asked, {"of_tenant": tenant, "of_task": task_id}).first()
    if row is None:
        raise _no_task(task_id)
    task = shown_task(row)
    if row.reported:
        task = replace(task, late_results=list_late_results(connection, [task.id]).get(task.id, ()))
    if not row.asked or task.status.terminal:
        return task
    steps = _approval_steps(connection, [task.id])
    approvals = _open(task.id, task.agent, steps.get(task.id, ()), row.moment)
    return replace(task, approvals=with_late_results(approvals, task.late_results))


def list_approvals(connection: Connection, tenant: str, wanted: ApprovalFilter) -> Sequence[Approval]:
    """Open approvals of this tenant, those of the newest tasks first; within a task in their order."""
    found: list[Approval] = []
    before = LAST_ID if wanted.before is None else wanted.before[0]
    including = wanted.before is not None
    while len(found) < wanted.limit:
        compared = by_moment(t.c.id) <= before if including else by_moment(t.c.id) < before
        rows = connection.execute(_asking.where(compared, bytewise(t.c.tenant) == tenant)).all()
        steps = _approval_steps(connection, [row.id for row in rows])
        for row in rows:
            found += [
                approval
                for approval in _open(row.id, row.agent, steps.get(row.id, ()), row.moment)
                if wanted.before is None or (row.id, -approval.seq) < (wanted.before[0], -wanted.before[1])
            ]
        if len(rows) < LOOKED_AT:
            break
        before, including = rows[-1].id, False
    shown = found[: wanted.limit]
    reported = list_late_results(connection, sorted({approval.task_id for approval in shown}))
    return [
        each
        for approval in shown
        for each in with_late_results([approval], reported.get(approval.task_id, ()))
    ]


def _approval_steps(connection: Connection, task_ids: Sequence[str]) -> dict[str, list[Recorded]]:
    of: dict[str, list[Recorded]] = {}
    for row in connection.execute(_questions_and_answers, {"of_tasks": task_ids}) if task_ids else ():
        of.setdefault(row.task_id, []).append(recorded_of(row))
    return of


def _open(task_id: str, agent: str, steps: Sequence[Recorded], moment: float) -> Iterator[Approval]:
    """The questions among these steps that can still be answered; none where one of these steps cannot be read."""
    if any(isinstance(recorded.step, Unreadable) for recorded in steps):
        return  # it may be the answer
    answered = {recorded.step.approval_id for recorded in steps if isinstance(recorded.step, ApprovalGiven)}
    for recorded in steps:
        if isinstance(recorded.step, ApprovalAsked) and recorded.step.approval_id not in answered:
            until = expiry(recorded.at, recorded.step)
            if until is None or moment < until:
                yield Approval(
                    task_id=task_id, agent=agent, seq=recorded.seq, asked_at=recorded.at, asked=recorded.step
                )


def row_of(connection: Connection, tenant: str, task_id: str, *, locked: bool = False) -> AnyRow:
    """The row of a task; ``locked`` until the transaction ends.

    Raises:
        TaskNotFound: this tenant has none of this id.
    """
    wanted = _one_task.with_for_update() if locked else _one_task
    row = connection.execute(wanted, {"of_tenant": tenant, "of_task": task_id}).first()
    if row is None:
        raise _no_task(task_id)
    return row


def _no_task(task_id: str) -> TaskNotFound:
    return TaskNotFound(f"there is no task {task_id}")


def list_tasks(connection: Connection, tenant: str, wanted: TaskFilter) -> Page[Task]:
    """Tasks of this tenant, newest first (their ids sort by the moment of submission)."""
    rows = connection.execute(_page_of_tasks(conditions_of(tenant, wanted), wanted)).all()
    page = Page(shown_task(row) for row in rows[: wanted.limit])
    page.more = bool(rows) and rows[0].found > len(page)
    return page


def conditions_of(tenant: str, wanted: TaskFilter) -> Sequence[ColumnElement[bool]]:
    """The conditions of a list."""
    conditions: list[ColumnElement[bool]] = [bytewise(t.c.tenant) == tenant]
    if wanted.status:
        conditions.append(bytewise(t.c.status).in_(wanted.status))
    if wanted.agent is not None:
        conditions.append(bytewise(t.c.agent) == wanted.agent)
    if wanted.before is not None:
        conditions.append(by_moment(t.c.id) < wanted.before)
    if wanted.thread is not None:
        of_thread = select(turn.c.task_id).where(turn.c.tenant == tenant, turn.c.thread_id == wanted.thread)
        conditions.append(t.c.id.in_(of_thread))
    if wanted.label is not None:
        key, given, value = wanted.label.partition("=")
        labelled = [task_label.c.tenant == tenant, task_label.c.key == key]
        if given:
            labelled.append(task_label.c.value == value)
        conditions.append(t.c.id.in_(select(task_label.c.task_id).where(*labelled)))
    return conditions


def _page_of_tasks(conditions: Sequence[ColumnElement[bool]], wanted: TaskFilter) -> Select[*tuple[Any, ...]]:
    """One task more than the page may have, to know whether there is one; and none whose turn comes behind the bytes.

    Sizes are summed up before the texts are read: a driver holds the whole of a result in memory.
    """
    size = byte_length(t.c.input) + func.coalesce(byte_length(t.c.output), 0) if wanted.texts else literal(0)
    some = (
        select(t.c.id, size.label("size"))
        .where(*conditions)
        .order_by(by_moment(t.c.id).desc())
        .limit(wanted.limit + 1)
    ).subquery()
    before = func.sum(some.c.size).over(order_by=by_moment(some.c.id).desc()) - some.c.size
    sized = select(some.c.id, before.label("bytes_before"), func.count().over().label("found")).subquery()
    columns = [column for column in t.c if wanted.texts or column not in (t.c.input, t.c.output)]
    texts = [] if wanted.texts else [literal("null").label("input"), literal("null").label("output")]
    return (
        select(*columns, *texts, sized.c.found, now().label("moment"))
        .join(sized, sized.c.id == t.c.id)
        .where(sized.c.bytes_before < wanted.max_bytes)
        .order_by(by_moment(t.c.id).desc())
    )


def list_steps(
    connection: Connection, tenant: str, task_id: str, after: int, limit: int | None
) -> Page[Recorded]:
    """Steps of one task of this tenant, in order."""
    given = {"of_tenant": tenant, "of_task": task_id, "after": after}
    if limit is None:
        page = Page(recorded_of(row) for row in connection.execute(_steps_after, given))
    else:
        rows = connection.execute(
            _page_of_steps, {**given, "at_most": limit + 1, "max_bytes": PAGE_BYTES}
        ).all()
        page = Page(recorded_of(row) for row in rows[:limit])
        page.more = bool(rows) and rows[0].found > len(page)
    if not page:
        row_of(connection, tenant, task_id)  # no steps, or no task?
    return page
