"""Hot statements: compiled once, carried out for many rows at a time through the driver.

A statement that runs for each step of each task would otherwise cost more in the library above the driver than in the
database. On SQLite the rows are carried out one after the other; on PostgreSQL they go to the server in one flight
(libpq's pipeline), each by its primary key, so that no statistics can turn them into a scan; and new rows that answer
nothing go as one COPY. Figures: decisions 0024 and 0045.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import Connection, Dialect, Table, bindparam, insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import Select

from ops_core.stores.sessions import is_stale

Given: TypeAlias = Mapping[str, Any]
"""The values of a statement's parameters, by name; those that the statement knows itself are left out."""

Found: TypeAlias = tuple[Any, ...]


FEW = 8
"""So many new rows are worth a COPY, which takes one round trip more than a pipeline."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    text: str
    arrange: Callable[[Given], Any]


class Many:
    """A statement for many rows.

    Args:
        statement: with a name for each value that differs from row to row, and at most one row in each answer.
    """

    def __init__(self, statement: UpdateBase | Select[Any]) -> None:
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def found(self, connection: Connection, rows: Sequence[Given]) -> list[Found | None]:
        """Carry it out for each row, in order; for each the row that it answers, or ``None``.

        Raises:
            DBAPIError: the database refused one of them; the transaction can only be rolled back.
        """
        return _through_the_driver(connection, self._for(connection.dialect), rows, answers=True)

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


class NewRows:
    """Rows that are added to a table.

    Args:
        table: that has a value for each column in each row.
    """

    def __init__(self, table: Table) -> None:
        self._names = [column.name for column in table.columns]
        self._insert = Many(insert(table).values({name: bindparam(name) for name in self._names}))
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
