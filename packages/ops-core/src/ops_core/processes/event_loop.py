"""Event loop of a long-running process: uvloop where it is installed (extra ``opspawn[uvloop]``), else asyncio."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

NEW_OBJECTS = 10_000
"""So many more objects than were freed bring the collector of reference cycles."""


def run_lasting(work: Coroutine[Any, Any, Result]) -> Result:
    """As :func:`asyncio.run`, for a program that carries runs: what an event loop costs, it pays for every step.

    The collector of reference cycles comes less often than by default, and leaves out what was there before the work
    began: a thousand runs in hand are not looked through whenever a few hundred objects were made.
    """
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(work)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop
