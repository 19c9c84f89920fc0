"""Many rows, read through the driver piece by piece: memory is bounded, and no object is made around each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection

from ops_core.stores.many import as_usual

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
