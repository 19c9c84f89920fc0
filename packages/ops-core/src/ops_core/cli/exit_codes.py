"""Exit codes. Programs may rely on them; the text of messages may change."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class Exit(IntEnum):
    """The exit codes."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CANCELLED = 4
    WAITING = 5
    LATE = 6
    REFUSED = 7
    UNAVAILABLE = 69
    BUG = 70
    INTERRUPTED = 130
    OUTPUT_CLOSED = 141
    TERMINATED = 143


MEANINGS: Mapping[Exit, str] = {
    Exit.OK: "done; a task that was followed has completed",
    Exit.FAILED: "the task failed; doctor: something needed is missing",
    Exit.USAGE: "an option, a setting or a declaration is wrong",
    Exit.NOT_FOUND: "no such task, thread, approval, halt or agent",
    Exit.CANCELLED: "the task was cancelled",
    Exit.WAITING: "the task waits for a person",
    Exit.LATE: "the time given with --within is over, and the task is still under way",
    Exit.REFUSED: "the status of the task or of its thread does not allow this, or the idempotency key is taken",
    Exit.UNAVAILABLE: "the store or the server cannot be used: unreachable, full, or of another release",
    Exit.BUG: "an error that nobody expected",
    Exit.INTERRUPTED: "stopped by Ctrl-C; a run can be carried on",
    Exit.OUTPUT_CLOSED: "whoever read the output went away",
    Exit.TERMINATED: "stopped by SIGTERM; a run can be carried on",
}
"""What each of them means, for ``--help`` and the documentation."""
