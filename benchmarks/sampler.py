"""Where the time goes, thread by thread: a sampling profiler that changes little of what it watches.

A sample is the stack of every thread, taken about a thousand times a second. Samples of a thread that waits for work
count as idle. Time is wall clock: a commit shows its fsync, and a thread that waits for the interpreter's lock shows
the function in which it waits.
"""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Self

EVERY_SECONDS = 0.001
TOP = 22
OURS = ("agentkit", "ops_core")

# innermost Python functions of a thread that has nothing to do
IDLE = {
    ("selectors.py", "select"),
    ("writer.py", "_next_batch"),
    ("thread.py", "_worker"),
    ("threading.py", "wait"),
}


class Sampler:
    """Samples all threads but its own until it is stopped."""

    def __init__(self) -> None:
        self.samples: Counter[str] = Counter()
        self.idle: Counter[str] = Counter()
        self.own: dict[str, Counter[str]] = {}
        self.within: dict[str, Counter[str]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sampler", daemon=True)

    def __enter__(self) -> Self:
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(
            EVERY_SECONDS / 4
        )  # else samples gather where the interpreter's lock is given up
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()
        sys.setswitchinterval(self._interval)

    def _watch(self) -> None:
        while not self._stop.is_set():
            names = {thread.ident: thread.name.rsplit("_", 1)[0] for thread in threading.enumerate()}
            for ident, frame in sys._current_frames().items():  # noqa: SLF001  (its documented name)
                if ident != self._thread.ident and ident in names:
                    self._take(names[ident], frame)
            time.sleep(EVERY_SECONDS)

    def _take(self, thread: str, innermost: FrameType) -> None:
        self.samples[thread] += 1
        code = innermost.f_code
        if (code.co_filename.rsplit("/", 1)[-1], code.co_name) in IDLE:
            self.idle[thread] += 1
            return
        self.own.setdefault(thread, Counter())[_name(code)] += 1
        seen = set()
        frame: FrameType | None = innermost
        while frame is not None:
            seen.add(_name(frame.f_code))
            frame = frame.f_back
        self.within.setdefault(thread, Counter()).update(seen)

    def print(self) -> None:
        """Tables on stderr: shares are of the time in which the thread was busy."""
        for thread, samples in self.samples.most_common():
            busy = samples - self.idle[thread]
            if busy < max(50, samples / 50):
                continue
            print(f"\n  thread {thread}: busy {busy / samples:.0%} of {samples} samples", file=sys.stderr)
            packages = Counter[str]()
            for name, count in self.own[thread].items():
                packages[name.split("/")[0].split(":")[0]] += count
            _table("by package", packages, busy, 8)
            ours = Counter({n: c for n, c in self.within[thread].items() if n.startswith(OURS)})
            _table("ours, with what is called from there", ours, busy, TOP)
            _table("alone", self.own[thread], busy, TOP)


def profile(work: Callable[[], object]) -> None:
    """Do ``work`` and print where the time went."""
    work()
    with Sampler() as sampler:
        work()
    sampler.print()


def _table(title: str, counted: Counter[str], whole: int, most: int) -> None:
    print(f"    {title}", file=sys.stderr)
    for name, count in counted.most_common(most):
        print(f"      {count / whole:6.1%}  {name}", file=sys.stderr)


def _name(code: CodeType) -> str:
    path = code.co_filename
    for mark in ("/site-packages/", "/src/", f"/python{sys.version_info[0]}.{sys.version_info[1]}/"):
        path = path.rsplit(mark, 1)[-1]
    return f"{path.rsplit('/benchmarks/', 1)[-1]}:{code.co_qualname}"
