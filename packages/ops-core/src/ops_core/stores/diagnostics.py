"""Diagnostics of the database. They change nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from ops_core.errors import StoreUnavailable
from ops_core.ports import Activity, Stats
from ops_core.stores.dialects import failure, is_file, reason
from ops_core.stores.sql.stats import read_stats
from ops_core.stores.sql.workers import read_activity
from ops_core.stores.store import SqlStore
from ops_core.stores.tables import REVISION

NEEDED_FOR_DURABILITY = ("fsync", "full_page_writes", "synchronous_commit")
"""Settings of PostgreSQL; where one is off, a power cut can take writes back that were acknowledged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What a database is like.

    Attributes:
        product: its name and version.
        revision: of its schema; ``None`` for none.
        unsafe: settings that are off and make an acknowledged write less than durable.
        skew_seconds: how far its clock is ahead of this machine's; 0 for a file, which has none of its own.
        stats: how full it is; ``None`` where the schema is another one than this release's.
        activity: who works; ``None`` as ``stats``.
    """

    product: str
    revision: str | None
    unsafe: tuple[str, ...]
    skew_seconds: float
    stats: Stats | None
    activity: Activity | None = None


def examine_database(store: SqlStore) -> Examined:
    """Look at the database of a store that is not open, and write into it what is rolled back.

    Blocks, on a server that hangs for half a minute.

    Raises:
        StoreUnavailable: it cannot be reached, or refused.
    """
    found = store.revision()  # says more than an error of a statement, where the database cannot be opened
    try:
        with store.migration_engine.begin() as connection:
            before = time.time()
            stats = read_stats(connection) if found == REVISION else None
            here = (before + time.time()) / 2
            return Examined(
                product=_product(connection),
                revision=found,
                unsafe=_unsafe(connection),
                skew_seconds=0.0 if stats is None or is_file(store.url) else stats.moment - here,
                stats=stats,
                activity=None if stats is None else read_activity(connection),
            )
    except DBAPIError as error:
        message = failure("a read", error)
        raise StoreUnavailable(message) from None
    finally:
        store.disconnect()


def try_to_write(store: SqlStore) -> None:
    """Write into the database of a store that is not open, and take it back. Blocks as :func:`examine_database`.

    Raises:
        StoreUnavailable: it takes no writes.
    """
    try:
        with store.migration_engine.connect() as connection, connection.begin() as transaction:
            try:
                for statement in _PROBES[connection.dialect.name]:
                    connection.execute(text(statement))
            finally:
                transaction.rollback()
    except DBAPIError as error:
        message = f"the database takes no writes: {reason(error)}"
        raise StoreUnavailable(message) from None
    finally:
        store.disconnect()


_PROBES = {
    "postgresql": ("UPDATE alembic_version SET version_num = version_num",),
    # so much that it does not stay in the cache: a disk that is full is only noticed by what reaches it
    "sqlite": (
        "PRAGMA cache_size = 1",
        "CREATE TABLE probe AS SELECT zeroblob(131072) AS room",
    ),
}


def _product(connection: Connection) -> str:
    if connection.dialect.name == "postgresql":
        return f"PostgreSQL {connection.execute(text('SHOW server_version')).scalar_one()}"
    return f"SQLite {connection.execute(text('SELECT sqlite_version()')).scalar_one()}"


def _unsafe(connection: Connection) -> tuple[str, ...]:
    if connection.dialect.name != "postgresql":  # of a file we set it ourselves
        return ()
    of = "SELECT name FROM pg_settings WHERE setting = 'off' AND name = ANY(:names) ORDER BY name"
    return tuple(connection.execute(text(of), {"names": list(NEEDED_FOR_DURABILITY)}).scalars())
