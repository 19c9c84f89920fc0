"""Claims, and what becomes of them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    and_,
    bindparam,
    case,
    func,
    literal,
    not_,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from agentkit.codec import encode_step
from agentkit.transcript import Finished, Recorded, RunStarted
from ops_core.errors import TaskUnreadable
from ops_core.ports import Renewed, RetryLater
from ops_core.stores.dialects import now
from ops_core.stores.rows import AnyRow, error_text, task_of
from ops_core.stores.sql.decide import end_task
from ops_core.stores.sql.halts import not_all_halted, not_halted
from ops_core.stores.sql.progress import NO_LEASE, add_steps, fence, fenced, lost, progressed, step_row
from ops_core.stores.tables import is_open, is_running, open_in
from ops_core.stores.tables import task as t
from ops_core.stores.turns import Line, Turns
from ops_core.stores.writing import Writing
from ops_core.task import (
    FREE_HANDOVERS,
    HANDOVER_SECONDS,
    MOST_SECONDS,
    Claimed,
    Lease,
    TaskStatus,
    Verb,
    stopped_in_vain,
    transition,
)

log = logging.getLogger("ops_core.stores")

MOST_LINES = 256
"""So many lines are looked at for a claim; where there are more, the next claim goes on after them."""

BEFORE_ALL = Line("", "", 0)


_begins = and_(t.c.steps == 0, t.c.thread_id.is_(None))


def _claim(*wanted: ColumnElement[bool]) -> ReturningUpdate[Any]:
    due = (
        select(t.c.id)
        .where(is_open, t.c.run_after <= now(), *wanted, not_halted)
        .order_by(t.c.run_after, t.c.id)
        .limit(bindparam("slots", type_=Integer()))
        .with_for_update(skip_locked=True)
        .cte("due")  # a subquery could be carried out once for each row, and take more than there are slots
    )
    values: dict[str, Any] = {
        "status": TaskStatus.RUNNING,
        "epoch": t.c.epoch + 1,
        "attempt": t.c.attempt + case((t.c.status == TaskStatus.PENDING, 1), else_=0),
        "steps": case((_begins, 1), else_=t.c.steps),  # the first one: this claim records it
        "steps_at_claim": t.c.steps,
        "lease_owner": bindparam("by"),
        "lease_until": now() + bindparam("seconds"),
        "started_at": func.coalesce(t.c.started_at, now()),
        "deadline_at": func.coalesce(t.c.deadline_at, now() + t.c.timeout_seconds),
        "updated_at": now(),
    }
    return update(t).where(t.c.id.in_(select(due.c.id))).values(values).returning(t, now().label("moment"))


CLAIM_OF_LINE = _claim(*(t.c[name] == bindparam(f"of_{name}") for name in Line._fields))
_claim_only = _claim(
    t.c.agent.in_(bindparam("agents", expanding=True)),
    t.c.id.in_(bindparam("only", expanding=True)),
    not_all_halted(t.c.tenant, t.c.agent),
)
_renew = (
    update(t)
    .where(tuple_(t.c.tenant, t.c.id, t.c.epoch).in_(bindparam("held", expanding=True)))
    .where(is_running)
    .values(lease_until=now() + bindparam("seconds"))
    .returning(t.c.id, t.c.epoch, t.c.cancel_requested)
)


def _lines() -> Any:
    """The lines in which something is due, from one line on: one look into the index for each, however long it is."""
    names = Line._fields
    after: list[ColumnElement[Any]] = [bindparam(f"after_{name}") for name in names]
    first = (
        select(*(t.c[name] for name in names))
        .where(is_open, tuple_(*(t.c[name] for name in names)) > tuple_(*after))
        .order_by(*(t.c[name] for name in names))
        .limit(1)
        .subquery("first_line")
    )
    line = select(first).cte("line", recursive=True)
    of = [line.c[name] for name in names]
    n, row = t.alias("n"), t.alias("of_next_line")
    following = (
        select(n.c.id)
        .where(open_in(n))
        .where(tuple_(*(n.c[name] for name in names)) > tuple_(*of))
        .order_by(*(n.c[name] for name in names))
        .limit(1)
        .scalar_subquery()
    )
    line = line.union_all(
        select(*(row.c[name] for name in names)).select_from(line).join(row, row.c.id == following)
    )
    due = (
        select(t.c.id)
        .where(*(t.c[name] == line.c[name] for name in names))
        .where(t.c.run_after <= now(), is_open)
        .exists()
    )
    return select(*line.c).where(due, not_all_halted(line.c.tenant, line.c.agent))


LINES_AFTER = _lines().limit(MOST_LINES)
_first_line = _lines().limit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a worker asks for.

    Attributes:
        owner: its name.
        slots: so many tasks at most.
        lease_seconds: how long its claims last.
        agents: that it can run.
        only: ids of the tasks that it may take; ``None`` for any.
    """

    owner: str
    slots: int
    lease_seconds: float
    agents: Collection[str]
    only: Collection[str] | None = None


