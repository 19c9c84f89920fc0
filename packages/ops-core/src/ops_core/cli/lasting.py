"""The event loop of a process that lasts: uvloop where it is installed (extra ``ops-core[uvloop]``), else asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_lasting(work: Coroutine[Any, Any, Result]) -> Result:
    """As :func:`asyncio.run`, for a program that carries runs: what an event loop costs, it pays for every step."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(work)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop
