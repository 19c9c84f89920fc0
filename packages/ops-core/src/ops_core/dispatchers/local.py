"""Dispatcher within one process."""

from __future__ import annotations

import asyncio


class LocalDispatcher:
    """An event that submits set and workers wait for.

    Workers of other processes on the same store are not woken: they find the work when they look next.
    """

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    async def wake(self) -> None:
        """Set the event."""
        self.hint()

    def hint(self) -> None:
        """Set the event, from a callback of the event loop."""
        self._woken.set()

    async def woken(self, timeout_seconds: float) -> bool:
        """Wait for the event and clear it."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True
