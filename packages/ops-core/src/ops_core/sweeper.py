"""Looks after what nobody holds: tasks of dead workers, due retries, lost wake-ups, tasks out of time."""

from __future__ import annotations

import asyncio
import logging
import random

from ops_core.engine import Engine
from ops_core.errors import OpsError

log = logging.getLogger("ops_core.sweeper")


async def sweep_forever(engine: Engine, every_seconds: float) -> None:
    """Sweep again and again, until cancelled. Any number of processes may do so at the same time.

    Args:
        engine: whose tasks.
        every_seconds: the time between two sweeps; varied a little, so that processes do not fall into step.
    """
    while True:
        try:
            swept = await engine.sweep()
        except OpsError as error:
            log.error("cannot sweep: %s", error)
        else:
            if swept.released:
                log.warning(
                    "workers lost; %d task(s) go on elsewhere: %s", len(swept.released), swept.released[:10]
                )
            if swept.ended:
                log.warning("ended %d task(s): %s", len(swept.ended), swept.ended[:10])
        await asyncio.sleep(every_seconds * random.uniform(0.8, 1.2))  # noqa: S311  (no secret depends on it)
