"""Retries of a client: a lost answer or a broken stream is asked for again, a bounded number of times."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import TypeVar

from agentkit.transcript.steps import Recorded
from ops_core.concurrency.jitter import fraction
from ops_core.errors import OpsError, ServerUnavailable
from ops_core.operations import Operations
from ops_core.schemas import MAX_SEQ, TaskBody
from ops_core.task import RetryPolicy

Result = TypeVar("Result")

REQUEST_ATTEMPTS = 4
"""A request that may be repeated is sent so often before the server counts as unavailable."""

WATCH_ATTEMPTS = 8
"""A stream of steps may break so often in a row before the server counts as unavailable."""

SETTLED_SECONDS = 30.0
"""A stream that lived so long was a good one: breaks before it do not count any more."""

REPEATED_SOON = RetryPolicy(first_seconds=0.1, max_seconds=5.0)


class Interrupted(Exception):
    """Asking again may help.

    Attributes:
        error: what is raised when it is not asked again.
        unsent: the server cannot have seen the request.
    """

    def __init__(self, error: OpsError, *, unsent: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.unsent = unsent


class Repeater:
    """Asks again.

    Args:
        address: of the server, for errors.
        retry: how long to wait before that.
    """

    def __init__(self, address: str, retry: RetryPolicy) -> None:
        self._address = address
        self._retry = retry

    async def ask(self, once: Callable[[], Awaitable[Result]], *, repeatable: bool = True) -> Result:
        """The result of ``once``, which is called again when it was interrupted.

        Args:
            once: sends one request.
            repeatable: to do it twice is the same as to do it once.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                return await once()
            except Interrupted as interrupted:
                if attempt >= REQUEST_ATTEMPTS or not (repeatable or interrupted.unsent):
                    raise interrupted.error from None
            await self._pause(attempt)

    async def follow(
        self, task_id: str, after: int, stream: Callable[[int], AsyncGenerator[Recorded]]
    ) -> AsyncGenerator[Recorded]:
        """The steps of a stream; one that was interrupted is opened again after the last step that arrived.

        Args:
            task_id: of the task, for errors.
            after: where to begin.
            stream: opens a stream after a step; it ends when the task has.
        """
        failures, now = 0, asyncio.get_running_loop().time
        while True:
            opened = now()
            try:
                async with aclosing(stream(after)) as steps:
                    async for recorded in steps:
                        yield recorded
                        after, failures = recorded.seq, 0
                return
            except Interrupted as interrupted:
                failures = 1 if now() - opened > SETTLED_SECONDS else failures + 1
                if failures >= WATCH_ATTEMPTS:
                    message = (
                        f"{self._address}: the events of task {task_id} broke off {failures} times in a row: "
                        f"{interrupted}"
                    )
                    raise ServerUnavailable(message) from None
            await self._pause(failures)

    async def _pause(self, attempt: int) -> None:
        await asyncio.sleep(self._retry.delay(attempt, fraction()))


async def end_of(client: Operations, task_id: str, timeout_seconds: float | None) -> TaskBody:
    """The task when it has ended, or as it is after ``timeout_seconds``."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_seconds):
            async for _step in client.watch(
                task_id, MAX_SEQ
            ):  # no step has a greater number: only the end comes
                pass
    return await client.get(task_id)
