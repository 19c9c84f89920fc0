"""New tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Connection,
    String,
    Text,
    bindparam,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.types import TypeEngine

from agentkit.transcript.codec import encode_step
from agentkit.transcript.steps import Recorded, RunRetried
from ops_core.errors import IdempotencyConflict, OpsError, ThreadBusy, TransitionRefused
from ops_core.ports import SubmitResult
from ops_core.stores.bulk_statements import BulkInsert, BulkStatement, Given, Together, rows_of_arrays
from ops_core.stores.damage import shown_task
from ops_core.stores.dialects import now
from ops_core.stores.rows import NEW_TASK_COLUMNS, accepted, new_task_values, status_of, task_of
from ops_core.stores.sql import threads
from ops_core.stores.sql.late_results import pass_late_results_on
from ops_core.stores.sql.queries import get_task, row_of
from ops_core.stores.sql.steps import add_steps, step_row
from ops_core.stores.tables import step as s
from ops_core.stores.tables import task as t
from ops_core.stores.tables import task_label
from ops_core.stores.transaction import Transaction
from ops_core.task import InThread, NewTask, Task, TaskStatus


def _uncut(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    return Text() if isinstance(kind, String) else kind


_KINDS: Mapping[str, TypeEngine[Any]] = {
    # text, not varchar(n): a cast to that would cut what is too long, and not refuse it
    **{f"new_{name}": _uncut(t.c[name].type) for name in NEW_TASK_COLUMNS},
    "run_at": t.c.run_after.type,
    "expires_seconds": t.c.deadline_at.type,
}


def _columns_by(of: Callable[[str], ColumnElement[Any]]) -> Mapping[str, ColumnElement[Any]]:
    return {
        **{name: of(f"new_{name}") for name in NEW_TASK_COLUMNS},
        "created_at": now(),
        "updated_at": now(),
        "run_after": func.coalesce(of("run_at"), now()),
        "deadline_at": func.coalesce(of("run_at"), now()) + of("expires_seconds"),
    }


_moments = (t.c.created_at, t.c.updated_at, t.c.run_after, t.c.deadline_at)
_one = _columns_by(lambda name: bindparam(name, type_=_KINDS[name]))
_several = _columns_by(rows_of_arrays(_KINDS).c.__getitem__)
_insert_task = BulkStatement(
    insert(t).values(**_one).returning(*_moments),
    Together(
        insert(t).from_select([*_several], select(*_several.values())).returning(t.c.id, *_moments),
        key=("new_id",),
    ),
)
_new_labels = BulkInsert(task_label)
_same_key = BulkStatement(
    select(t.c.id).where(t.c.tenant == bindparam("of_tenant"), t.c.idempotency_key == bindparam("key"))
)


_Key: TypeAlias = tuple[str, str | None, str]


@dataclass(frozen=True, slots=True)
class Submitted:
    """A task that is to be accepted, and its columns."""

    new: NewTask
    values: Mapping[str, Any]

    @property
    def key(self) -> _Key:
        """Whose key; of a task without one, its id."""
        key = self.new.idempotency_key
        return self.new.tenant, key, self.values["id"] if key is None else ""


@dataclass(frozen=True, slots=True)
class _Known:
    """A task that was accepted under a key."""

    task: Task
    fingerprint: str | None


def insert_tasks(writing: Transaction, submitted: Sequence[Submitted]) -> Sequence[SubmitResult | OpsError]:
    """Accept tasks, or find those that were accepted under the same keys."""
    keyed = [one for one in submitted if one.new.idempotency_key is not None]
    known = _known(writing, keyed) if keyed else {}
    fresh: dict[str, Submitted] = {}
    coming: set[_Key] = set()
    for one in submitted:
        if one.new.idempotency_key is not None:
            if one.key in known or one.key in coming:
                continue  # of two that come at once with one key, the first one counts
            coming.add(one.key)
        fresh[one.values["id"]] = one
    places, refused = _places(writing, fresh)
    accepted_now = [one for id_, one in fresh.items() if id_ not in refused]
    tasks = {task.id: task for task in _insert(writing, accepted_now, places)}
    known.update({one.key: _Known(tasks[one.values["id"]], one.new.fingerprint) for one in accepted_now})
    busy = {one.key: refused[id_] for id_, one in fresh.items() if id_ in refused}
    return [_answer(one, tasks, known, busy) for one in submitted]


def _answer(
    one: Submitted, tasks: Mapping[str, Task], known: Mapping[_Key, _Known], busy: Mapping[_Key, ThreadBusy]
) -> SubmitResult | OpsError:
    if one.values["id"] in tasks:
        return SubmitResult(task=tasks[one.values["id"]], created=True)
    return _repeated(one, known[one.key]) if one.key in known else busy[one.key]


def _places(
    writing: Transaction, fresh: Mapping[str, Submitted]
) -> tuple[dict[str, threads.Place], dict[str, ThreadBusy]]:
    """Where the tasks that belong to a thread stand in it, and which of them are refused; threads in their order, so
    that two who want the same ones do not wait for each other.
    """
    places: dict[str, threads.Place] = {}
    refused: dict[str, ThreadBusy] = {}
    belonging = [(one.new.tenant, one.new.thread.id, id_) for id_, one in fresh.items() if one.new.thread]
    for _tenant, _thread, id_ in sorted(belonging, key=lambda found: found[:2]):
        place = threads.take_place(writing, fresh[id_].new, id_)
        if isinstance(place, ThreadBusy):
            refused[id_] = place
        else:
            places[id_] = place
    return places, refused


def _known(writing: Transaction, submitted: Sequence[Submitted]) -> dict[_Key, _Known]:
    given = [{"of_tenant": one.new.tenant, "key": one.new.idempotency_key} for one in submitted]
    found = zip(submitted, writing.found(_same_key, given), strict=True)
    rows = {one.key: row_of(writing.connection, one.new.tenant, id_[0]) for one, id_ in found if id_}
    return {key: _Known(shown_task(row), row.fingerprint) for key, row in rows.items()}


def _repeated(one: Submitted, known: _Known) -> SubmitResult | IdempotencyConflict:
    if known.fingerprint != one.new.fingerprint:
        return _key_is_used()
    return SubmitResult(task=known.task, created=False)


def _key_is_used() -> IdempotencyConflict:
    message = "this idempotency key was used for a request with another body"
    return IdempotencyConflict(message, field="Idempotency-Key")


def find_repeated(connection: Connection, new: NewTask) -> SubmitResult | None:
    """The task that was accepted under the key of this one; ``None`` where there is none.

    Raises:
        IdempotencyConflict: the key was used for another request.
    """
    of_key = select(t).where(t.c.tenant == new.tenant, t.c.idempotency_key == new.idempotency_key)
    row = None if new.idempotency_key is None else connection.execute(of_key).first()
    if row is None:
        return None
    if row.fingerprint != new.fingerprint:
        raise _key_is_used()
    return SubmitResult(task=shown_task(row), created=False)


def _insert(
    writing: Transaction, fresh: Sequence[Submitted], places: Mapping[str, threads.Place]
) -> Sequence[Task]:
    found = writing.found(_insert_task, [_columns(one) for one in fresh])
    labels = [
        (one.new.tenant, key, value, one.values["id"])
        for one in fresh
        for key, value in one.new.labels.items()
    ]
    writing.add(_new_labels, labels)
    tasks: list[Task] = []
    for one, row in zip(fresh, found, strict=True):
        assert row is not None, "an INSERT that is not refused answers its row"
        task = accepted(one.new, one.values, *row)
        if task.id in places:
            task = threads.join(writing, one.new, task, places[task.id])
        writing.due = writing.due or (task.run_after is not None and task.run_after <= task.updated_at)
        tasks.append(task)
    return tasks


def _columns(one: Submitted) -> Given:
    return {
        **{f"new_{name}": value for name, value in one.values.items()},
        "run_at": one.new.run_at,
        "expires_seconds": one.new.expires_seconds,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A task that is to be carried on by a new one.

    Attributes:
        tenant: whose it is.
        task_id: its id.
        new_id: of the new one.
        refuse_busy: the new one is refused where it would have to wait for its turn in a thread.
        idempotency_key: the same key for the same task is the same new task.
    """

    tenant: str
    task_id: str
    new_id: str
    refuse_busy: bool = False
    idempotency_key: str | None = None

    @property
    def fingerprint(self) -> str:
        """The same for the same task."""
        return hashlib.sha256(f"retry {self.task_id}".encode()).hexdigest()


