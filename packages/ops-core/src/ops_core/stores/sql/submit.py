"""New tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, func, insert, literal, select, update

from agentkit.codec import encode_step
from agentkit.transcript import Recorded, RunRetried
from ops_core.errors import IdempotencyConflict, TransitionRefused
from ops_core.ports import Inserted
from ops_core.stores.dialects import now
from ops_core.stores.many import Given, Many
from ops_core.stores.rows import NEW_TASK_COLUMNS, accepted, new_task_values, task_of
from ops_core.stores.sql.look import get_task, row_of
from ops_core.stores.sql.progress import add_steps, step_row
from ops_core.stores.tables import step as s
from ops_core.stores.tables import task as t
from ops_core.stores.tables import task_label
from ops_core.stores.writing import Writing
from ops_core.task import NewTask, Task, TaskStatus

_insert_task = Many(
    insert(t)
    .values(
        **{name: bindparam(f"new_{name}", type_=t.c[name].type) for name in NEW_TASK_COLUMNS},
        created_at=now(),
        updated_at=now(),
        run_after=func.coalesce(bindparam("run_at", type_=t.c.run_after.type), now()),
    )
    .returning(t.c.created_at, t.c.updated_at, t.c.run_after)
)
_insert_label = Many(
    insert(task_label).values({column.name: bindparam(column.name) for column in task_label.columns})
)
_same_key = Many(
    select(t.c.id).where(t.c.tenant == bindparam("of_tenant"), t.c.idempotency_key == bindparam("key"))
)


@dataclass(frozen=True, slots=True)
class Submitted:
    """A task that is to be accepted, and its columns."""

    new: NewTask
    values: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str | None]:
        """Whose key."""
        return self.new.tenant, self.new.idempotency_key


@dataclass(frozen=True, slots=True)
class _Known:
    """A task that was accepted under a key."""

    task: Task
    fingerprint: str | None


def insert_tasks(
    writing: Writing, submitted: Sequence[Submitted]
) -> Sequence[Inserted | IdempotencyConflict]:
    """Accept tasks, or find those that were accepted under the same keys."""
    keyed = [one for one in submitted if one.new.idempotency_key is not None]
    known = _known(writing, keyed) if keyed else {}
    fresh: dict[str, Submitted] = {}
    coming: set[tuple[str, str | None]] = set()
    for one in submitted:
        if one.new.idempotency_key is not None:
            if one.key in known or one.key in coming:
                continue  # of two that come at once with one key, the first one counts
            coming.add(one.key)
        fresh[one.values["id"]] = one
    tasks = {task.id: task for task in _insert(writing, list(fresh.values()))}
    known.update({one.key: _Known(tasks[id_], one.new.fingerprint) for id_, one in fresh.items()})
    return [
        Inserted(task=tasks[one.values["id"]], created=True)
        if one.values["id"] in tasks
        else _repeated(one, known[one.key])
        for one in submitted
    ]


def _known(writing: Writing, submitted: Sequence[Submitted]) -> dict[tuple[str, str | None], _Known]:
    given = [{"of_tenant": one.new.tenant, "key": one.new.idempotency_key} for one in submitted]
    found = zip(submitted, writing.found(_same_key, given), strict=True)
    rows = {one.key: row_of(writing.connection, one.new.tenant, id_[0]) for one, id_ in found if id_}
    return {key: _Known(task_of(row), row.fingerprint) for key, row in rows.items()}


def _repeated(one: Submitted, known: _Known) -> Inserted | IdempotencyConflict:
    if known.fingerprint != one.new.fingerprint:
        message = "this idempotency key was used for a request with another body"
        return IdempotencyConflict(message, field="Idempotency-Key")
    return Inserted(task=known.task, created=False)


def _insert(writing: Writing, fresh: Sequence[Submitted]) -> Sequence[Task]:
    found = writing.found(_insert_task, [_columns(one) for one in fresh])
    labels = [
        {"tenant": one.new.tenant, "task_id": one.values["id"], "key": key, "value": value}
        for one in fresh
        for key, value in one.new.labels.items()
    ]
    writing.do(_insert_label, labels)
    tasks: list[Task] = []
    for one, row in zip(fresh, found, strict=True):
        assert row is not None, "an INSERT that is not refused answers its row"
        task = accepted(one.new, one.values, *row)
        writing.due = writing.due or (task.run_after or 0.0) <= task.updated_at
        tasks.append(task)
    return tasks


def _columns(one: Submitted) -> Given:
    return {**{f"new_{name}": value for name, value in one.values.items()}, "run_at": one.new.run_at}


def retry_task(writing: Writing, tenant: str, task_id: str, new_id: str) -> Task:
    """A new task that starts with the steps of one that did not complete, its last step excepted."""
    row = row_of(writing.connection, tenant, task_id)
    if TaskStatus(row.status) not in (TaskStatus.FAILED, TaskStatus.CANCELLED):
        message = f"only a failed or cancelled task can be retried; this one is {row.status}"
        raise TransitionRefused(message)
    task = task_of(row)
    new = NewTask(
        agent=task.agent, input=task.input, tenant=tenant, labels=task.labels, priority=task.priority,
        timeout_seconds=task.timeout_seconds, budget=task.budget, max_attempts=task.max_attempts,
    )  # fmt: skip
    kept = task.steps - 1
    _insert(writing, [Submitted(new, new_task_values(new, new_id))])
    if kept:
        writing.execute(update(t).where(t.c.id == new_id).values(steps=kept + 1))
        copied = select(s.c.tenant, literal(new_id), s.c.seq, literal(0), s.c.at, s.c.kind, s.c.body)
        columns = ["tenant", "task_id", "seq", "epoch", "at", "kind", "body"]
        writing.execute(insert(s).from_select(columns, copied.where(s.c.task_id == task_id, s.c.seq < kept)))
        mark = RunRetried(of=task_id)
        moment = writing.execute(select(now())).scalar_one()
        add_steps(
            writing,
            [step_row((tenant, new_id, 0), Recorded(seq=kept, at=moment, step=mark), encode_step(mark))],
        )
    return get_task(writing.connection, tenant, new_id)
