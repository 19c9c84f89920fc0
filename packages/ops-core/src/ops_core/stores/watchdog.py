"""Watchdog for stalled database connections.

A statement that takes too long is ended by the server. This is for a server, or something on the way to it, that stands
still: whoever waits for it is told, like for any connection that was lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from sqlalchemy import Connection

from ops_core.stores.dialects import socket_of

log = logging.getLogger("ops_core.stores")

PATIENCE_SECONDS = 60.0
"""Twice as long as a statement may take."""

LOOKS = 6
"""So often in that time somebody looks."""


@dataclass(frozen=True, slots=True, eq=False)
class _Use:
    connection: Connection
    since: float


class Watchdog:
    """Knows which connections are in use, in whatever thread, and since when.

    Args:
        seconds: so long a transaction may take.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._uses: set[_Use] = set()

    @contextmanager
    def using(self, connection: Connection) -> Generator[None]:
        """While the context lasts, the thread waits for this connection."""
        use = _Use(connection, time.monotonic())
        self._uses.add(use)
        try:
            yield
        finally:
            self._uses.discard(use)

    async def watch(self) -> None:
        """End what takes too long, until cancelled."""
        while True:
            await asyncio.sleep(self._seconds / LOOKS)
            oldest = time.monotonic() - self._seconds
            for use in [use for use in tuple(self._uses) if use.since < oldest]:
                self._uses.discard(use)
                _end(use.connection)


def _end(connection: Connection) -> None:
    """Shut the socket down, under the thread that waits for it; that thread closes it."""
    number = socket_of(connection)
    if number is None:
        return
    log.warning("the database has not answered for too long: its connection is ended")
    with suppress(OSError), socket.socket(fileno=os.dup(number)) as same:
        same.shutdown(socket.SHUT_RDWR)
