"""Statements of claims and leases."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Double,
    FromClause,
    Integer,
    ScalarSelect,
    Select,
    Text,
    and_,
    bindparam,
    case,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate
from sqlalchemy.types import TypeEngine

from agentkit.transcript.codec import encode_step
from agentkit.transcript.steps import Finished, Recorded, RunStarted
from ops_core.durations import MAX_SECONDS
from ops_core.errors import TaskUnreadable
from ops_core.ports import RenewResult, RetryLater
from ops_core.stores.bulk_statements import array_text, rows_of_arrays
from ops_core.stores.dialects import among, now
from ops_core.stores.fair_share import FairShare, Line
from ops_core.stores.rows import AnyRow, error_text, task_of, unreadable
from ops_core.stores.sql.decisions import end_task
from ops_core.stores.sql.halts import not_all_halted, not_halted
from ops_core.stores.sql.steps import (
    FENCED,
    NO_LEASE,
    add_steps,
    fence,
    fence_of,
    fenced,
    for_many,
    lost,
    progressed,
    step_row,
)
from ops_core.stores.tables import is_open, open_in
from ops_core.stores.tables import task as t
from ops_core.stores.transaction import Transaction
from ops_core.task import (
    FREE_HANDOVERS,
    HANDOVER_SECONDS,
    Claimed,
    Lease,
    TaskStatus,
    Verb,
    stopped_in_vain,
    transition,
)

log = logging.getLogger("ops_core.stores")

MAX_HOPS = 256
"""Number of lines of an agent that are looked at for one claim; the next claim goes on behind them."""

MAX_STATEMENTS = 8
"""Number of sets of agents whose statement is kept; a worker has one as a rule."""

_NO_PRIORITY = -(2**31)
"""Lower than any."""


_has_not_expired = or_(t.c.deadline_at.is_(None), t.c.started_at.is_not(None), t.c.deadline_at > now())
_begins = and_(t.c.steps == 0, t.c.thread_id.is_(None))


def _due(slots: ColumnElement[int], *wanted: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    return (
        select(t.c.id)
        .where(is_open, t.c.run_after <= now(), *wanted, not_halted, _has_not_expired)
        .order_by(t.c.run_after, t.c.id)
        .limit(slots)
        .with_for_update(skip_locked=True)
    )


def _claim(found: Select[*tuple[Any, ...]]) -> ReturningUpdate[Any]:
    due = found.cte(
        "due"
    )  # a subquery could be carried out once for each row, and take more than there are slots
    by_timeout = now() + t.c.timeout_seconds
    values: dict[str, Any] = {
        "status": TaskStatus.RUNNING,
        "epoch": t.c.epoch + 1,
        "attempt": t.c.attempt + case((t.c.status == TaskStatus.PENDING, 1), else_=0),
        "steps": case((_begins, 1), else_=t.c.steps),  # the first one: this claim records it
        "steps_at_claim": t.c.steps,
        "status_since": now(),
        "lease_owner": bindparam("by"),
        "lease_until": now() + bindparam("seconds"),
        "started_at": func.coalesce(t.c.started_at, now()),
        # before the first start it says when the task expires
        "deadline_at": case(
            (t.c.started_at.is_(None), by_timeout), else_=func.coalesce(t.c.deadline_at, by_timeout)
        ),
        "updated_at": now(),
    }
    found_ids = select(due.c.id).scalar_subquery()
    return update(t).where(among(t.c.id, found_ids)).values(values).returning(t, now().label("moment"))


def _claim_of_lines() -> ReturningUpdate[Any]:
    """As :data:`CLAIM_OF_LINE`, of many lines, on PostgreSQL."""
    given = rows_of_arrays({**_OF_LINE, "slots": Integer()})
    line = (t.c[name] == given.c[f"of_{name}"] for name in Line._fields)
    due = _due(given.c.slots, *line).lateral("due_of_line")
    return _claim(select(due.c.id).select_from(given.join(due, true())))


_slots = bindparam("slots", type_=Integer())
_OF_LINE: Mapping[str, TypeEngine[Any]] = {"of_tenant": Text(), "of_agent": Text(), "of_priority": Integer()}
CLAIM_OF_LINE = _claim(_due(_slots, *(t.c[name] == bindparam(f"of_{name}") for name in Line._fields)))
CLAIM_OF_LINES = _claim_of_lines()
_claim_only = _claim(
    _due(
        _slots,
        t.c.agent.in_(bindparam("agents", expanding=True)),
        t.c.id.in_(bindparam("only", expanding=True)),
        not_all_halted(t.c.tenant, t.c.agent),
    )
)
RENEW = for_many(
    lambda of: update(t).where(*fence_of(of)).values(lease_until=now() + of("seconds")),
    {**FENCED, "seconds": Double()},
    t.c.cancel_requested,
)


def _is_due(of: FromClause) -> ColumnElement[bool]:
    """Whether something of this line could be claimed now.

    Asked as a minimum, which only the index of due tasks can give: what an EXISTS may be made into, such as a hash of
    all that is due, depends on the statistics.
    """
    line = (t.c.agent == of.c.agent, t.c.tenant == of.c.tenant, t.c.priority == of.c.priority)
    first = select(func.min(t.c.run_after)).where(*line, is_open).correlate(of).scalar_subquery()
    return and_(first <= now(), not_all_halted(of.c.tenant, of.c.agent))


def lines_of(agents: Sequence[str]) -> Select[*tuple[Any, ...]]:
    """As :func:`_lines`, of these agents."""
    return _lines(
        union_all(*(select(literal(agent, t.c.agent.type).label("agent")) for agent in agents)).cte("mine")
    )


def _due_lines_of(mine: CTE) -> Select[*tuple[Any, ...]]:
    lines = _lines(mine).subquery("lines")
    return select(lines.c.tenant).where(lines.c.due).limit(1)


def _lines(mine: CTE) -> Select[*tuple[Any, ...]]:
    """The most urgent line of each tenant and agent in which something is due, in the order of tenants, from one on.

    For each agent the walk goes from tenant to tenant, and within a tenant from its highest priority down to the first
    that is due: each step is one look into the index of due tasks, however many tasks wait there, and lines of other
    agents are never met. It ends with as many lines as there are slots, or after :data:`MAX_HOPS`.
    """
    start = select(
        mine.c.agent,
        bindparam("after_tenant", type_=t.c.tenant.type).label("tenant"),
        literal(_NO_PRIORITY, Integer()).label("priority"),
        literal(0, Integer()).label("hops"),
        literal(0, Integer()).label("found"),
    )
    walk = start.cte("walk", recursive=True)
    due, lower, following = _is_due(walk), _lower_priority(walk), _following_tenant(walk)
    stays = and_(case((due, 0), else_=1) == 1, lower.is_not(None))  # not: ~due, which NULL would make unknown
    onward = select(
        walk.c.agent,
        case((stays, walk.c.tenant), else_=following),
        case((stays, lower), else_=_highest_priority(walk, following)),
        walk.c.hops + 1,
        walk.c.found + case((due, 1), else_=0),
    ).where(
        walk.c.tenant.is_not(None),
        walk.c.hops < MAX_HOPS,
        walk.c.found < bindparam("slots", type_=Integer()),
    )
    walk = walk.union_all(onward)
    return select(
        walk.c.tenant, walk.c.agent, walk.c.priority, walk.c.hops, _is_due(walk).label("due")
    ).where(walk.c.hops > 0, walk.c.tenant.is_not(None))


def _lower_priority(of: FromClause) -> ScalarSelect[int]:
    n = t.alias("n")
    line = (n.c.agent == of.c.agent, n.c.tenant == of.c.tenant, n.c.priority < of.c.priority)
    return select(func.max(n.c.priority)).where(open_in(n), *line).correlate(of).scalar_subquery()


def _following_tenant(of: FromClause) -> ScalarSelect[str]:
    n = t.alias("n")
    behind = (n.c.agent == of.c.agent, n.c.tenant > of.c.tenant)
    return select(func.min(n.c.tenant)).where(open_in(n), *behind).correlate(of).scalar_subquery()


def _highest_priority(of: FromClause, tenant: ScalarSelect[str]) -> ScalarSelect[int]:
    n = t.alias("highest")
    return (
        select(func.max(n.c.priority))
        .where(open_in(n), n.c.agent == of.c.agent, n.c.tenant == tenant)
        .correlate(of)
        .scalar_subquery()
    )


def _lower_lines(start: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    """The next lower priority of tenants and agents at which something is due; nothing where there is none."""
    lines = start.add_columns(literal(0, Integer()).label("hops"))
    walk = lines.cte("walk", recursive=True)
    goes_on = or_(walk.c.hops == 0, case((_is_due(walk), 0), else_=1) == 1)
    onward = select(walk.c.agent, walk.c.tenant, _lower_priority(walk), walk.c.hops + 1)
    walk = walk.union_all(onward.where(walk.c.priority.is_not(None), goes_on))
    found = select(walk.c.tenant, walk.c.agent, walk.c.priority)
    return found.where(walk.c.hops > 0, walk.c.priority.is_not(None), _is_due(walk))


def _line_by(of: Callable[[str], ColumnElement[Any]]) -> Select[*tuple[Any, ...]]:
    return select(*(of(f"of_{name}").label(name) for name in ("agent", "tenant", "priority")))


LOWER_LINE = _lower_lines(_line_by(lambda name: bindparam(name, type_=_OF_LINE[name])))
LOWER_LINES = _lower_lines(_line_by(rows_of_arrays(_OF_LINE).c.__getitem__))
"""As :data:`LOWER_LINE`, of many lines, on PostgreSQL."""


def _all_agents() -> CTE:
    """Agents of whose tasks some are open, and one without a name, from which the walk begins."""
    n = t.alias("n")
    agents = select(literal("", t.c.agent.type).label("agent")).cte("mine", recursive=True)
    following = select(func.min(n.c.agent)).where(open_in(n), n.c.agent > agents.c.agent)
    return agents.union_all(
        select(following.correlate(agents).scalar_subquery()).where(agents.c.agent.is_not(None))
    )


ANY_LINE = _due_lines_of(_all_agents())


def _due_agents() -> Select[*tuple[Any, ...]]:
    lines = _lines(_all_agents()).subquery("lines")
    return select(lines.c.agent).where(lines.c.due).distinct()


DUE_AGENTS = _due_agents()
"""Agents of whose tasks one could be claimed now."""


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

    turns: FairShare = field(default_factory=FairShare)
    _statements: dict[tuple[str, ...], Select[*tuple[Any, ...]]] = field(default_factory=dict)

    def claim(self, writing: Transaction, wanted: Wanted) -> Sequence[Claimed]:
        """Take due tasks. Whoever else looks at the same time finds them taken."""
        if wanted.only is not None:
            of = {"agents": list(wanted.agents), "only": list(wanted.only)}
            return _readable(writing, _take(writing, _claim_only, wanted, wanted.slots, of))
        rows: list[AnyRow] = []
        lines, examined = self._due_lines(writing, wanted)
        served = set[str]()
        while lines and len(rows) < wanted.slots:
            shares = self.turns.share(wanted.slots - len(rows), lines)
            taken = _take_of_lines(writing, wanted, shares)
            for line in shares:
                if taken[line]:
                    rows += taken[line]
                    self.turns.served(line)
                    served.add(line.tenant)
            emptied = [line for line, count in shares.items() if len(taken[line]) < count]
            lines -= {*emptied}
            lines |= _lower(writing, emptied)
        if served:
            examined = self.turns.in_turn(served)[-1]
        self.turns.last_tenant = examined
        return _readable(writing, rows)

    def _due_lines(self, writing: Transaction, wanted: Wanted) -> tuple[set[Line], str]:
        """The lines of the tenants that are next, and the last tenant that was looked at for each agent."""
        agents = tuple(sorted(wanted.agents))
        if not agents or wanted.slots < 1:
            return set(), self.turns.last_tenant
        after = self.turns.last_tenant
        lines, until = self._walk(writing, agents, after, wanted.slots)
        if until is None and after:  # all behind were seen: now those before
            more, until = self._walk(writing, agents, "", wanted.slots)
            lines |= {line for line in more if line.tenant <= after}
        next_ones = set(self.turns.in_turn({line.tenant for line in lines})[: wanted.slots])
        return {line for line in lines if line.tenant in next_ones}, after if until is None else until

    def _walk(
        self, writing: Transaction, agents: tuple[str, ...], after: str, slots: int
    ) -> tuple[set[Line], str | None]:
        """Due lines behind a tenant, and the tenant up to which all were seen; ``None`` where there are no others."""
        if agents not in self._statements:
            if len(self._statements) >= MAX_STATEMENTS:
                self._statements.clear()
            self._statements[agents] = lines_of(agents)
        rows = writing.execute(self._statements[agents], {"after_tenant": after, "slots": slots}).all()
        cut_off = [row.tenant for row in rows if row.hops >= MAX_HOPS]
        lines = {Line(row.tenant, row.agent, row.priority) for row in rows if row.due}
        if not cut_off:
            count = Counter(row.agent for row in rows if row.due)
            if any(found >= slots for found in count.values()):
                return lines, max(line.tenant for line in lines)
            return lines, None
        until = min(cut_off)
        return {line for line in lines if line.tenant <= until}, until


def _take_of_lines(
    writing: Transaction, wanted: Wanted, shares: Mapping[Line, int]
) -> Mapping[Line, Sequence[AnyRow]]:
    """Take so many tasks of each line: on PostgreSQL in one statement."""
    if len(shares) == 1 or not writing.takes_arrays:
        return {
            line: _take(writing, CLAIM_OF_LINE, wanted, count, _of_line(line))
            for line, count in shares.items()
        }
    taken: dict[Line, list[AnyRow]] = {line: [] for line in shares}
    slots = array_text([*shares.values()])
    of = {"by": wanted.owner, "seconds": wanted.lease_seconds, "slots": slots, **_arrays_of(shares)}
    for row in sorted(writing.execute(CLAIM_OF_LINES, of), key=lambda row: (row.run_after, row.id)):
        taken[Line(row.tenant, row.agent, row.priority)].append(row)
    return taken


def _lower(writing: Transaction, lines: Sequence[Line]) -> set[Line]:
    """The lines below these, of the same agents and tenants."""
    if len(lines) > 1 and writing.takes_arrays:
        rows = writing.execute(LOWER_LINES, _arrays_of(lines)).all()
    else:
        rows = [row for line in lines for row in writing.execute(LOWER_LINE, _of_line(line))]
    return {Line(row.tenant, row.agent, row.priority) for row in rows}


def _of_line(line: Line) -> dict[str, Any]:
    return {f"of_{name}": value for name, value in line._asdict().items()}


def _arrays_of(lines: Iterable[Line]) -> dict[str, str]:
    columns = zip(Line._fields, zip(*lines, strict=True), strict=True)
    return {f"of_{name}": array_text(values) for name, values in columns}


def _take(
    writing: Transaction, statement: ReturningUpdate[Any], wanted: Wanted, count: int, of: Mapping[str, Any]
) -> list[AnyRow]:
    given = {"by": wanted.owner, "seconds": wanted.lease_seconds, "slots": count, **of}
    return sorted(writing.execute(statement, given), key=lambda row: (row.run_after, row.id))


def any_due(writing: Transaction) -> bool:
    """Could a task be claimed now?"""
    return writing.execute(ANY_LINE, {"after_tenant": "", "slots": 1}).first() is not None


def _readable(writing: Transaction, rows: Sequence[AnyRow]) -> Sequence[Claimed]:
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


def _claimed_if_readable(writing: Transaction, row: AnyRow) -> Claimed | None:
    try:
        return _claimed(row)
    except TaskUnreadable as error:  # by a newer release: one task must not strand all others
        log.error("task %s is left to newer workers: %s", row.id, error)
        lease = Lease(tenant=row.tenant, task_id=row.id, owner=row.lease_owner, epoch=row.epoch)
        unbegun = (
            update(t).where(*fence).values(steps=row.steps_at_claim)
        )  # what this claim has counted is not there
        writing.execute(unbegun, fenced(lease))
        release_task(writing, lease, RetryLater.by_a_newer_release(error))
        return None


def _claimed(row: AnyRow) -> Claimed:
    task = task_of(row)
    lease = Lease(tenant=task.tenant, task_id=task.id, owner=row.lease_owner, epoch=task.epoch)
    try:
        seconds_left = None if task.deadline_at is None else task.deadline_at - row.moment
    except TypeError:
        raise unreadable("its deadline") from None
    begun: Recorded | None = None
    if row.steps > row.steps_at_claim:
        started = RunStarted(run_id=task.id, agent=task.agent, input=task.input)
        begun = Recorded(seq=0, at=row.moment, step=started)
    return Claimed(task=task, lease=lease, seconds_left=seconds_left, begun=begun)


def renew_leases(writing: Transaction, leases: Collection[Lease], lease_seconds: float) -> RenewResult:
    """Prolong leases, and say which are lost and which tasks are to be cancelled."""
    given = [{**fenced(lease), "seconds": lease_seconds} for lease in leases]
    found = dict(zip(leases, writing.found(RENEW, given), strict=True))
    return RenewResult(
        lost=frozenset(lease for lease, row in found.items() if row is None),
        cancelled=frozenset(lease for lease, row in found.items() if row is not None and row[0]),
    )


def wait_task(writing: Transaction, lease: Lease, seen: int, until: float | None = None) -> None:
    """Put a task to waiting; due at once where a step was added that its worker has not seen."""
    due = case((t.c.steps > seen, now()), else_=literal(until, t.c.run_after.type))
    handovers = case((progressed, 0), else_=t.c.handovers)
    _let_go(writing, lease, Verb.WAIT, {"run_after": due, "handovers": handovers, "status_since": now()})


def release_task(writing: Transaction, lease: Lease, later: RetryLater | None) -> None:
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
            "attempt": attempt, "run_after": now() + min(later.delay_seconds, MAX_SECONDS),
            "error": error_text(later.error),
        }  # fmt: skip
    row = _let_go(writing, lease, Verb.RELEASE, values)
    writing.due = writing.due or later is None
    counts = later is None and row.handovers > FREE_HANDOVERS
    if counts and row.attempt >= row.max_attempts and not row.cancel_requested:
        end_task(writing, row, stopped_in_vain(row.handovers))


def _let_go(writing: Transaction, lease: Lease, verb: Verb, values: Mapping[str, Any]) -> AnyRow:
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
