"""Writer of log lines in a thread of its own, so that a log which blocks never stops the event loop.

A pipe that nobody reads, a stopped terminal or a disk that hangs blocks whoever writes to it. The event loop carries
leases: blocked for longer than a lease, it loses its runs. So it only puts lines into a bounded queue.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

MAX_LINES = 10_000
MAX_BYTES = 4 << 20
"""Most that waits to be written. What comes when either is reached is dropped, and counted."""

CLOSE_SECONDS = 1.0
"""Longest time for which the end of a process waits for its log."""

TOGETHER_BYTES = 1 << 16
"""Roughly the most that one call writes, which is what a pipe holds."""


class LineWriter:
    """Writes lines to a file descriptor, in their order, as fast as it takes them.

    Args:
        descriptor: of a file, a pipe or a terminal; it stays open.
        notice: makes the line that says how many lines were dropped.
    """

    def __init__(self, descriptor: int, notice: Callable[[int], str]) -> None:
        self._descriptor = descriptor
        self._notice = notice
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._writing = False
        self._changed = threading.Condition()
        self._process = os.getpid()
        self._thread: threading.Thread | None = None

    def write(self, line: str) -> None:
        """Have a line written, without its end; returns at once."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        if os.getpid() != self._process:
            self._after_fork()
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="log-writer", daemon=True)
                self._thread.start()
            if len(self._lines) >= MAX_LINES or self._bytes + len(data) > MAX_BYTES:
                self._dropped += 1
                return
            self._append_notice()
            self._append(data)
            self._changed.notify_all()

    def flush(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Wait until everything is written, for so long at most; whether it is."""
        until = time.monotonic() + seconds
        with self._changed:
            while self._lines or self._writing:
                left = until - time.monotonic()
                if left <= 0 or self._thread is None or not self._thread.is_alive():
                    return False
                self._changed.wait(left)
        return True

    def _after_fork(self) -> None:
        """A forked process has no thread, and perhaps a lock that nobody opens; what waited is its parent's."""
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._lines.clear()
        self._bytes = self._dropped = 0
        self._writing, self._thread = False, None

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._lines:
                    self._changed.wait()
                data = self._next()
                self._writing = True
            dropped = 0 if self._put(data) else data.count(b"\n")
            with self._changed:
                self._writing = False
                self._dropped += dropped
                if not dropped:  # there is room again
                    self._append_notice()
                self._changed.notify_all()

    def _append_notice(self) -> None:
        """Say in the place of the lines that were dropped how many they were."""
        if self._dropped:
            self._append(self._notice(self._dropped).encode("utf-8", "backslashreplace") + b"\n")
            self._dropped = 0

    def _append(self, data: bytes) -> None:
        self._lines.append(data)
        self._bytes += len(data)

    def _next(self) -> bytes:
        taken: list[bytes] = []
        size = 0
        while self._lines and size < TOGETHER_BYTES:
            taken.append(self._lines.popleft())
            size += len(taken[-1])
        self._bytes -= size
        return b"".join(taken)

    def _put(self, data: bytes) -> bool:
        """Write all of it, however long that takes; ``False`` where it cannot be written."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # somebody has made the descriptor non-blocking
                select.select([], [self._descriptor], [])
            except (OSError, ValueError):  # nobody reads it any more, or the disk is full
                return False
        return True
