"""Dialects: everything in which the databases differ."""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import (
    Connection,
    Double,
    Engine,
    Integer,
    String,
    Text,
    bindparam,
    create_engine,
    event,
    func,
    select,
    text,
)
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql.functions import FunctionElement

from ops_core.errors import ConfigError, StoreUnavailable
from ops_core.ports import Clock, Hint
from ops_core.stores.bulk_statements import BulkStatement, Given
from ops_core.stores.sessions import MAX_AGE_SECONDS, is_stale

log = logging.getLogger("ops_core.stores")

READERS = 4
"""So many connections read at a time."""

POSTGRESQL_OPTIONS = {
    "application_name": "opspawn",
    "connect_timeout": "5",
    # a server that is cut off, not ended, is noticed within 20 s, and not when the network's patience ends
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "20000",
}
"""What a connection to PostgreSQL asks for, unless the URL says otherwise."""

POSTGRESQL_PARAMETERS = (
    # no statement hangs; and a process that stands still in a transaction does not hold its locks for ever
    "-c statement_timeout=30s -c lock_timeout=10s -c idle_in_transaction_session_timeout=10s"
    # each statement has an index; a plan that was made while a table was empty must not read all of it later, nor all
    # that an index holds before the first row is given out
    " -c enable_seqscan=off -c enable_bitmapscan=off -c jit=off"
)
"""Parameters of each session; ``options`` of the URL come behind them, and win where both set one."""

REPEATABLE = frozenset({"23505", "40001", "40P01"})
"""States after which the same transaction, repeated, can succeed: somebody else came first (a unique violation: the
repeated submit then finds their task), a serialization failure, a deadlock."""

OUT_OF_ORDER = frozenset({"53", "57", "58"})
"""Classes of states: resources have run out, an operator has intervened, the system fails."""

STATEMENT_TIMEOUT = "57014"

CHANNEL = "opspawn"
"""Where processes that share a database on a server tell each other what they have written."""

MAX_TOLD = 150
"""So many ids fit into one message, which may have 8,000 bytes."""

CLOCK = "opspawn_clock"
"""A view that every connection to a file has: the time now, as SQLite itself tells it (in milliseconds). A function of
Python's would have to wait for the interpreter in the middle of each statement."""

MIGRATION_LOCK = 0x6F707370
"""The advisory lock of those who migrate ("opsp")."""


INCREMENTAL = 2
"""The value of ``PRAGMA auto_vacuum`` with which a file can be made smaller, piece by piece."""


class bytewise(FunctionElement[str]):  # noqa: N801  (named as a function of SQL is)
    """A text as lists compare it and their indexes hold it.

    On PostgreSQL it has the collation "C" there: an index of a list then cannot serve ``tenant = …``, ``agent = …`` or
    ``id = …``. A plan that was made while the table was small would look for one task, or for the next of a line,
    through such an index for as long as it is cached, and read more of it with each task.
    """

    type = String()
    inherit_cache = True


@compiles(bytewise, "postgresql")
def _collated(element: bytewise, compiler: Any, **options: Any) -> str:
    return f'{compiler.process(element.clauses, **options)} COLLATE "C"'


@compiles(bytewise, "sqlite")
def _plain(element: bytewise, compiler: Any, **options: Any) -> str:
    text: str = compiler.process(element.clauses, **options)
    return text


class by_moment(bytewise):  # noqa: N801  (named as a function of SQL is)
    """Ids of tasks in the order in which they were made, for lists."""

    inherit_cache = True


class among(FunctionElement[bool]):  # noqa: N801  (named as a function of SQL is)
    """Whether the first argument, a key, is among the values that a scalar subquery finds.

    On PostgreSQL they are an array, which can only be looked up by the key. What an IN is made into depends on the
    statistics: a plan that was made while the table had three rows reads all of them, and all of a million later.
    """

    inherit_cache = (
        True  # it has no type: that of truth would be written as "= 1" on SQLite, behind which no key is seen
    )


