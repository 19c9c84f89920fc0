"""Gauges of the store for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from time import monotonic

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from agentkit.money import usd
from ops_core.errors import StoreUnavailable
from ops_core.ports import Activity, Measured, Stats
from ops_core.spending import Spent
from ops_core.task import TaskStatus

FRESH_SECONDS = 2.0
"""What the store has said is repeated for so long: who scrapes often does not ask it more often."""

MAX_AGENTS = 50
"""Number of agents that have a series of their own for each status; those whose tasks are oldest are shown."""

OTHERS = "(others)"
"""Stands for all other agents; no name of an agent in a file has parentheses."""

READ_SECONDS = 5.0
"""A store that takes longer to answer counts as one that does not."""


class StoreGauges(Collector):
    """How full the store is; absent as long as it does not answer, so that no old value is taken for a new one.

    Args:
        store: is asked.
        spent: is asked what all tenants have spent today, where that is limited.
        check: raises where the store takes no writes.
    """

    def __init__(
        self,
        store: Measured,
        spent: Callable[[], Awaitable[Spent]] | None = None,
        check: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._check = check
        self._ask_spent = spent
        self._stats: Stats | None = None
        self._activity = Activity()
        self._spent: Spent | None = None
        self._until = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def refresh(self) -> None:
        """Ask the store, unless it was asked a moment ago."""
        async with self._one_at_a_time:
            if monotonic() < self._until:
                return
            try:
                async with asyncio.timeout(READ_SECONDS):
                    if self._check is not None:
                        await self._check()
                    self._activity = await self._store.activity()
                    self._stats = await self._store.stats()
                    self._spent = None if self._ask_spent is None else await self._ask_spent()
            except (StoreUnavailable, TimeoutError):
                self._stats = None
            self._until = monotonic() + FRESH_SECONDS

    def collect(self) -> Iterable[Metric]:
        """As Prometheus reads it."""
        stats = self._stats
        yield GaugeMetricFamily(
            "opspawn_store_up", "Whether the store takes writes (1) or not (0).", value=stats is not None
        )
        if stats is None:
            return
        tasks = GaugeMetricFamily("opspawn_tasks", "Tasks that have not ended.", labels=["status"])
        for status in (TaskStatus.PENDING, TaskStatus.RUNNING, TaskStatus.WAITING):
            tasks.add_metric([status.value], stats.tasks[status])
        yield tasks
        yield GaugeMetricFamily(
            "opspawn_tasks_due", "Tasks that could be claimed now, if nothing is halted.", value=stats.due
        )
        yield GaugeMetricFamily(
            "opspawn_oldest_due_task_age_seconds",
            "Since when the first of them is due; 0 for none.",
            value=stats.oldest_due_seconds,
        )
        yield GaugeMetricFamily(
            "opspawn_expired_leases", "Running tasks of workers that are silent.", value=stats.expired_leases
        )
        yield GaugeMetricFamily("opspawn_workers", "Workers that hold a lease.", value=stats.workers)
        yield from _activity_metrics(self._activity)
        yield GaugeMetricFamily("opspawn_halts", "Halts that are in force.", value=stats.halts)
        if self._spent is not None:
            yield GaugeMetricFamily(
                "opspawn_spent_today_usd",
                "Spent today (UTC) by all tenants whose spending is limited.",
                value=usd(self._spent.spent),
            )
            yield GaugeMetricFamily(
                "opspawn_reserved_today_usd",
                "Reserved today for calls whose end is not recorded.",
                value=usd(self._spent.reserved),
            )


def _activity_metrics(activity: Activity) -> Iterator[Metric]:
    workers = GaugeMetricFamily(
        "opspawn_living_workers",
        "Workers whose heartbeat is fresh, with a task or without.",
        labels=["state"],
    )
    workers.add_metric(["idle"], activity.idle)
    workers.add_metric(["busy"], activity.busy)
    yield workers
    oldest = GaugeMetricFamily(
        "opspawn_oldest_task_age_seconds",
        "Since when the oldest task of an agent runs (under its present worker) or waits.",
        labels=["status", "agent"],
    )
    for status in (TaskStatus.RUNNING, TaskStatus.WAITING):
        found = sorted(
            ((one.seconds, one.agent) for one in activity.oldest if one.status is status), reverse=True
        )
        shown = [*found[:MAX_AGENTS], *((seconds, OTHERS) for seconds, _agent in found[MAX_AGENTS:][:1])]
        for seconds, agent in shown:
            oldest.add_metric([status.value, agent], seconds)
    yield oldest
