"""Bulk statements: compiled once, for many rows at a time through the driver, and rows read piece by piece.

A statement that runs for each step of each task would otherwise cost more in the library above the driver than in the
database. On SQLite the rows are carried out one after the other. On PostgreSQL they go as one statement that reads them
from arrays, where there is one, or else in one flight (libpq's pipeline); each row is found by its primary key, so that
no statistics can turn a statement into a scan. New rows that answer nothing go as one COPY. Figures: decisions 0024,
0045 and 0114.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Table,
    TableValuedAlias,
    Text,
    bindparam,
    cast,
    column,
    func,
    insert,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import Select
from sqlalchemy.types import TypeEngine

from ops_core.stores.sessions import is_stale

Given: TypeAlias = Mapping[str, Any]
"""The values of a statement's parameters, by name; those that the statement knows itself are left out."""

Found: TypeAlias = tuple[Any, ...]


FEW = 8
"""So many new rows are worth a COPY, which takes one round trip more than a pipeline."""


def rows_of_arrays(kinds: Mapping[str, TypeEngine[Any]]) -> TableValuedAlias:
    """Rows that a statement on PostgreSQL reads from its parameters: one array for each column.

    Args:
        kinds: the type of each column, by name.
    """
    arrays = [array_of(name, kind) for name, kind in kinds.items()]
    columns = [column(name, kind) for name, kind in kinds.items()]
    return func.unnest(*arrays).table_valued(*columns).render_derived(name="given")


def array_of(name: str, kind: TypeEngine[Any]) -> ColumnElement[Any]:
    """The array of the values of this name."""
    return cast(bindparam(name, type_=Text()), ARRAY(kind))


MAX_TOGETHER = 100
"""Rows in one statement. Some plans compare each of them with each task that their keys have found."""


@dataclass(frozen=True, slots=True)
class Together:
    """A statement for PostgreSQL that is carried out once for many rows.

    Attributes:
        statement: reads its rows from :func:`rows_of_arrays`; its answers begin with the values of ``key``.
        key: names of the values by which an answer is matched with its row.
    """

    statement: UpdateBase
    key: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Compiled:
    text: str
    arrange: Callable[[Given], Any]


class BulkStatement:
    """A statement for many rows.

    Args:
        statement: with a name for each value that differs from row to row, and at most one row in each answer.
        together: the same for all rows at once, on PostgreSQL.
    """

    def __init__(self, statement: UpdateBase | Select[Any], together: Together | None = None) -> None:
        self._statement = statement
        self._together = together
        self._compiled: dict[str, _Compiled] = {}
        self._compiled_together: _Compiled | None = None

    def found(self, connection: Connection, rows: Sequence[Given]) -> list[Found | None]:
        """Carry it out for each row, in order; for each the row that it answers, or ``None``.

        Raises:
            DBAPIError: the database refused one of them; the transaction can only be rolled back.
        """
        if self._together is not None and len(rows) > 1 and connection.dialect.name == "postgresql":
            return self._found_together(self._together, connection, rows)
        return _through_the_driver(connection, self._for(connection.dialect), rows, answers=True)

    def _found_together(
        self, together: Together, connection: Connection, rows: Sequence[Given]
    ) -> list[Found | None]:
        if self._compiled_together is None:
            self._compiled_together = _compile(together.statement, connection.dialect)
        text, arrange = self._compiled_together.text, self._compiled_together.arrange
        by_key: dict[Found, Found] = {}
        width = len(together.key)
        with _cursor(connection) as cursor:
            for first in range(0, len(rows), MAX_TOGETHER):
                some = rows[first : first + MAX_TOGETHER]
                arrays = {name: array_text([row[name] for row in some]) for name in rows[0]}
                for answer in cursor.execute(text, arrange(arrays)).fetchall():
                    by_key[answer[:width]] = answer[width:]
        return [by_key.get(tuple(row[name] for name in together.key)) for row in rows]

    def do(self, connection: Connection, rows: Sequence[Given]) -> None:
        """Carry it out for each row, in order; it answers nothing.

        Raises:
            DBAPIError: as in :meth:`found`.
        """
        if rows:
            _through_the_driver(connection, self._for(connection.dialect), rows, answers=False)

    def _for(self, dialect: Dialect) -> _Compiled:
        if dialect.name not in self._compiled:
            self._compiled[dialect.name] = _compile(self._statement, dialect)
        return self._compiled[dialect.name]


