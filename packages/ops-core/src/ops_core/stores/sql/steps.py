"""Steps and ends, written by workers under their leases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    Integer,
    Text,
    Update,
    and_,
    any_,
    bindparam,
    case,
    cast,
    func,
    update,
)
from sqlalchemy.types import TypeEngine

from agentkit.transcript.codec import kind_of
from agentkit.transcript.steps import BEGINNINGS, Finished, Recorded, Step
from ops_core.errors import LeaseLost
from ops_core.ports import Appended
from ops_core.stores.bulk_statements import (
    BulkInsert,
    BulkStatement,
    Found,
    Given,
    Together,
    array_of,
    rows_of_arrays,
)
from ops_core.stores.dialects import now
from ops_core.stores.rows import ending_values, used_by
from ops_core.stores.sql.threads import pass_on
from ops_core.stores.tables import checked, is_still_running
from ops_core.stores.tables import step as s
from ops_core.stores.tables import task as t
from ops_core.stores.transaction import Transaction
from ops_core.task import Lease

NO_LEASE: Mapping[str, Any] = {"lease_owner": None, "lease_until": None}

Values: TypeAlias = Callable[[str], ColumnElement[Any]]
"""What stands in a statement for the value of a name: a parameter, or a column of the rows that are given together."""


def fence_of(of: Values) -> Sequence[ColumnElement[bool]]:
    """The conditions under which a task is still the holder's."""
    return (
        t.c.id == of("of_task"),
        checked(t.c.tenant) == of("of_tenant"),
        t.c.epoch == of("of_epoch"),
        is_still_running,
    )


fence = fence_of(bindparam)
"""The task is still the holder's."""

progressed = and_(t.c.steps > t.c.steps_at_claim, t.c.steps > 1)
"""Something was recorded under the lease; the first step says only that the run began."""

_SUMS = {
    "model_calls": Integer(),
    "tool_calls": Integer(),
    "input_tokens": BigInteger(),
    "output_tokens": BigInteger(),
    "unsettled": BigInteger(),
}
FENCED: Mapping[str, TypeEngine[Any]] = {"of_task": Text(), "of_tenant": Text(), "of_epoch": Integer()}
_COUNTED: Mapping[str, TypeEngine[Any]] = {
    **FENCED,
    **{f"add_{name}": kind for name, kind in _SUMS.items()},
    "add_cost_usd": Double(),
    "more": Integer(),
    "only_began": Integer(),
}
_ENDED: Mapping[str, TypeEngine[Any]] = {
    **_COUNTED,
    "to_status": Text(),
    "to_output": Text(),
    "to_error": Text(),
}


def _count_steps(of: Values) -> Mapping[str, Any]:
    cost_usd = cast(of("add_cost_usd"), t.c.cost_usd.type)  # of a bare NULL no database knows the type
    return {
        "steps": t.c.steps + of("more"),
        "updated_at": now(),
        **{name: t.c[name] + of(f"add_{name}") for name in _SUMS},
        "cost_usd": case(
            (cost_usd.is_(None), t.c.cost_usd),
            else_=func.coalesce(t.c.cost_usd, 0.0) + cost_usd,
        ),
    }


def _append_by(of: Values) -> Update:
    # a step that says only that a call began is no progress: the call may be what kills the workers; nor is the first
    at_claim = case((t.c.steps_at_claim == 0, 1), else_=t.c.steps_at_claim) + of("only_began")
    return update(t).where(*fence_of(of)).values(**_count_steps(of), steps_at_claim=at_claim)


def _finish_by(of: Values) -> Update:
    ending = {name: of(f"to_{name}") for name in ("status", "output", "error")}
    values = {**_count_steps(of), **NO_LEASE, **ending, "finished_at": now(), "run_after": None}
    return update(t).where(*fence_of(of)).values(**values)


def for_many(
    statement: Callable[[Values], Update], kinds: Mapping[str, TypeEngine[Any]], *answers: ColumnElement[Any]
) -> BulkStatement:
    """The statement behind the fence for one row, and for many together.

    That of many names the ids a second time, as one array: in whichever order the planner joins, it finds the tasks by
    their key, and none besides.
    """
    given = rows_of_arrays(kinds)
    together = statement(given.c.__getitem__).where(t.c.id == any_(array_of("of_task", Text())))
    return BulkStatement(
        statement(lambda name: bindparam(name, type_=kinds[name])).returning(*answers),
        Together(together.returning(t.c.id, t.c.epoch, *answers), key=("of_task", "of_epoch")),
    )


_append = for_many(_append_by, _COUNTED, t.c.tenant, t.c.steps, t.c.updated_at, t.c.cancel_requested)
_finish = for_many(_finish_by, _ENDED, t.c.tenant, t.c.steps, t.c.updated_at, t.c.thread_id)
_new_steps = BulkInsert(s)


StepRow: TypeAlias = tuple[str, str, int, int, float, str, str]
"""A step's values in the order of the table's columns."""


