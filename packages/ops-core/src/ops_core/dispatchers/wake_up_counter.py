"""Counter of wake-ups."""

from __future__ import annotations

from ops_core.observability.metrics import UpkeepMetrics
from ops_core.ports import Dispatcher


class CountedDispatcher:
    """Any dispatcher, and what goes through it is counted.

    Args:
        dispatcher: wakes.
        metrics: counts.
    """

    def __init__(self, dispatcher: Dispatcher, metrics: UpkeepMetrics) -> None:
        self._dispatcher = dispatcher
        self._metrics = metrics

    async def wake(self) -> None:
        """Wake."""
        self._metrics.woke()
        await self._dispatcher.wake()

    async def woken(self, timeout_seconds: float) -> bool:
        """Wait for a wake-up."""
        heard = await self._dispatcher.woken(timeout_seconds)
        if heard:
            self._metrics.heard()
        return heard
