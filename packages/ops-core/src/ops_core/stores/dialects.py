"""Everything in which the databases differ."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Double, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql.functions import FunctionElement

from ops_core.errors import ConfigError
from ops_core.ports import Clock


class now(FunctionElement[float]):  # noqa: N801  (reads as SQL)
    """Seconds since the epoch by the database's clock."""

    type = Double[float]()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_on_sqlite(_element: now, _compiler: Any, **_options: Any) -> str:
    return "opspawn_now()"


@compiles(now, "postgresql")
def _now_on_postgresql(_element: now, _compiler: Any, **_options: Any) -> str:
    return "extract(epoch from clock_timestamp())"


def parse_url(url: str) -> URL:
    """The URL of a store.

    Raises:
        ConfigError: it is not one that can be used.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        message = "store_url is not a URL; use sqlite:///FILE"
        raise ConfigError(message, field="store_url") from None
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        message = f"store_url: {parsed.drivername} is not supported yet; use sqlite:///FILE"
        raise ConfigError(message, field="store_url")
    if parsed.host or parsed.username or parsed.port:
        message = (
            "store_url: a file has no host; use three slashes, sqlite:///FILE, or four for an absolute path"
        )
        raise ConfigError(message, field="store_url")
    return parsed


def is_in_memory(url: URL) -> bool:
    """Everything is gone with the process, and there is one connection only."""
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")


def writing_engine(url: URL, clock: Clock) -> Engine:
    """An engine whose transactions take the write lock when they begin.

    A transaction that reads first and then finds that it may not write would fail; waiting at its beginning does not.
    """
    engine = _sqlite_engine(url, clock)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def reading_engine(url: URL, clock: Clock) -> Engine:
    """An engine for consistent reads that never wait for a writer."""
    engine = _sqlite_engine(url, clock)
    event.listen(engine, "begin", _begin)
    return engine


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _sqlite_engine(url: URL, clock: Clock) -> Engine:
    options: dict[str, Any] = {"poolclass": StaticPool} if is_in_memory(url) else {}
    engine = create_engine(url, connect_args={"check_same_thread": False, "timeout": 10.0}, **options)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves; the driver's own guess comes too late
        connection.create_function("opspawn_now", 0, clock)
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")  # an acknowledged write survives a power cut
        cursor.execute("PRAGMA busy_timeout = 10000")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    return engine