@dataclass(frozen=True, slots=True)
class Written:
    """Steps that a worker wants to record, all or none; a :class:`Finished` ends their task.

    Attributes:
        lease: the worker's claim.
        steps: what happened, in order.
        bodies: their stored forms.
        unsettled: what they change in what the task leaves unsettled, in nano-dollars.
    """

    lease: Lease
    steps: Sequence[Step]
    bodies: Sequence[str]
    unsettled: int = 0


@dataclass(slots=True)
class _OfOneLease:
    """What one worker wants to record about one task, in one transaction: one change of the task's row."""

    lease: Lease
    written: list[Written] = field(default_factory=list[Written])
    ending: Finished | None = None

    @property
    def steps(self) -> Iterator[Step]:
        return (step for one in self.written for step in one.steps)


def record_steps(writing: Transaction, written: Sequence[Written]) -> Sequence[Appended | LeaseLost]:
    """Record steps under their leases; their numbers and times come from the rows of the tasks, which this locks."""
    by_lease: dict[Lease, _OfOneLease] = {}
    for one in written:
        of = by_lease.setdefault(one.lease, _OfOneLease(one.lease))
        if of.ending is None:  # nothing is recorded after the end
            of.written.append(one)
            last = one.steps[-1] if one.steps else None
            of.ending = last if isinstance(last, Finished) else None
    going_on = [of for of in by_lease.values() if of.ending is None]
    coming_to_an_end = [of for of in by_lease.values() if of.ending is not None]
    recorded: dict[int, Appended] = {}
    rows: list[StepRow] = []
    ended: list[tuple[Lease, str | None]] = []
    for statement, leases in ((_append, going_on), (_finish, coming_to_an_end)):
        found = writing.found(statement, [_counted(of) for of in leases]) if leases else ()
        for of, row in zip(leases, found, strict=True):
            if row is not None:
                rows += _rows_of(of, row, recorded)
                if of.ending is not None:
                    ended.append((of.lease, row[-1]))
    add_steps(writing, rows)
    has_ended(writing, ended)
    return [recorded[id(one)] if id(one) in recorded else lost(one.lease) for one in written]


def _rows_of(of: _OfOneLease, row: Found, recorded: dict[int, Appended]) -> Iterator[StepRow]:
    """The rows of steps whose task let them through; notes in ``recorded`` what each write has become."""
    tenant, count, at = row[:3]
    cancel_requested = of.ending is None and bool(row[3])
    number = count - sum(len(one.steps) for one in of.written)
    for one in of.written:
        numbered = [Recorded(seq=seq, at=at, step=step) for seq, step in enumerate(one.steps, start=number)]
        recorded[id(one)] = Appended(numbered)
        recorded[id(one)].cancel_requested = cancel_requested
        number += len(numbered)
        for step, body in zip(numbered, one.bodies, strict=True):
            yield step_row((tenant, of.lease.task_id, of.lease.epoch), step, body)


def has_ended(writing: Transaction, ended: Sequence[tuple[Lease, str | None]]) -> None:
    """Tell of tasks that have ended, and let the next ones of their threads have their turn."""
    writing.ended += [lease.task_id for lease, _thread in ended]
    of_threads = [(lease.tenant, thread, lease.task_id) for lease, thread in ended if thread is not None]
    for tenant, thread, task_id in sorted(of_threads):  # as those who submit: nobody waits in a circle
        pass_on(writing, tenant, thread, task_id)


def _counted(of: _OfOneLease) -> Given:
    """The values of the statement that counts these steps, and ends the task where the last of them does."""
    sums = {f"add_{name}": 0 for name in _SUMS}
    cost_usd: float | None = None
    more = only_began = 0
    for step in of.steps:
        more += 1
        only_began += isinstance(step, BEGINNINGS)
        for name, used in used_by(step).items():
            if name == "cost_usd":
                cost_usd = used + (cost_usd or 0.0)
            else:
                sums[f"add_{name}"] += int(used)
    sums["add_unsettled"] = sum(one.unsettled for one in of.written)
    given = {**fenced(of.lease), **sums, "add_cost_usd": cost_usd, "more": more, "only_began": only_began}
    if of.ending is None:
        return given
    ending = ending_values(of.ending)
    return {
        **given,
        "to_status": ending["status"],
        "to_output": ending["output"],
        "to_error": ending["error"],
    }


def step_row(of: tuple[str, str, int], recorded: Recorded, body: str) -> StepRow:
    """The row of a step; ``of`` is the tenant, the task's id and the epoch."""
    tenant, task_id, epoch = of
    return tenant, task_id, recorded.seq, epoch, recorded.at, kind_of(recorded.step), body


def add_steps(writing: Transaction, rows: Sequence[StepRow]) -> None:
    """Insert the rows of steps."""
    writing.add(_new_steps, rows)


def fenced(lease: Lease) -> dict[str, Any]:
    """The values of :data:`fence`."""
    return {"of_task": lease.task_id, "of_tenant": lease.tenant, "of_epoch": lease.epoch}


def lost(lease: Lease) -> LeaseLost:
    """The answer to a write whose fence did not let it through."""
    return LeaseLost(f"the lease on task {lease.task_id} (epoch {lease.epoch}) is lost")
