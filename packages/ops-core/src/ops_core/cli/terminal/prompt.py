"""The person at the terminal, asked in between."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress

from ops_core.cli.terminal.screen import STYLES, Screen


def can_ask(screen: Screen) -> bool:
    """Somebody sits at a terminal and sees what is asked."""
    return sys.stdin.isatty() and screen.is_terminal


async def confirm(screen: Screen, question: str) -> bool | None:
    """A yes or no; ``None`` when the input has ended. Cancelling it leaves the terminal as it was."""
    _forget_what_was_typed()
    while True:
        screen.print(f"       {question} [y/n] ", style=STYLES["person"], end="")
        line = await _next_line()
        if line == "":
            screen.print()
            return None
        if line.strip().lower() in ("y", "yes", "n", "no"):
            return line.strip().lower().startswith("y")


def _forget_what_was_typed() -> None:
    """Keys that were pressed before the question was seen are no answer to it."""
    with suppress(ImportError, OSError):
        import termios

        termios.tcflush(sys.stdin, termios.TCIFLUSH)


async def _next_line() -> str:
    """Past Python's own buffer, in which a line could wait unseen. A terminal gives one line at a time."""
    loop = asyncio.get_running_loop()
    terminal = sys.stdin.fileno()
    arrived = asyncio.Event()
    try:
        loop.add_reader(terminal, arrived.set)
    except NotImplementedError:  # an event loop that cannot watch a terminal
        return await asyncio.to_thread(sys.stdin.readline)
    try:
        await arrived.wait()
    finally:
        loop.remove_reader(terminal)
    return os.read(terminal, 4096).decode(errors="replace")