@compiles(among, "postgresql")
def _any_of_array(element: among, compiler: Any, **options: Any) -> str:
    key, found = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{key} = ANY (ARRAY{found})"


@compiles(among, "sqlite")
def _in_found(element: among, compiler: Any, **options: Any) -> str:
    key, found = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{key} IN {found}"


class byte_length(FunctionElement[int]):  # noqa: N801  (named as a function of SQL is)
    """Size of a text: in bytes on PostgreSQL, which knows it without reading the text, in characters on SQLite."""

    type = Integer()
    inherit_cache = True


@compiles(byte_length, "postgresql")
def _octet_length(element: byte_length, compiler: Any, **options: Any) -> str:
    return f"octet_length({compiler.process(element.clauses, **options)})"


@compiles(byte_length, "sqlite")
def _length(element: byte_length, compiler: Any, **options: Any) -> str:
    return f"length({compiler.process(element.clauses, **options)})"


class now(FunctionElement[float]):  # noqa: N801  (reads as SQL)
    """Seconds since the epoch by the database's clock; the same all through a statement."""

    type = Double[float]()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_on_sqlite(_element: now, _compiler: Any, **_options: Any) -> str:
    return f"(SELECT moment FROM {CLOCK})"  # noqa: S608  (a name of ours)


@compiles(now, "postgresql")
def _now_on_postgresql(_element: now, _compiler: Any, **_options: Any) -> str:
    # not of the transaction, which may be long; and not clock_timestamp(), which differs within a row
    return "CAST(extract(epoch FROM statement_timestamp()) AS double precision)"


# --- URLs --------------------------------------------------------------------------------------------------------


def parse_url(url: str) -> URL:
    """The URL of a store.

    Raises:
        ConfigError: it is not one that can be used.
    """
    try:
        parsed = make_url(_as_sqlalchemy_reads(url))
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        raise _refused(
            "is not a URL; use sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
        ) from None
    match parsed.drivername:
        case "sqlite" | "sqlite+pysqlite":
            if parsed.host or parsed.username or parsed.port:
                raise _refused(
                    "a file has no host; use three slashes, sqlite:///FILE, or four for an absolute path"
                )
            return parsed
        case "postgresql" | "postgresql+psycopg":
            if "@" in (parsed.host or ""):  # half of the password would be shown as a host that is not found
                raise _refused("an @ in a user name or a password is written as %40")
            return parsed.set(drivername="postgresql+psycopg")
        case other:
            raise _refused(f"{other} is not supported; use sqlite:///FILE or postgresql://…")


_SEVERAL_HOSTS = re.compile(
    r"(postgresql(?:\+psycopg)?://(?:[^@/?]*@)?)([^@/?]*,[^@/?]*)(/[^?]*)?(?:\?(.*))?"
)
_HOST = re.compile(r"(\[[^\]]+\]|[^:\[\]]*)(?::(\d*))?")


def _as_sqlalchemy_reads(url: str) -> str:
    """Forms of libpq that SQLAlchemy does not know: the scheme ``postgres``, and several hosts with commas."""
    if url.startswith("postgres://"):
        url = url.replace("postgres://", "postgresql://", 1)
    several = _SEVERAL_HOSTS.fullmatch(url)
    if several is None:
        return url
    start, hosts, database, query = several.groups(default="")
    named = [_HOST.fullmatch(host) for host in hosts.split(",")]
    if not all(named):
        return url
    found = [host.groups(default="") for host in named if host is not None]
    asked = [
        "host=" + ",".join(host.strip("[]") for host, _port in found),
        "port=" + ",".join(port or "5432" for _host, port in found),
        *([query] if query else []),
    ]
    return f"{start}{database or '/'}?{'&'.join(asked)}"


def _refused(what: str) -> ConfigError:
    return ConfigError(f"store_url: {what}", field="store_url")


def is_in_memory(url: URL) -> bool:
    """Everything is gone with the process, and there is one connection only."""
    return is_file(url) and url.database in (None, "", ":memory:")


