"""Journals that keep the steps of a run: in memory, or in a file."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from agentkit.errors import JournalError, TranscriptError
from agentkit.transcript.codec import recorded_from_json, recorded_to_json, to_json_text
from agentkit.transcript.steps import Recorded, Step

Result = TypeVar("Result")


class MemoryJournal:
    """Steps in a list: as durable as the process.

    Args:
        steps: what has happened so far.
    """

    def __init__(self, steps: Sequence[Recorded] = ()) -> None:
        self.steps = list(steps)

    async def load(self) -> Sequence[Recorded]:
        """All steps so far."""
        return tuple(self.steps)

    async def append(self, step: Step) -> Recorded:
        """Add ``step`` to the list."""
        recorded = Recorded(seq=len(self.steps), at=time.time(), step=step)
        self.steps.append(recorded)
        return recorded

    async def append_all(self, steps: Sequence[Step]) -> Sequence[Recorded]:
        """Add all of ``steps``."""
        return [await self.append(step) for step in steps]


class FileJournal:
    """Steps as JSON lines in a file of their own, each flushed to the disk before ``append`` returns.

    A half-written last line, as a crash leaves it, was never acknowledged and is dropped. Only one process at a time
    may have the file open.

    Use it as a context manager::

        async with FileJournal("run.jsonl") as journal:
            outcome = await agent.run("…", journal=journal)

    Args:
        path: the file; made when it does not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: FileIO | None = None
        self._steps: list[Recorded] = []
        self._end = 0
        # one thread: appends reach the file in the order in which they were called, also when a caller is cancelled
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")

    async def __aenter__(self) -> Self:
        await self._do(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._do(self._close)
        self._thread.shutdown(wait=False)

    async def load(self) -> Sequence[Recorded]:
        """All steps in the file.

        Raises:
            JournalError: the file is not open.
            TranscriptError: a line is damaged, or was written by a newer release.
        """
        self._opened()
        return await self._do(lambda: tuple(self._steps))  # after what is being written

    async def append(self, step: Step) -> Recorded:
        """Write ``step`` as a line and flush it to the disk.

        Raises:
            JournalError: the file is not open, or the disk refuses.
        """
        (recorded,) = await self.append_all((step,))
        return recorded

    async def append_all(self, steps: Sequence[Step]) -> Sequence[Recorded]:
        """Write ``steps`` as lines and flush them to the disk once.

        Raises:
            JournalError: the file is not open, or the disk refuses.
        """
        self._opened()
        return await self._do(self._write, steps)

    async def _do(self, function: Callable[..., Result], *args: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    def _opened(self) -> FileIO:
        if self._file is None:
            message = f"the journal {self.path} is not open: use `async with FileJournal(…)`"
            raise JournalError(message)
        return self._file

    def _open(self) -> None:
        file = FileIO(self.path, "a+")  # no buffer: what the disk has refused must not come later
        try:
            _lock(file, self.path)
            file.seek(0)
            lines = file.read().split(b"\n")
            torn = lines.pop()  # empty where the last line is whole
            self._steps = [_read(line, number, self.path) for number, line in enumerate(lines)]
            self._end = sum(len(line) + 1 for line in lines)
            if torn:
                file.truncate(self._end)
        except BaseException:
            file.close()
            raise
        self._file = file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, steps: Sequence[Step]) -> Sequence[Recorded]:
        file, first, moment = self._opened(), len(self._steps), time.time()
        recorded = [Recorded(seq=seq, at=moment, step=step) for seq, step in enumerate(steps, start=first)]
        lines = b"".join(to_json_text(recorded_to_json(one)).encode() + b"\n" for one in recorded)
        try:
            file.truncate(self._end)  # what an earlier failure may have left
            _write_whole(file, lines)
            os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                file.truncate(self._end)
            message = f"{self.path}: {error.strerror}"
            raise JournalError(message) from error
        self._end += len(lines)
        self._steps += recorded
        return recorded


def _write_whole(file: FileIO, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[file.write(rest) :]


def _read(line: bytes, number: int, path: Path) -> Recorded:
    try:
        recorded = recorded_from_json(json.loads(line))
    except (ValueError, TypeError, TranscriptError) as error:
        reason = error if isinstance(error, TranscriptError) else "not a step"
        message = f"{path}, line {number + 1}: {reason}"
        raise TranscriptError(message) from None
    if recorded.seq != number:
        message = f"{path}, line {number + 1}: has the number {recorded.seq}, expected {number}"
        raise TranscriptError(message)
    return recorded


def _lock(file: FileIO, path: Path) -> None:
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        message = f"the journal {path} is open in another process"
        raise JournalError(message) from None
