"""Workers that have their models stream; each is a process of its own, forked from this one when a line is read."""

import asyncio
import importlib
import os
import signal
import sys

from ops_core.assembly import open_ops
from ops_core.settings import read_settings

for needed in (
    "agentkit.models.openai.client",
    "agentkit.models.adapter.http",
    "psycopg",
):  # so that no worker does it again
    importlib.import_module(needed)


async def work() -> None:
    async with open_ops(read_settings()) as ops, ops.working(on_event=lambda _task_id, _event: None):
        await asyncio.Event().wait()


signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a worker has ended: it was killed
print("ready", flush=True)
for _line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        asyncio.run(work())
    print(pid, flush=True)