def is_file(url: URL) -> bool:
    """The database belongs to this program, which may bring its schema up to date by itself."""
    return url.get_backend_name() == "sqlite"


# --- engines -----------------------------------------------------------------------------------------------------


def writing_engine(url: URL, clock: Clock) -> Engine:
    """An engine for one thread, whose transactions may write.

    On SQLite they take the write lock when they begin: a transaction that reads first and then finds that it may not
    write would fail; waiting at its beginning does not.
    """
    if not is_file(url):
        return _postgresql_engine(url, connections=1, isolation_level="READ COMMITTED", writes=True)
    engine = _sqlite_engine(url, clock)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def connection_options(url: URL, *, writes: bool) -> dict[str, str]:
    """What a connection to PostgreSQL asks for and its URL does not say.

    Args:
        url: of the store.
        writes: a server that may only be read will not do.
    """
    usual = {**POSTGRESQL_OPTIONS, **({"target_session_attrs": "read-write"} if writes else {})}
    asked = {name: value for name, value in usual.items() if name not in url.query}
    own = url.query.get("options", "")
    asked["options"] = " ".join([POSTGRESQL_PARAMETERS, *([own] if isinstance(own, str) else own)]).strip()
    return asked


def reading_engine(url: URL, clock: Clock) -> Engine:
    """An engine for reads that never wait for a writer."""
    if not is_file(url):  # a read is one statement, so that it needs no BEGIN and no COMMIT
        return _postgresql_engine(url, connections=READERS, isolation_level="AUTOCOMMIT")
    engine = _sqlite_engine(url, clock)
    event.listen(engine, "begin", _begin)
    return engine


