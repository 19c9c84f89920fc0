"""Sweeper of unowned work: tasks of dead workers, due retries, lost wake-ups, tasks out of time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import replace

from ops_core.concurrency.jitter import spread
from ops_core.engine import Engine
from ops_core.errors import OpsError
from ops_core.observability.metrics import Metrics, UpkeepMetrics
from ops_core.ports import SweepTerms
from ops_core.workers import has_ended, place_of_processes

log = logging.getLogger("ops_core.sweeper")

PURGE_SECONDS = 60.0
"""How often old tasks are looked for."""


async def sweep_forever(
    engine: Engine, every_seconds: float, lease_seconds: float, metrics: UpkeepMetrics | None = None
) -> None:
    """Sweep again and again, until cancelled. Any number of processes may do so at the same time.

    Args:
        engine: whose tasks.
        every_seconds: the time between two sweeps; varied a little, so that processes do not fall into step.
        lease_seconds: how long a worker may be silent; it renews its leases three times as often.
        metrics: told what the sweeps did.
    """
    metrics = Metrics().upkeep if metrics is None else metrics
    heartbeat = lease_seconds / 3
    terms = SweepTerms(quiet_seconds=max(heartbeat, 3 * every_seconds), grace_seconds=2 * heartbeat)
    while True:
        try:
            swept = await engine.sweep(replace(terms, gone=await _gone(engine)))
        except OpsError as error:
            metrics.sweep_failed()
            log.error("cannot sweep: %s", error)
        else:
            metrics.swept(len(swept.released), len(swept.ended))
            for task_id in swept.released:
                log.warning("taken from a worker that is lost; it goes on elsewhere", extra={"task": task_id})
            for task_id in swept.ended:
                log.warning(
                    "ended: out of time, expired, out of attempts or cancelled", extra={"task": task_id}
                )
            if swept.more:  # many expired at once: they are not to wait for each other
                await asyncio.sleep(0)
                continue
        await asyncio.sleep(spread(every_seconds))


async def _gone(engine: Engine) -> Collection[str]:
    """Workers on this machine that hold leases and whose processes have ended."""
    place = place_of_processes()
    if place is None:
        return ()
    return [owner for owner in await engine.store.lease_owners(f"-{place}.") if has_ended(owner)]


async def purge_forever(engine: Engine, retention_days: float | None) -> None:
    """Delete tasks that ended so many days ago, again and again, until cancelled; ``None`` keeps all.

    Args:
        engine: whose tasks.
        retention_days: how long a task is kept after its end.
    """
    while retention_days is not None:
        try:
            purged = await engine.purge(retention_days * 86_400)
        except OpsError as error:
            log.error("cannot delete old tasks: %s", error)
        else:
            if purged:
                log.info("deleted %d task(s) that ended %g days ago or earlier", purged, retention_days)
        await asyncio.sleep(spread(PURGE_SECONDS))
