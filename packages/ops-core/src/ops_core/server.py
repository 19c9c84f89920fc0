"""The server as a process: everything that it serves, until a signal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ops_core.api.serve import serving
from ops_core.assembly import Ops
from ops_core.closing import stopped_by_signals


async def serve(ops: Ops, announce: Callable[[str], None], *, worker: bool = True) -> None:
    """Serve the API and work, until SIGINT or SIGTERM; a second signal ends the process at once.

    Stopping, it takes no more connections and claims no more tasks, lets the runs go at their next step, and is back
    within ``grace_seconds`` and a few more.

    Args:
        ops: the platform, open.
        announce: told each address once connections are accepted there.
        worker: work, too; without it, tasks are left to other processes.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    closing = asyncio.Event()
    with stopped_by_signals(closing):
        async with serving(ops, closing, worker=worker) as addresses:
            for address in addresses:
                announce(address)
            await closing.wait()
