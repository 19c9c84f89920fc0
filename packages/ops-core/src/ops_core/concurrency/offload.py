"""Offloading of work whose cost grows with a caller's input, so that it does not block the event loop.

The loop of a process carries runs and renews their leases. Reading a body or writing a page of a mebibyte takes long
enough to be felt there, and many callers can send one at the same time. So large pieces of work wait for each other and
run in a thread, between whose steps the loop gets its turn; small ones are done at once, which is cheaper.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

SMALL_BYTES = 16 * 1024
"""What is not larger is done on the loop: less than a millisecond."""


class Offload:
    """Runs functions in a thread, one at a time."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)

    async def __call__(self, size: int, work: Callable[[], Result]) -> Result:
        """Return what ``work`` returns, or raise what it raises.

        Args:
            size: of what is read or written, in bytes; a rough figure is enough.
            work: touches nothing that belongs to the event loop.
        """
        if size <= SMALL_BYTES:
            return work()
        async with self._turn:
            return await asyncio.to_thread(work)
