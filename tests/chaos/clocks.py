"""Clocks of single processes that jump: libfaketime, where the machine has it."""

import time
from pathlib import Path

LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1")

SEEN_SECONDS = 1.5
"""Until a process looks at its clock's file once more."""


def library() -> Path | None:
    """Where libfaketime is; ``None`` where it is not installed."""
    found = [path for pattern in LIBRARIES for path in Path("/").glob(pattern[1:])]
    return found[0] if found else None


def settings_of(clock: Path) -> dict[str, str]:
    """The environment of a process whose wall clock is what ``clock`` says; its monotonic one runs on."""
    found = library()
    if found is None:
        return {}
    set_clock(clock, 0)
    return {
        "LD_PRELOAD": str(found),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",  # or every look at any clock reads the file
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def set_clock(clock: Path, offset_seconds: int) -> None:
    """Let the wall clock of the process jump to so many seconds from the true time, within a second or two.

    By its own clock; so a jump ahead can be followed by another one only when that second has come.
    """
    other = clock.with_suffix(f".{time.monotonic_ns()}")
    other.write_text(f"{offset_seconds:+d}\n")
    other.replace(clock)  # never seen half written