def retry_task(writing: Transaction, asked: Retry) -> SubmitResult:
    """A new task that starts with the steps of one that did not complete, its last step excepted.

    A task is retried once: its approvals and what is left of its sums are used by one successor, never by two. Who asks
    again is given the same one.

    In a thread it has a new turn, after all others, and is shown what the first one was shown: its steps follow from
    that.
    """
    row = row_of(writing.connection, asked.tenant, asked.task_id, locked=True)
    new = _successor_of(task_of(row), asked)
    repeated = find_repeated(writing.connection, new)
    if repeated is not None:
        return repeated
    if row.retried_as is not None:
        return SubmitResult(task=get_task(writing.connection, asked.tenant, row.retried_as), created=False)
    status = status_of(row)
    if status not in (TaskStatus.FAILED, TaskStatus.CANCELLED):
        message = f"only a failed or cancelled task can be retried; this one is {row.status}"
        raise TransitionRefused(message)
    places: dict[str, threads.Place] = {}
    if new.thread is not None:
        place = threads.take_place(writing, new, asked.new_id, again=asked.task_id)
        if isinstance(place, ThreadBusy):
            raise place
        places[asked.new_id] = place
    _insert(writing, [Submitted(new, new_task_values(new, asked.new_id))], places)
    writing.execute(update(t).where(t.c.id == asked.task_id).values(retried_as=asked.new_id))
    _copy_steps(writing, task_of(row), asked.new_id)
    pass_late_results_on(writing, asked.task_id, asked.new_id)
    return SubmitResult(task=get_task(writing.connection, asked.tenant, asked.new_id), created=True)


