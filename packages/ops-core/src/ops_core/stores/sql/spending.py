"""Spending of tenants: one row for each tenant and day, changed in the transaction of the step that changes it.

Money is in whole nano-dollars. A day is counted in days since 1970, UTC, by the database's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import BigInteger, Connection, Integer, bindparam, case, func, insert, select, tuple_, update

from agentkit.money import as_text
from agentkit.transcript.steps import Recorded
from ops_core.errors import LeaseLost, SpendingReached
from ops_core.ports import Appended
from ops_core.spending import Charge, Spent, day_of
from ops_core.stores.dialects import now
from ops_core.stores.sql.steps import Written, record_steps
from ops_core.stores.tables import spending as m
from ops_core.stores.transaction import Transaction

Key: TypeAlias = tuple[int, str]
"""Day and tenant."""

_reserved = m.c.reserved + bindparam("more_reserved", type_=BigInteger())
_add = (
    update(m)
    .where(m.c.day == bindparam("of_day"), m.c.tenant == bindparam("of_tenant"))
    .values(
        # a call that was announced before there was a limit has reserved nothing here
        reserved=case((_reserved < 0, 0), else_=_reserved),
        spent=m.c.spent + bindparam("more_spent", type_=BigInteger()),
    )
)


@dataclass(frozen=True, slots=True)
class Charged:
    """Steps, with what they change of their tenant's spending."""

    written: Written
    charge: Charge


def record_charged(
    writing: Transaction, charged: Sequence[Charged]
) -> Sequence[Appended | LeaseLost | SpendingReached]:
    """Record steps as :func:`~ops_core.stores.sql.steps.record_steps` does, and what they cost with them.

    The rows of the tenants are locked in one order, so that two workers never wait for each other crosswise.
    """
    today = day_of(writing.execute(select(now())).scalar_one())
    taken = _locked(writing, today, charged)
    refused: dict[int, SpendingReached] = {}
    for number, one in enumerate(charged):
        tenant, charge = one.written.lease.tenant, one.charge
        if charge.reserve is None:
            continue
        reserved, spent = taken[today, tenant]
        if charge.limit is not None and reserved + spent + charge.reserve > charge.limit:
            lost = charge.spent if charge.settled is not None and charge.settled.day == today else 0
            refused[number] = _refusal(tenant, charge, reserved - lost, spent + lost)
        else:
            taken[today, tenant] = reserved + charge.reserve, spent
    permitted = [number for number in range(len(charged)) if number not in refused]
    recorded = record_steps(writing, [charged[number].written for number in permitted])
    answers = dict(zip(permitted, recorded, strict=True))
    _apply(writing, [(charged[number], answer) for number, answer in answers.items()])
    return [refused.get(number) or answers[number] for number in range(len(charged))]


def _refusal(tenant: str, charge: Charge, reserved: int, spent: int) -> SpendingReached:
    wanted, limit = charge.reserve or 0, charge.limit or 0
    refusal = SpendingReached(
        f"the next call may cost {as_text(wanted)}, and {tenant} has {as_text(max(0, limit - reserved - spent))} left "
        f"of {as_text(limit)} for today (UTC)"
    )
    refusal.for_now = spent + wanted <= limit
    return refusal


def _locked(writing: Transaction, today: int, charged: Iterable[Charged]) -> dict[Key, tuple[int, int]]:
    """What each tenant has reserved and spent on each day that is changed; nobody else changes it meanwhile."""
    wanted: set[Key] = set()
    for one in charged:
        tenant = one.written.lease.tenant
        if one.charge.reserve is not None:
            wanted.add((today, tenant))
        if one.charge.settled is not None:
            wanted.add((one.charge.settled.day, tenant))
    found = _read(writing.connection, wanted)
    missing = sorted(wanted - found.keys())
    if missing:  # another worker may do the same: it, or we, then find the other's row and begin once more
        rows = [{"day": day, "tenant": tenant, "reserved": 0, "spent": 0} for day, tenant in missing]
        writing.execute(insert(m), rows)
        found |= dict.fromkeys(missing, (0, 0))
    return found


def _read(connection: Connection, wanted: Iterable[Key]) -> dict[Key, tuple[int, int]]:
    locked = (
        select(m.c.day, m.c.tenant, m.c.reserved, m.c.spent)
        .where(tuple_(m.c.day, m.c.tenant).in_(sorted(wanted)))
        .order_by(m.c.day, m.c.tenant)
        .with_for_update()
    )
    return {(row.day, row.tenant): (row.reserved, row.spent) for row in connection.execute(locked)}


def _apply(writing: Transaction, done: Iterable[tuple[Charged, Sequence[Recorded] | LeaseLost]]) -> None:
    changes: dict[Key, list[int]] = {}
    for one, answer in done:
        if isinstance(answer, LeaseLost):
            continue
        tenant, charge = one.written.lease.tenant, one.charge
        if charge.reserve is not None:
            # by the time of the step, which is what gives it back: midnight may lie between two statements
            changes.setdefault((day_of(answer[-1].at), tenant), [0, 0])[0] += charge.reserve
        if charge.settled is not None:
            row = changes.setdefault((charge.settled.day, tenant), [0, 0])
            row[0] -= charge.settled.amount
            row[1] += charge.spent
    for (day, tenant), (reserved, spent) in sorted(changes.items()):
        given: Mapping[str, object] = {
            "of_day": day, "of_tenant": tenant, "more_reserved": reserved, "more_spent": spent,
        }  # fmt: skip
        if writing.execute(_add, given).rowcount == 0:
            writing.execute(insert(m), {"day": day, "tenant": tenant, "reserved": reserved, "spent": spent})


def read_spent(connection: Connection, tenant: str | None) -> Spent:
    """What a tenant, or all of them together, have spent today."""
    moment = connection.execute(select(now())).scalar_one()
    sums = select(
        func.coalesce(func.sum(m.c.reserved), 0).cast(BigInteger).label("reserved"),
        func.coalesce(func.sum(m.c.spent), 0).cast(BigInteger).label("spent"),
    ).where(m.c.day == bindparam("of_day", type_=Integer()))
    if tenant is not None:
        sums = sums.where(m.c.tenant == tenant)
    row = connection.execute(sums, {"of_day": day_of(moment)}).one()
    return Spent(day=day_of(moment), reserved=row.reserved, spent=row.spent)
