"""What a call in a sandbox costs, beside a bare fork of the same process, and fifty calls at a time.

python benchmarks/sandbox.py
"""

import asyncio
import os
import time
from collections.abc import Callable

from harness import Numbers, Report

from agentkit.sandbox import Backend, SandboxUnavailable, open_sandbox

CALLS = 30
PAUSE = 0.1
"""Seconds between calls: as a run has them, in which a model thinks; children are made ahead in them."""
ARGUMENTS = {"data": [3, 3, 1]}


def fork() -> None:
    """The least that a process for one call can cost: fork, end, wait; no exec, nothing confined, nothing said."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def forks() -> Numbers:
    spent = []
    for _ in range(CALLS):
        began = time.perf_counter()
        fork()
        spent.append(time.perf_counter() - began)
        time.sleep(PAUSE / 10)
    return told(spent)


def told(spent: list[float]) -> Numbers:
    spent.sort()
    return {"ms": spent[len(spent) // 2] * 1e3, "ms_p90": spent[int(len(spent) * 0.9)] * 1e3}


def measure(runner: asyncio.Runner, work: Callable[[], object]) -> Callable[[], Numbers]:
    return lambda: runner.run(work())  # type: ignore[arg-type]


async def warm(box: Backend) -> Numbers:
    spent = []
    for _ in range(CALLS):
        await asyncio.sleep(PAUSE)
        began = time.perf_counter()
        await box.call("statistics:mode", ARGUMENTS)
        spent.append(time.perf_counter() - began)
    return told(spent)


async def at_once(box: Backend) -> Numbers:
    """Fifty calls, and how late the event loop was meanwhile."""
    late = 0.0
    began = time.perf_counter()
    calls = asyncio.gather(*(box.call("statistics:mode", ARGUMENTS) for _ in range(50)))
    while not calls.done():
        asked = time.perf_counter()
        await asyncio.sleep(0.005)
        late = max(late, time.perf_counter() - asked - 0.005)
    await calls
    return {"ms": (time.perf_counter() - began) * 1e3, "loop_late_ms": late * 1e3}


async def opened(name: str) -> Backend | None:
    try:
        return await open_sandbox(name, preload=["statistics"]).__aenter__()
    except SandboxUnavailable as error:
        print(f"no {name}: {error}")
        return None


def main() -> None:
    report = Report("sandbox", max_seconds=170)
    with asyncio.Runner() as runner:
        boxes = {name: box for name in ("pool", "jail") if (box := runner.run(opened(name))) is not None}
        measures = {"fork": forks}
        for name, box in boxes.items():
            measures[name] = measure(runner, lambda box=box: warm(box))  # type: ignore[misc]
        report.compare("one call, warm", measures, rounds=5)
        fifty = {name: measure(runner, lambda box=box: at_once(box)) for name, box in boxes.items()}  # type: ignore[misc]
        report.compare("fifty calls at a time", fifty, rounds=3)
        for box in boxes.values():
            runner.run(box.__aexit__(None, None, None))


if __name__ == "__main__":
    main()
