"""A worker process of any release, also of one that has no `opspawn worker` yet, until SIGTERM."""

import asyncio
import logging
import signal

from ops_core.assembly import open_ops
from ops_core.settings import read_settings


async def work() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with open_ops(read_settings()) as ops, ops.working():
        print("ready", flush=True)
        await stop.wait()


logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)-7s %(name)s  %(message)s")
asyncio.run(work())