class OneFile:
    """Refuses a file that was deleted or replaced: what is written to it would be gone with this process.

    Args:
        path: of the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._known: tuple[int, int] | None = None

    def forget(self) -> None:
        """The file that is there next is the right one."""
        self._known = None

    def watch(self, engine: Engine) -> None:
        """Look at the file before each transaction of an engine."""
        event.listen(engine, "begin", self._look)

    def _look(self, _connection: Connection) -> None:
        found = self._identity()
        if self._known is None:
            self._known = found
        if found is None or found != self._known:
            message = f"the file {self._path} was deleted or replaced while it was open: restart this process"
            raise StoreUnavailable(message)

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116  (once for each transaction)
        except OSError:
            return None
        return found.st_dev, found.st_ino


def file_of(url: URL) -> OneFile | None:
    """The file of a database; ``None`` where it has none, or is named by a URI."""
    if not is_file(url) or is_in_memory(url) or str(url.database).startswith("file:"):
        return None
    return OneFile(str(url.database))


def make_private(path: str) -> None:
    """See to it that nobody but its owner reads a database, whatever the umask is; its other files follow its mode.

    An existing file is never opened here: closing it would drop the locks of all connections of this process.
    """
    if os.name != "posix":
        return
    with suppress(OSError):  # it exists, or cannot be made; the connection says which
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    for each in (path, f"{path}-wal", f"{path}-shm"):
        try:
            mode = stat.S_IMODE(os.stat(each).st_mode)  # noqa: PTH116  (it may not be there)
            if mode & 0o077:
                os.chmod(each, mode & ~0o077)  # noqa: PTH101  (as above)
                log.warning("%s could be read by other users: only its owner can from now on", each)
        except FileNotFoundError:
            continue
        except OSError as error:
            log.warning("%s can be read by other users, and that cannot be changed: %s", each, error.strerror)


def _drop_stale_sessions(context: ExceptionContext) -> None:
    """A session that is no good is treated as one that was lost: it is closed, and so are its neighbours."""
    if is_stale(context.original_exception):
        context.is_disconnect = True


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _sqlite_engine(url: URL, clock: Clock) -> Engine:
    options: dict[str, Any] = {"poolclass": StaticPool} if is_in_memory(url) else {}
    engine = create_engine(url, connect_args={"check_same_thread": False, "timeout": 10.0}, **options)
    if not is_in_memory(url):
        event.listen(engine, "handle_error", _drop_stale_sessions)
        if not str(url.database).startswith("file:"):
            event.listen(engine, "do_connect", lambda *_connecting: make_private(str(url.database)))

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves; the driver's own guess comes too late
        moment = "(julianday('now') - 2440587.5) * 86400.0"
        if clock is not time.time:
            connection.create_function("opspawn_now", 0, clock)
            moment = "opspawn_now()"
        cursor = connection.cursor()
        cursor.execute(f"CREATE TEMP VIEW {CLOCK} AS SELECT {moment} AS moment")
        if not cursor.execute("PRAGMA page_count").fetchone()[0]:
            # heeded by a new file only, and before all else; in another one it would wait for the lock of writers
            cursor.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")  # an acknowledged write survives a power cut
        cursor.execute("PRAGMA busy_timeout = 10000")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    return engine


def _postgresql_engine(url: URL, *, connections: int, isolation_level: Any, writes: bool = False) -> Engine:
    try:
        from psycopg.types.string import StrDumperUnknown
    except ImportError:
        raise _refused("PostgreSQL needs its driver: install the extra opspawn[postgres]") from None

    class TextDumper(StrDumperUnknown):
        """PostgreSQL has no NUL character, so a text with one equals nothing that is stored there: NULL."""

        def dump(self, obj: str) -> Any:
            return None if "\x00" in obj else super().dump(obj)

    asked = connection_options(url, writes=writes)
    engine = create_engine(
        url.difference_update_query(["options"]),
        connect_args=asked,
        isolation_level=isolation_level,
        pool_size=connections,
        max_overflow=0,
        pool_recycle=MAX_AGE_SECONDS,
        # no ping before each use: a connection that was lost is noticed by the statement, which is then repeated
    )
    event.listen(engine, "handle_error", _drop_stale_sessions)

    @event.listens_for(engine, "connect", insert=True)
    def _prepare(connection: Any, _record: Any) -> None:
        _check_encoding(connection)
        _heed_pooler(connection)
        connection.adapters.register_dumper(str, TextDumper)

    return engine


def _check_encoding(connection: Any) -> None:
    """Before SQLAlchemy asks anything, whose questions fail where texts come as bytes.

    Raises:
        ConfigError: the database cannot hold every text.
    """
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        connection.close()
        raise _refused(
            f"the database has the encoding {encoding}, which cannot hold every text; "
            "make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )


def _heed_pooler(connection: Any) -> None:
    """Prepare no statement where a pooler may lead each transaction to another session of the server.

    A statement prepared in one session is missing, or is another one, in the next. A pooler shows by the number of the
    server's process, which the server and the pooler tell differently.
    """
    with connection.cursor() as cursor:
        (process,) = cursor.execute("SELECT pg_backend_pid()").fetchone()
    if not connection.autocommit:
        connection.rollback()
    if int(process) != connection.info.backend_pid:
        connection.prepare_threshold = None


def socket_of(connection: Connection) -> int | None:
    """The number of the file under a connection to a server; ``None`` where there is none, or none any more."""
    if connection.dialect.name != "postgresql" or connection.closed or connection.invalidated:
        return None
    driver: Any = connection.connection.driver_connection
    return None if driver is None or driver.closed else int(driver.fileno())


def lock_for_migrations(connection: Connection) -> None:
    """Wait, inside a transaction, until nobody else migrates. A transaction on SQLite has waited when it began."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})


def make_schema(connection: Connection) -> None:
    """Make the first schema of the search path where none of it exists: the URL then names one for Opspawn alone."""
    if (
        connection.dialect.name != "postgresql"
        or connection.scalar(text("SELECT current_schema()")) is not None
    ):
        return
    first = connection.scalar(
        text("SELECT trim(both ' \"' from split_part(current_setting('search_path'), ',', 1))")
    )
    if first:
        quoted = connection.dialect.identifier_preparer.quote_identifier(first)
        connection.execute(text(f"CREATE SCHEMA {quoted}"))


@contextmanager
def overwriting_what_is_deleted(connection: Connection) -> Generator[None]:
    """While the context lasts, what is deleted is overwritten in a file, and not only left out of its lists."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = ON")
    yield
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = OFF")


def empty_the_log(engine: Engine) -> None:
    """Take what was written out of a file's write-ahead log, in which older versions of pages stand until then.

    Whoever reads at that moment is not waited for; the log is then emptied when the last one closes the file.
    """
    connection = engine.raw_connection()
    try:
        connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.close()


GIVEN_BACK_PAGES = 1000
"""Number of pages that are moved in one transaction: others that write wait for it."""

KEPT_PAGES = 256
"""A file keeps so many free pages, which the next writes take."""


def give_back(engine: Engine) -> bool:
    """Cut free pages off the end of a file, in a transaction of its own; whether there are more.

    A file that was made before files were made so (``PRAGMA auto_vacuum``) stays as large as it is.
    """
    connection = engine.raw_connection()
    try:
        cursor: Any = connection.cursor()
        free = int(cursor.execute("PRAGMA freelist_count").fetchone()[0]) - KEPT_PAGES
        if free <= 0 or cursor.execute("PRAGMA auto_vacuum").fetchone()[0] != INCREMENTAL:
            return False
        # as a script: the driver takes one step of a statement without columns, which moves one page
        cursor.executescript(f"PRAGMA incremental_vacuum({min(free, GIVEN_BACK_PAGES)})")
    except sqlite3.OperationalError as error:  # others write for long; the next purge goes on
        log.warning("the file is not made smaller now: %s", error)
        return False
    finally:
        connection.close()
    return free > GIVEN_BACK_PAGES


def announce(connection: Connection, teller: str, hint: Hint) -> None:
    """Tell the other processes, once this transaction is committed. Does nothing where nobody can hear."""
    if connection.dialect.name != "postgresql":
        return
    messages: list[Given] = []
    for number in range(
        0, max(len(hint.cancelled), len(hint.ended), int(hint.due), int(hint.halts)), MAX_TOLD
    ):
        few = slice(number, number + MAX_TOLD)
        once = {"due": hint.due and number == 0, "halts": hint.halts and number == 0}
        told = {**once, "cancelled": hint.cancelled[few], "ended": hint.ended[few]}
        said = {name: value for name, value in told.items() if value}
        messages.append({"payload": json.dumps({"by": teller, **said}, separators=(",", ":"))})
    _NOTIFY.do(connection, messages)


_NOTIFY = BulkStatement(select(func.pg_notify(CHANNEL, bindparam("payload", type_=Text()))))


# --- refusals ----------------------------------------------------------------------------------------------------


def reason(error: DBAPIError) -> str:
    """What the database says, on one line, without the statement and without values of rows."""
    said = getattr(
        getattr(error.orig, "diag", None), "message_primary", None
    )  # PostgreSQL's details quote rows
    lines = (said or str(error.orig)).strip().splitlines()
    return f"{type(error.orig).__name__}: {lines[0] if lines else 'no reason given'}"


def failure(what: str, error: DBAPIError) -> str:
    """What became of ``what``: the database refused it, or was not reached at all."""
    said = reason(error)
    if ": connection failed: " in said:
        return f"the database cannot be reached: {said}"
    return f"the database refused {what}: {said}"


def is_repeatable(error: DBAPIError) -> bool:
    """May the same transaction succeed when it is carried out once more?"""
    return getattr(error.orig, "sqlstate", None) in REPEATABLE


def concerns_all(error: DBAPIError) -> bool:
    """Is the database at fault, so that every other write would fail in the same way?"""
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # a disk that is too full for one write may have room for another
        full = getattr(error.orig, "sqlite_errorname", "") == "SQLITE_FULL"
        return isinstance(error, OperationalError) and not full
    return state[:2] in OUT_OF_ORDER and state != STATEMENT_TIMEOUT