class BulkInsert:
    """Rows that are added to a table.

    Args:
        table: that has a value for each column in each row.
    """

    def __init__(self, table: Table) -> None:
        self._names = [column.name for column in table.columns]
        self._insert = BulkStatement(insert(table).values({name: bindparam(name) for name in self._names}))
        self._copy = f"COPY {table.name} ({', '.join(self._names)}) FROM STDIN"

    def add(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Add them.

        Args:
            connection: in a transaction.
            rows: their values, in the order of the table's columns.

        Raises:
            DBAPIError: the database refused one of them; the transaction can only be rolled back.
        """
        if len(rows) < FEW or connection.dialect.name != "postgresql":
            self._insert.do(connection, [dict(zip(self._names, row, strict=True)) for row in rows])
            return
        with _cursor(connection) as cursor, cursor.copy(self._copy) as copying:
            for row in rows:
                copying.write_row(row)


def array_text(values: Sequence[str | float | None]) -> str:
    """The text of an array as PostgreSQL reads it. A text with a NUL character, which none there has, becomes NULL."""
    return f"{{{','.join([_QUOTE.get(type(value), _quoted)(value) for value in values])}}}"


def _quoted(value: Any) -> str:
    if "\x00" in value:
        return "NULL"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_QUOTE: Mapping[type, Callable[[Any], str]] = {
    int: repr,
    float: repr,
    type(None): lambda _none: "NULL",
}


def _compile(statement: UpdateBase | Select[Any], dialect: Dialect) -> _Compiled:
    # columns that are not named take no part: nothing is inserted that the statement does not say
    compiled: Any = statement.compile(dialect=dialect)
    known: dict[str, Any] = dict(compiled.params)
    if not compiled.positional:
        return _Compiled(str(compiled), lambda given: {**known, **given})
    names: Sequence[str] = compiled.positiontup
    return _Compiled(str(compiled), lambda given: tuple(map({**known, **given}.__getitem__, names)))


def _through_the_driver(
    connection: Connection, compiled: _Compiled, rows: Sequence[Given], *, answers: bool
) -> list[Found | None]:
    arranged = [compiled.arrange(row) for row in rows]
    with _cursor(connection) as cursor:
        if connection.dialect.name == "postgresql":
            return _in_one_flight(cursor, compiled.text, arranged, answers=answers)
        if not answers:
            cursor.executemany(compiled.text, arranged)
            return []
        return [cursor.execute(compiled.text, row).fetchone() for row in arranged]


@contextmanager
def _cursor(connection: Connection) -> Generator[Any]:
    """The driver's own; its errors are raised as SQLAlchemy raises them."""
    driver: Any = connection.connection.driver_connection
    cursor = driver.cursor()
    try:
        yield cursor
    except connection.dialect.loaded_dbapi.Error as error:
        raise as_usual(connection, error, cursor) from error
    finally:
        if not connection.invalidated:  # else it is closed with its session
            cursor.close()


def _in_one_flight(cursor: Any, text: str, rows: Sequence[Any], *, answers: bool) -> list[Found | None]:
    if len(rows) == 1:  # a pipeline would take one round trip more
        cursor.execute(text, rows[0])
        return [cursor.fetchone()] if answers else []
    cursor.executemany(text, rows, returning=answers)
    if not answers or not rows:
        return []
    found: list[Found | None] = [cursor.fetchone()]
    while cursor.nextset():
        found.append(cursor.fetchone())
    return found


def as_usual(connection: Connection, error: Exception, cursor: Any) -> Exception:
    """The error that the statement would have raised without this module; a connection that is gone is not reused."""
    dialect = connection.dialect
    is_lost = dialect.is_disconnect(error, connection.connection.driver_connection, cursor)  # type: ignore[arg-type]
    is_lost = is_lost or is_stale(error)
    told = DBAPIError.instance(
        None, None, error, dialect.loaded_dbapi.Error, connection_invalidated=is_lost, dialect=dialect
    )
    if is_lost:
        connection.invalidate(error)
    return told


TOGETHER = 256
"""So many rows are taken from the driver at a time: few enough for the cache of a processor."""


def scanned(connection: Connection, statements: Mapping[str, str], given: Mapping[str, Any]) -> Iterator[Any]:
    """The rows of a statement as plain tuples, as they come.

    Args:
        connection: where it is carried out; nothing else may be done with it before the last row was read.
        statements: the statement for each database, in the words of its driver.
        given: the values of its parameters.

    Raises:
        DBAPIError: the database refused.
    """
    statement = statements[connection.dialect.name]
    driver: Any = connection.connection.driver_connection
    cursor = driver.cursor()
    try:
        if connection.dialect.name == "postgresql":
            yield from _streamed(driver, statement, given)
            return
        cursor.execute(statement, given)
        while rows := cursor.fetchmany(TOGETHER):
            yield from rows
    except connection.dialect.loaded_dbapi.Error as error:
        raise as_usual(connection, error, cursor) from error
    finally:
        cursor.close()


def _streamed(driver: Any, statement: str, given: Mapping[str, Any]) -> Iterator[Any]:
    from psycopg import capabilities  # an extra

    size = TOGETHER if capabilities.has_stream_chunked() else 1  # of a libpq before 17: row by row
    with driver.cursor(binary=True) as cursor:  # as text a vector would be twice as long
        yield from cursor.stream(statement, given, size=size)
