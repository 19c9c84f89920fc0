"""Worker process: runs tasks until it is asked to end, and serves nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress

from ops_core.assembly import Ops
from ops_core.concurrency.shutdown import stopped_by_signals
from ops_core.errors import ConfigError
from ops_core.settings import Settings
from ops_core.stores.dialects import is_in_memory, parse_url

READY = b"+"
"""What a worker tells its supervisor when it has begun to look for tasks."""


async def work(ops: Ops, announce: Callable[[], None], supervisor: int | None = None) -> None:
    """Carry tasks until SIGINT or SIGTERM; a second signal ends the process at once.

    Stopping, it claims nothing more, lets the runs go at their next step, and is back within ``grace_seconds`` and a
    few more; another worker carries them on.

    Args:
        ops: the platform, open.
        announce: called once it looks for tasks.
        supervisor: a connection to whoever looks after this process: told when it is ready, and when the other end
            closes, it stops as after a signal.

    Raises:
        ConfigError: not one of the agents can be run here.
    """
    closing = asyncio.Event()
    with ExitStack() as stack:
        stack.enter_context(stopped_by_signals(closing))
        if supervisor is not None:
            stack.enter_context(_stopped_with(supervisor, closing))
        async with ops.working():
            if supervisor is not None:
                with suppress(OSError):  # it is gone; that is seen where its end is read
                    os.write(supervisor, READY)
            announce()
            await closing.wait()


def shared_only(settings: Settings) -> None:
    """Refuse a store that nobody else can hand tasks in to.

    Raises:
        ConfigError: it is in the memory of this process.
    """
    if is_in_memory(parse_url(settings.store_url)):
        message = "store_url: a database in memory belongs to one process; a worker needs a file or a server"
        raise ConfigError(message, field="store_url")


@contextmanager
def _stopped_with(supervisor: int, closing: asyncio.Event) -> Generator[None]:
    """Set ``closing`` when the other end of the connection closes, whatever became of it."""
    loop = asyncio.get_running_loop()

    def look() -> None:
        with suppress(OSError):
            if os.read(supervisor, 1):
                return
        loop.remove_reader(supervisor)
        closing.set()

    loop.add_reader(supervisor, look)
    try:
        yield
    finally:
        loop.remove_reader(supervisor)
