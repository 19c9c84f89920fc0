"""What agents remember: notes, each in the scope of a tenant, an agent and a key."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from sqlalchemy import ColumnElement, Connection, delete, insert, select

from agentkit.memories.nearest import nearest
from agentkit.ports import Scope
from agentkit.transcript import Note
from ops_core.ports import KeptNote, NoteFilter
from ops_core.stores.dialects import overwriting_what_is_deleted
from ops_core.stores.tables import note as n
from ops_core.stores.writing import Writing

TOGETHER = 4096
"""So many vectors are read at a time."""


def put_note(writing: Writing, scope: Scope, note: Note, vector: bytes, embedder: str) -> None:
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
    scores = dict(nearest(query, _vectors(connection, scope, embedder), limit))
    found = select(n.c.id, n.c.text, n.c.source, n.c.at).where(*_in(scope), n.c.id.in_(list(scores)))
    notes = [
        Note(id=row.id, text=row.text, source=row.source, at=row.at, score=scores[row.id])
        for row in connection.execute(found)
    ]
    return sorted(notes, key=lambda note: -note.score)


def _vectors(connection: Connection, scope: Scope, embedder: str) -> Iterator[tuple[str, bytes]]:
    """Page by page along the primary key: memory is bounded, however many there are."""
    page = select(n.c.id, n.c.vector).where(*_in(scope), n.c.embedder == embedder).order_by(n.c.id)
    after: str | None = None
    while True:
        following = page if after is None else page.where(n.c.id > after)
        rows = connection.execute(following.limit(TOGETHER)).all()
        for row in rows:
            yield row.id, bytes(row.vector)
        if len(rows) < TOGETHER:
            return
        after = rows[-1].id


def list_notes(connection: Connection, tenant: str, wanted: NoteFilter) -> Sequence[KeptNote]:
    """Notes of this tenant, the newest first."""
    columns = (n.c.agent, n.c.key, n.c.id, n.c.text, n.c.source, n.c.at)
    listed = select(*columns).where(*_fitting(tenant, wanted.agent, wanted.key, wanted.ids))
    rows = connection.execute(listed.order_by(n.c.at.desc(), n.c.agent, n.c.key, n.c.id).limit(wanted.limit))
    return [
        KeptNote(
            scope=Scope(tenant=tenant, agent=row.agent, key=row.key),
            note=Note(id=row.id, text=row.text, source=row.source, at=row.at),
        )
        for row in rows
    ]


def forget_notes(writing: Writing, tenant: str, wanted: NoteFilter) -> int:
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
