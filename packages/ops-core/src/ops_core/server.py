"""The server as a process: everything that it serves, until a signal."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from ops_core.api.serve import serving
from ops_core.assembly import Ops

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def serve(ops: Ops, announce: Callable[[str], None]) -> None:
    """Serve the API and work, until SIGINT or SIGTERM; a second signal ends the process at once.

    Stopping, it takes no more connections and claims no more tasks, lets the runs go at their next step, and is back
    within ``grace_seconds`` and a few more.

    Args:
        ops: the platform, open.
        announce: told each address once connections are accepted there.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    closing = asyncio.Event()
    with _signals(closing):
        async with serving(ops, closing) as addresses:
            for address in addresses:
                announce(address)
            await closing.wait()


@contextmanager
def _signals(closing: asyncio.Event) -> Generator[None, None, None]:
    """The first signal sets ``closing``; after that, a signal does what it does to any process."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals come to the main thread only; whoever runs us in another one stops us otherwise
        return
    loop = asyncio.get_running_loop()

    def first(_number: int, _frame: FrameType | None) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        loop.call_soon_threadsafe(closing.set)

    before = {number: signal.signal(number, first) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
