"""Boundary to code that is not ours: tools, policies, models, memories, watchers.

``except Exception`` lets a BaseException pass: that of a Rust extension that panics, ``sys.exit()`` in a tool, a group
of them. It would end the task, or with asyncio the whole event loop and every other run in it. At this boundary it is
an error of that code like any other, unless it is meant for the task that runs it.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Any

from agentkit.errors import RunInterrupted


def task_here() -> asyncio.Task[Any] | None:
    """The task that runs this code; ``None`` outside of one."""
    try:
        return asyncio.current_task()
    except RuntimeError:  # there is no event loop
        return None


def is_meant_for(task: asyncio.Task[Any] | None, error: BaseException) -> bool:
    """Whether an exception is meant for the task itself: it is being cancelled, or its coroutine is being closed."""
    if isinstance(error, Exception):
        return False
    if isinstance(
        error, RunInterrupted
    ):  # of our own code, which theirs has called: a journal, the meter of a run
        return True
    return task is None or task_here() is not task or task.cancelling() > 0


def guarded(what: str) -> AbstractContextManager[None]:
    """Around a call of code that is not ours, in a task.

    Args:
        what: what the error calls it, for example ``the policy``.

    Raises:
        RuntimeError: the code raised a BaseException of its own making, which is the cause.
    """
    return _Guarded(what)


class _Guarded(AbstractContextManager[None]):
    """No generator: each run passes several."""

    __slots__ = ("_task", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._task = task_here()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Exception) or is_meant_for(self._task, error):
            return
        message = f"{self._what} raised {type(error).__name__}"
        raise RuntimeError(message) from error


async def drop_cancellation() -> None:
    """Forget that a tool has cancelled its own task, which is that of the run: only a stop of the run is one."""
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        return
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)  # it may not have been delivered yet
    while task.cancelling():
        task.uncancel()