@dataclass(slots=True)
class Claiming:
    """What one process remembers from claim to claim: nothing that another one, or the next start, would miss."""

    turns: Turns = field(default_factory=Turns)
    _after: Line = BEFORE_ALL

    def claim(self, writing: Writing, wanted: Wanted) -> Sequence[Claimed]:
        """Take due tasks. Whoever else looks at the same time finds them taken."""
        if wanted.only is not None:
            of = {"agents": list(wanted.agents), "only": list(wanted.only)}
            return _readable(writing, _take(writing, _claim_only, wanted, wanted.slots, of))
        rows: list[AnyRow] = []
        lines = {line for line in self._due_lines(writing) if line.agent in wanted.agents}
        while lines and len(rows) < wanted.slots:
            for line, count in self.turns.share(wanted.slots - len(rows), lines).items():
                of_line = {f"of_{name}": value for name, value in line._asdict().items()}
                taken = _take(writing, CLAIM_OF_LINE, wanted, count, of_line)
                rows += taken
                if taken:
                    self.turns.served(line)
                if len(taken) < count:
                    lines.discard(line)
        return _readable(writing, rows)

    def _due_lines(self, writing: Writing) -> Sequence[Line]:
        lines = _look(writing, self._after)
        if self._after != BEFORE_ALL and len(lines) < MOST_LINES:
            lines = list(dict.fromkeys(lines + _look(writing, BEFORE_ALL)))[:MOST_LINES]
        self._after = lines[-1] if len(lines) == MOST_LINES else BEFORE_ALL
        self.turns.forget_all_but(lines)
        return lines


def _take(
    writing: Writing, statement: ReturningUpdate[Any], wanted: Wanted, count: int, of: Mapping[str, Any]
) -> list[AnyRow]:
    given = {"by": wanted.owner, "seconds": wanted.lease_seconds, "slots": count, **of}
    return sorted(writing.execute(statement, given), key=lambda row: (row.run_after, row.id))


def _look(writing: Writing, after: Line) -> list[Line]:
    given = {f"after_{name}": value for name, value in after._asdict().items()}
    return [Line._make(row) for row in writing.execute(LINES_AFTER, given)]


def any_due(writing: Writing) -> bool:
    """Could a task be claimed now?"""
    given = {f"after_{name}": value for name, value in BEFORE_ALL._asdict().items()}
    return writing.execute(_first_line, given).first() is not None


def _readable(writing: Writing, rows: Sequence[AnyRow]) -> Sequence[Claimed]:
    """The tasks with their leases. A run that begins is recorded here: one write less for each task."""
    claimed = [one for row in rows if (one := _claimed_if_readable(writing, row)) is not None]
    add_steps(
        writing,
        [
            step_row((one.lease.tenant, one.lease.task_id, one.lease.epoch), first, encode_step(first.step))
            for one in claimed
            if (first := one.begun) is not None
        ],
    )
    return claimed


