"""Init process: what ``opspawn`` does as the first process of a container that has no init of its own.

For process 1 the kernel has rules of its own: a signal without a handler is dropped, so a SIGTERM that comes while
modules are imported would be lost; and it inherits orphans, which stay zombies unless it waits for them.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

FORWARDED = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH")
    if hasattr(signal, name)
)


def split_from_init() -> None:
    """Return in a child process that does the work; this process passes signals on and waits for all that end.

    It ends with the exit code of that child, as a shell tells it (128 + number where a signal ended it).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # none is lost before there is a handler
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return

    def forward(number: int, _frame: FrameType | None) -> None:
        os.kill(child, number)

    for number in FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
