"""Standard output of a command that carries a run: written by a thread, so that no reader can stop the event loop.

A terminal that is paused, or a pipe that nobody reads, blocks whoever writes to it. On the event loop that would stop
the heartbeat of the run that is shown.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from queue import SimpleQueue
from typing import IO, Any

MAX_UNREAD = 16 << 20
"""Characters that are held for a reader who stands still; with more, the output counts as closed."""


class BackgroundFile:
    """A text file whose writes are carried out by a thread, in their order.

    Once the reader is gone, or has left too much unread, ``write`` raises BrokenPipeError.

    Args:
        file: is written to. It can be used as before for everything but writing.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._texts = SimpleQueue[str | None]()
        self._unread = 0
        self._lock = threading.Lock()
        self._broken = False
        self._thread = threading.Thread(target=self._carry_out, name="output", daemon=True)
        self._thread.start()

    @property
    def is_broken(self) -> bool:
        """Nobody reads what is written."""
        return self._broken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        """Have it written soon."""
        with self._lock:
            self._unread += len(text)
            self._broken = self._broken or self._unread > MAX_UNREAD
        if self._broken:
            message = "nobody reads the output"
            raise BrokenPipeError(message)
        self._texts.put(text)
        return len(text)

    def flush(self) -> None:
        """Nothing: the thread flushes what it has written."""

    async def close_after_writing(self) -> None:
        """Wait until everything is written, or the reader is gone. Cancelled, wait no longer."""
        self._texts.put(None)
        while self._thread.is_alive() and not (self._broken and self._unread > MAX_UNREAD):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def _carry_out(self) -> None:
        while (text := self._texts.get()) is not None:
            try:
                self._file.write(text)
                self._file.flush()
            except (OSError, ValueError):  # the pipe is broken, the terminal is gone, or the file is closed
                self._broken = True
                return
            with self._lock:
                self._unread -= len(text)


@asynccontextmanager
async def written_behind(file: IO[str]) -> AsyncGenerator[BackgroundFile]:
    """The file as one that blocks nobody; at the end, everything that was written to it is there."""
    behind = BackgroundFile(file)
    try:
        yield behind
    finally:
        await behind.close_after_writing()
