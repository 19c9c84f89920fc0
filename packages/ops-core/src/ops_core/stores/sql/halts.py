"""Halts: ordered, lifted, and kept."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from sqlalchemy import ColumnElement, Connection, and_, insert, literal_column, or_, select, update

from ops_core.errors import HaltNotFound, IdempotencyConflict, TransitionRefused
from ops_core.halt import Halt, HaltKind, NewHalt
from ops_core.ports import HaltFilter
from ops_core.stores.dialects import now
from ops_core.stores.rows import AnyRow, status_of
from ops_core.stores.sql.queries import row_of
from ops_core.stores.tables import halt as h
from ops_core.stores.tables import task as t
from ops_core.stores.transaction import Transaction

log = logging.getLogger("ops_core.stores")

_in_force = h.c.lifted_at.is_(None)


def _is(kind: HaltKind) -> ColumnElement[bool]:
    return h.c.kind == literal_column(f"'{kind}'", h.c.kind.type)


not_halted = t.c.id.not_in(select(h.c.target).where(_in_force, _is(HaltKind.TASK)))
"""Tasks that are not halted themselves. Looked up once for each statement, not once for each row."""


def not_all_halted(tenant: ColumnElement[str], agent: ColumnElement[str]) -> ColumnElement[bool]:
    """Neither this agent of this tenant is halted, nor everything."""
    of_agent = and_(_is(HaltKind.AGENT), h.c.target == agent)
    return ~(select(h.c.id).where(_in_force, h.c.tenant == tenant, or_(of_agent, _is(HaltKind.ALL))).exists())


def put_halt(writing: Transaction, tenant: str, new: NewHalt, new_id: str) -> Halt:
    """Halt something; that of a task which has ended is refused, as it would hold nothing."""
    repeated = _repeated(writing, tenant, new)
    if repeated is not None:
        return repeated
    if new.kind is HaltKind.TASK:
        status = status_of(row_of(writing.connection, tenant, new.target, locked=True))
        if status.terminal:
            message = f"the task is {status}: there is nothing to halt"
            raise TransitionRefused(message)
    values = {"kind": new.kind, "target": new.target, "reason": new.reason, "by": new.by}
    if new.idempotency_key is not None:
        values |= {"idempotency_key": new.idempotency_key, "fingerprint": new.fingerprint}
    added = insert(h).values(id=new_id, tenant=tenant, at=now(), **values).returning(h)
    writing.halts = True
    return halt_of(writing.execute(added).one())


def _repeated(writing: Transaction, tenant: str, new: NewHalt) -> Halt | None:
    if new.idempotency_key is None:
        return None
    row = writing.execute(
        select(h).where(h.c.tenant == tenant, h.c.idempotency_key == new.idempotency_key)
    ).first()
    if row is None:
        return None
    if row.fingerprint != new.fingerprint:
        message = "this idempotency key was used for another halt"
        raise IdempotencyConflict(message, field="Idempotency-Key")
    return halt_of(row)


def lift_halt(writing: Transaction, tenant: str, halt_id: str, by: str, reason: str) -> Halt:
    """Lift a halt; one that was lifted before stays as it is."""
    mine = and_(h.c.tenant == tenant, h.c.id == halt_id)
    lifted = update(h).where(mine, _in_force).values(lifted_at=now(), lifted_by=by, lifted_reason=reason)
    if writing.execute(lifted).rowcount:
        writing.halts = writing.due = True
    row = writing.execute(select(h).where(mine)).first()
    if row is None:
        message = f"there is no halt {halt_id}"
        raise HaltNotFound(message)
    return halt_of(row)


def list_halts(connection: Connection, tenant: str, wanted: HaltFilter) -> Sequence[Halt]:
    """Halts of a tenant, the newest first."""
    some = select(h).where(h.c.tenant == tenant).order_by(h.c.id.desc()).limit(wanted.limit)
    if wanted.in_force:
        some = some.where(_in_force)
    if wanted.before is not None:
        some = some.where(h.c.id < wanted.before)
    return _readable(connection.execute(some))


def halts_in_force(connection: Connection) -> Sequence[Halt]:
    """Those of all tenants."""
    return _readable(connection.execute(_all_in_force))


def _readable(rows: Iterable[AnyRow]) -> list[Halt]:
    """Halts of the kinds that this release knows: it could not hold what another kind is about."""
    halts: list[Halt] = []
    for row in rows:
        if row.kind in _KINDS:
            halts.append(halt_of(row))
        else:
            log.error(
                "halt %s is of the kind %r, which is not known here; a newer release has ordered it",
                row.id,
                row.kind,
            )
    return halts


_KINDS = frozenset(HaltKind)


_all_in_force = select(h).where(_in_force).order_by(h.c.id)


def halt_of(row: AnyRow) -> Halt:
    """A halt from its row."""
    return Halt(
        id=row.id,
        tenant=row.tenant,
        kind=HaltKind(row.kind),
        target=row.target,
        reason=row.reason,
        by=row.by,
        at=row.at,
        lifted_at=row.lifted_at,
        lifted_by=row.lifted_by or "",
        lifted_reason=row.lifted_reason or "",
    )