def _claimed_if_readable(writing: Writing, row: AnyRow) -> Claimed | None:
    try:
        return _claimed(row)
    except (TypeError, ValueError) as error:  # by a newer release: one task must not strand all others
        log.error("task %s cannot be read here (%s); left to newer workers", row.id, type(error).__name__)
        lease = Lease(tenant=row.tenant, task_id=row.id, owner=row.lease_owner, epoch=row.epoch)
        unbegun = (
            update(t).where(*fence).values(steps=row.steps_at_claim)
        )  # what this claim has counted is not there
        writing.execute(unbegun, fenced(lease))
        release_task(writing, lease, RetryLater.by_a_newer_release(TaskUnreadable()))
        return None


def _claimed(row: AnyRow) -> Claimed:
    task = task_of(row)
    lease = Lease(tenant=task.tenant, task_id=task.id, owner=row.lease_owner, epoch=task.epoch)
    seconds_left = None if task.deadline_at is None else task.deadline_at - row.moment
    begun: Recorded | None = None
    if row.steps > row.steps_at_claim:
        started = RunStarted(run_id=task.id, agent=task.agent, input=task.input)
        begun = Recorded(seq=0, at=row.moment, step=started)
    return Claimed(task=task, lease=lease, seconds_left=seconds_left, begun=begun)


def renew_leases(writing: Writing, leases: Collection[Lease], lease_seconds: float) -> Renewed:
    """Prolong leases, and say which are lost and which tasks are to be cancelled."""
    held = [(lease.tenant, lease.task_id, lease.epoch) for lease in leases]
    cancelled: dict[tuple[str, int], bool] = {}
    if held:
        for row in writing.execute(_renew, {"held": held, "seconds": lease_seconds}):
            cancelled[row.id, row.epoch] = row.cancel_requested
    return Renewed(
        lost=frozenset(lease for lease in leases if (lease.task_id, lease.epoch) not in cancelled),
        cancelled=frozenset(lease for lease in leases if cancelled.get((lease.task_id, lease.epoch))),
    )


def wait_task(writing: Writing, lease: Lease, seen: int, until: float | None = None) -> None:
    """Put a task to waiting; due at once where a step was added that its worker has not seen."""
    due = case((t.c.steps > seen, now()), else_=literal(until, t.c.run_after.type))
    handovers = case((progressed, 0), else_=t.c.handovers)
    _let_go(writing, lease, Verb.WAIT, {"run_after": due, "handovers": handovers})


def release_task(writing: Writing, lease: Lease, later: RetryLater | None) -> None:
    """Give a task back. Neither a hand-over in good order nor one that made progress is an attempt.

    What has its workers stopped each time before it records anything is not forgiven for ever: from a number of
    hand-overs on they count, are put off, and end the task as the loss of its workers would.
    """
    beyond = t.c.handovers + 1 - FREE_HANDOVERS
    in_vain = and_(not_(progressed), beyond > 0)
    values: dict[str, Any] = {
        "attempt": t.c.attempt - case((in_vain, 0), else_=1),
        "handovers": case((progressed, 0), else_=t.c.handovers + 1),
        "run_after": now() + case((in_vain, beyond * HANDOVER_SECONDS), else_=0.0),
    }
    if later is not None:
        attempt = t.c.attempt - (case((progressed, 1), else_=0) if later.counted else 1)
        values = {
            "attempt": attempt, "run_after": now() + min(later.delay_seconds, MOST_SECONDS),
            "error": error_text(later.error),
        }  # fmt: skip
    row = _let_go(writing, lease, Verb.RELEASE, values)
    writing.due = writing.due or later is None
    counts = later is None and row.handovers > FREE_HANDOVERS
    if counts and row.attempt >= row.max_attempts and not row.cancel_requested:
        end_task(writing, row, stopped_in_vain(row.handovers))


def _let_go(writing: Writing, lease: Lease, verb: Verb, values: Mapping[str, Any]) -> AnyRow:
    """A task that its worker lets go ends here where it was to be cancelled: nobody else would be asked again."""
    let_go = (
        update(t)
        .where(*fence)
        .values(status=transition(TaskStatus.RUNNING, verb), updated_at=now(), **NO_LEASE, **values)
        .returning(t)
    )
    row = writing.execute(let_go, fenced(lease)).first()
    if row is None:
        raise lost(lease)
    if row.cancel_requested:
        end_task(writing, row, Finished(status="cancelled"))
    return row
