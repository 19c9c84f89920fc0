"""Statements of agents' notes, each in the scope of a tenant, an agent and a key."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, literal, or_, select, tuple_

from agentkit.memories.similarity import nearest, unpacked
from agentkit.ports import Scope
from agentkit.transcript.steps import Note
from ops_core.ports import KeptNote, NoteFilter
from ops_core.stores import pgvector
from ops_core.stores.bulk_statements import scanned
from ops_core.stores.dialects import overwriting_what_is_deleted
from ops_core.stores.tables import note as n
from ops_core.stores.transaction import Transaction

# In the order in which they lie there, and not in that of their ids, which leads all over the file.
_VECTORS = {
    "sqlite": """
        SELECT id, vector FROM note
        WHERE rowid IN (SELECT rowid FROM note WHERE tenant = :tenant AND agent = :agent AND key = :key)
            AND embedder = :embedder
        ORDER BY rowid
    """,
    "postgresql": """
        SELECT id, vector FROM note
        WHERE tenant = %(tenant)s AND agent = %(agent)s AND key = %(key)s AND embedder = %(embedder)s
    """,
}


def put_note(writing: Transaction, scope: Scope, note: Note, vector: bytes, embedder: str) -> None:
    """Keep a note, in the place of one of the same id."""
    writing.execute(delete(n).where(*_in(scope), n.c.id == note.id))
    writing.execute(
        insert(n).values(
            tenant=scope.tenant, agent=scope.agent, key=scope.key, id=note.id, text=note.text,
            source=note.source, at=note.at, embedder=embedder, vector=vector,
        )
    )  # fmt: skip


def find_notes(
    connection: Connection, scope: Scope, query: bytes, embedder: str, limit: int
) -> Sequence[Note]:
    """The notes of this scope whose vectors are most similar; all of them are looked at."""
    given = {"tenant": scope.tenant, "agent": scope.agent, "key": scope.key, "embedder": embedder}
    wanted = unpacked(query)
    home = pgvector.home(connection) if len(wanted) <= pgvector.MAX_DIMENSIONS else None
    if home is not None:
        rows = pgvector.nearest_rows(connection, home, wanted, limit, given)
        return [Note(id=row.id, text=row.text, source=row.source, at=row.at, score=row.score) for row in rows]
    scores = dict(nearest(query, scanned(connection, _VECTORS, given), limit))
    found = select(n.c.id, n.c.text, n.c.source, n.c.at).where(*_in(scope), n.c.id.in_(list(scores)))
    notes = [
        Note(id=row.id, text=row.text, source=row.source, at=row.at, score=scores[row.id])
        for row in connection.execute(found)
    ]
    return sorted(notes, key=lambda note: -note.score)


def list_notes(connection: Connection, tenant: str, wanted: NoteFilter) -> Sequence[KeptNote]:
    """Notes of this tenant, the newest first."""
    columns = (n.c.agent, n.c.key, n.c.id, n.c.text, n.c.source, n.c.at)
    listed = select(*columns).where(*_fitting(tenant, wanted.agent, wanted.key, wanted.ids))
    if wanted.behind is not None:
        at, *place = wanted.behind
        listed = listed.where(
            or_(
                n.c.at < at,
                and_(n.c.at == at, tuple_(n.c.agent, n.c.key, n.c.id) > tuple_(*map(literal, place))),
            )
        )
    rows = connection.execute(listed.order_by(n.c.at.desc(), n.c.agent, n.c.key, n.c.id).limit(wanted.limit))
    return [
        KeptNote(
            scope=Scope(tenant=tenant, agent=row.agent, key=row.key),
            note=Note(id=row.id, text=row.text, source=row.source, at=row.at),
        )
        for row in rows
    ]


def forget_notes(writing: Transaction, tenant: str, wanted: NoteFilter) -> int:
    """Delete notes of this tenant with their vectors; how many it were."""
    fitting = _fitting(tenant, wanted.agent, wanted.key, wanted.ids)
    with overwriting_what_is_deleted(writing.connection):
        return writing.execute(delete(n).where(*fitting)).rowcount


def _in(scope: Scope) -> tuple[ColumnElement[bool], ...]:
    return n.c.tenant == scope.tenant, n.c.agent == scope.agent, n.c.key == scope.key


def _fitting(
    tenant: str, agent: str | None, key: str | None, ids: Collection[str] | None
) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [n.c.tenant == tenant]
    if agent is not None:
        conditions.append(n.c.agent == agent)
    if key is not None:
        conditions.append(n.c.key == key)
    if ids is not None:
        conditions.append(n.c.id.in_(list(ids)))
    return conditions
