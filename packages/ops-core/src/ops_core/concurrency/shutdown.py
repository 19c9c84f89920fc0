"""Graceful shutdown: on a signal, a process ends what waits long."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any, Literal, TypeVar

Result = TypeVar("Result")

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that ask a process to stop. A closed terminal sends SIGHUP; a process that ignores it (``nohup``) goes on."""

ECHO_SECONDS = 0.3
"""Within so long, a second signal is the first one again: it came to the group, and from whoever passes it on."""


async def unless_closing(closing: asyncio.Event, work: Coroutine[Any, Any, Result]) -> Result | None:
    """What ``work`` returns; ``None``, with the work cancelled, as soon as ``closing`` is set."""
    working = asyncio.ensure_future(work)
    closed = asyncio.ensure_future(closing.wait())
    try:
        await asyncio.wait({working, closed}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        closed.cancel()
        await asyncio.wait({working, closed})


class Closing(Exception):
    """The server stops."""


@asynccontextmanager
async def until_closing(closing: asyncio.Event) -> AsyncGenerator[None]:
    """What stands in the context is cancelled as soon as ``closing`` is set.

    Raises:
        Closing: it was.
    """
    limit = asyncio.timeout(None)

    def end(_closed: asyncio.Future[Literal[True]]) -> None:
        limit.reschedule(0)

    closed = asyncio.ensure_future(closing.wait())
    try:
        async with limit:
            closed.add_done_callback(end)
            try:
                yield
            finally:
                closed.remove_done_callback(end)
    except TimeoutError:
        if limit.expired():
            raise Closing from None
        raise
    finally:
        closed.cancel()


@contextmanager
def stopped_by_signals(closing: asyncio.Event) -> Generator[None]:
    """The first SIGINT, SIGTERM or SIGHUP sets ``closing``; after that, a signal does what it does to any process."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals come to the main thread only; whoever runs us in another one stops us otherwise
        return
    loop = asyncio.get_running_loop()
    since: float | None = None

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal since
        if since is None:
            since = time.monotonic()
            loop.call_soon_threadsafe(closing.set)
        elif time.monotonic() - since > ECHO_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    heeded = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
