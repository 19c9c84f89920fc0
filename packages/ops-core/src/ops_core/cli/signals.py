"""Signals, warnings and waits beside a run."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from typing import Any

from ops_core.cli.exit_codes import Exit
from ops_core.concurrency.shutdown import STOPPING


async def first_of(*things: Coroutine[Any, Any, Any]) -> None:
    """Wait until one of them has ended, and stop the others. Raises what the first one raised."""
    tasks = [asyncio.ensure_future(thing) for thing in things]
    try:
        done, _others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


@contextmanager
def signals_to(interrupt: Callable[[Exit], None]) -> Generator[None]:
    """Ctrl-C, SIGTERM and a terminal that is closed call ``interrupt`` in the event loop, each time."""
    loop = asyncio.get_running_loop()
    wanted = {
        number: Exit.INTERRUPTED if number == signal.SIGINT else Exit.TERMINATED
        for number in STOPPING
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    before: dict[signal.Signals, Any] = {}
    for number, code in wanted.items():
        try:
            loop.add_signal_handler(number, interrupt, code)
        except NotImplementedError:  # an event loop without signals
            before[number] = signal.signal(number, _soon(loop, interrupt, code))
    try:
        yield
    finally:
        for number in wanted:
            if number in before:
                signal.signal(number, before[number])
            else:
                loop.remove_signal_handler(number)


def _soon(
    loop: asyncio.AbstractEventLoop, interrupt: Callable[[Exit], None], code: Exit
) -> Callable[..., None]:
    def handle(*_number_and_frame: object) -> None:
        loop.call_soon_threadsafe(interrupt, code)

    return handle


@contextmanager
def warnings_to(note: Callable[[str], None]) -> Generator[None]:
    """What the worker has to say about the task that it carries is shown between its steps."""
    handler = _Notes(note)
    loggers = [logging.getLogger(name) for name in ("ops_core", "agentkit")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


class _Notes(logging.Handler):
    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "ops_core.sweeper":
            return
        with suppress(RuntimeError):  # the loop is gone, and with it whoever would see this
            self._note(record.getMessage())
