"""Sessions with a database that are open but no longer usable.

A server that was demoted, a disk that is full or a schema that was changed ends no connection: whoever holds one would
be refused for as long as it lives. Such a session is treated as one that was lost.
"""

from __future__ import annotations

STALE = frozenset({"25006", "25P03", "25P04", "0A000", "26000", "42P05"})
"""States of PostgreSQL after which another session may do what this one refuses: it may only read, since its server was
demoted; it was ended; what it has prepared does not fit, since the schema was changed or another server stands behind
the pooler. So do all of 08 (connection) and 57P (the server stops, or starts)."""

STALE_CLASSES = ("08", "57P")

STALE_FILE = ("SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_CANTOPEN")
"""Beginnings of the names of errors of SQLite after which a file is opened anew."""

MAX_AGE_SECONDS = 300
"""No session is used for longer, so that none stays for ever with a server that others have left."""


OF_THE_MACHINE = (OSError, MemoryError)
"""What a driver raises where the machine gives it no descriptor, no memory or no file: no error of a database, and the
state of the session is not known then."""


def of_the_machine(error: BaseException) -> str:
    """Such an error on one line, without values."""
    said = getattr(error, "strerror", None)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


class Sessions:
    """Whether the sessions that a process has with its database are still the right ones.

    Attributes:
        generation: another number from the moment on at which they are not.
    """

    def __init__(self) -> None:
        self.generation = 0

    def renew(self) -> None:
        """Those that there are will not do any more."""
        self.generation += 1


def is_stale(error: BaseException) -> bool:
    """Whether another session may do what this one refuses; ``error`` is the driver's."""
    state = getattr(error, "sqlstate", None)
    if state is not None:
        return state in STALE or state.startswith(STALE_CLASSES)
    return str(getattr(error, "sqlite_errorname", "")).startswith(STALE_FILE)