def _successor_of(task: Task, asked: Retry) -> NewTask:
    return NewTask(
        agent=task.agent, input=task.input, tenant=task.tenant, labels=task.labels, priority=task.priority,
        timeout_seconds=task.timeout_seconds, budget=task.budget, max_attempts=task.max_attempts,
        thread=None if task.thread_id is None else InThread(id=task.thread_id, refuse=asked.refuse_busy),
        trace=task.trace, idempotency_key=asked.idempotency_key,
        fingerprint=None if asked.idempotency_key is None else asked.fingerprint,
    )  # fmt: skip


def _copy_steps(writing: Transaction, task: Task, new_id: str) -> None:
    kept = task.steps - 1
    if not kept:
        return
    writing.execute(update(t).where(t.c.id == new_id).values(steps=kept + 1))
    copied = select(s.c.tenant, literal(new_id), s.c.seq, literal(0), s.c.at, s.c.kind, s.c.body)
    columns = ["tenant", "task_id", "seq", "epoch", "at", "kind", "body"]
    writing.execute(insert(s).from_select(columns, copied.where(s.c.task_id == task.id, s.c.seq < kept)))
    mark = RunRetried(of=task.id, was="cancelled" if task.status is TaskStatus.CANCELLED else "failed")
    moment = writing.execute(select(now())).scalar_one()
    recorded = Recorded(seq=kept, at=moment, step=mark)
    add_steps(writing, [step_row((task.tenant, new_id, 0), recorded, encode_step(mark))])
