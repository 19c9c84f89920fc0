"""Output of a child, up to the limit that may be kept."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

_CHUNK = 1 << 16


class Stream:
    """Reads a pipe into memory, up to a limit. Belongs to the event loop in which it is made.

    Args:
        most: bytes that are kept; with the first one more ``on_overflow`` is called, once, and the rest is thrown away.
        on_overflow: see there.
    """

    def __init__(self, most: int, on_overflow: Callable[[], None]) -> None:
        self.data = bytearray()
        self.overflowed = False
        self._most = most
        self._on_overflow = on_overflow
        self._loop = asyncio.get_running_loop()
        self._reads, self.writes = os.pipe()
        os.set_blocking(self._reads, False)
        self._loop.add_reader(self._reads, self._read)

    def handed_over(self) -> None:
        """The child has its end; ours is closed."""
        if self.writes >= 0:
            os.close(self.writes)
            self.writes = -1

    def close(self) -> None:
        """Take what is there, and no more. Whoever still holds the other end is not waited for."""
        self.handed_over()
        while self._reads >= 0 and self._read():
            pass
        self._stop()

    def _stop(self) -> None:
        if self._reads >= 0:
            self._loop.remove_reader(self._reads)
            os.close(self._reads)
            self._reads = -1

    def _read(self) -> bool:
        """Whether there may be more."""
        try:
            piece = os.read(self._reads, _CHUNK)
        except BlockingIOError:
            return False
        if not piece:
            self._stop()
            return False
        if self.overflowed:
            return True
        self.data += piece
        if len(self.data) > self._most:
            self.overflowed = True
            del self.data[self._most :]
            self._on_overflow()
        return True

    def text(self) -> str:
        """What was kept; what is not UTF-8 is replaced."""
        return self.data.decode("utf-8", "replace")
