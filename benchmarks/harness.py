"""What the benchmarks share: interleaved rounds, and the counting of time, CPU and memory.

A measure is a function that does some work and returns numbers by name. A question compares measures, the first of
which is the floor: the least that anybody could do for the same result. In each round every measure runs once, so that
whatever else the machine does at that moment hits all of them; a ratio is taken within a round, and the median of the
ratios is what counts.
"""

import asyncio
import gc
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

Numbers = dict[str, float]
Measure = Callable[[], Numbers]

LEAST_ROUNDS = 3


class Report:
    """Asks the questions of one benchmark; JSON lines go to stdout, tables for people to stderr.

    Args:
        name: of the benchmark.
        max_seconds: the whole benchmark is ended by force when it takes longer.
    """

    def __init__(self, name: str, max_seconds: int) -> None:
        self.name = name
        signal.alarm(max_seconds)
        print(f"\n{name}", file=sys.stderr)

    def compare(
        self,
        question: str,
        measures: Mapping[str, Measure],
        *,
        rounds: int = 7,
        seconds: float = 20.0,
        warm_up: bool = True,
    ) -> None:
        """Measure and print.

        Args:
            question: what is compared.
            measures: by name; the first is the floor.
            rounds: so many at most.
            seconds: no further round begins after so long, once there are three.
            warm_up: run each once before, for caches, byte code and the pages of the disk.
        """
        for measure in measures.values() if warm_up else ():
            measure()
        found: dict[str, list[Numbers]] = {who: [] for who in measures}
        until = time.monotonic() + seconds
        for index in range(rounds):
            if index >= LEAST_ROUNDS and time.monotonic() > until:
                break
            for who in list(measures)[:: 1 if index % 2 == 0 else -1]:
                gc.collect()
                found[who].append(measures[who]())
        self._print(question, found)

    def _print(self, question: str, found: Mapping[str, Sequence[Numbers]]) -> None:
        floor = next(iter(found))
        names = list(dict.fromkeys(name for rounds in found.values() for name in rounds[0]))
        rows = [["", *names]]
        for who, rounds in found.items():
            medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
            ratios = {} if who == floor else _ratios(rounds, found[floor])
            line = {"benchmark": self.name, "question": question, "who": who, "rounds": len(rounds)}
            print(json.dumps({**line, "median": _rounded(medians), "ratio": _rounded(ratios)}), flush=True)
            rows.append([who, *(_cell(medians.get(name), ratios.get(name)) for name in names)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        print(f"\n  {question} ({len(found[floor])} rounds)", file=sys.stderr)
        for row in rows:
            cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
            print(f"    {row[0]:<{widths[0]}}  " + "  ".join(cells), file=sys.stderr)


def _ratios(rounds: Sequence[Numbers], floor: Sequence[Numbers]) -> Numbers:
    """Within each round, then the median. A number that the floor lacks, or has as zero, has no ratio."""
    shared = [name for name in rounds[0] if all(one.get(name, 0) > 0 for one in floor)]
    pairs = list(zip(rounds, floor, strict=True))
    return {name: statistics.median(one[name] / least[name] for one, least in pairs) for name in shared}


def _rounded(numbers: Numbers) -> Numbers:
    return {name: float(f"{value:.4g}") for name, value in numbers.items()}


def _cell(value: float | None, ratio: float | None) -> str:
    if value is None:
        return ""
    shown = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return (
        shown if ratio is None else f"{shown} (x {ratio:.2g})" if ratio < 100 else f"{shown} (x {ratio:.0f})"
    )


# --- counting ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Spent:
    """What a block of code has used, once it has ended."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def spending() -> Iterator[Spent]:
    """Wall clock and CPU seconds, those of ended children included."""
    spent, wall, cpu = Spent(), time.perf_counter(), cpu_seconds()
    yield spent
    spent.wall, spent.cpu = time.perf_counter() - wall, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """CPU of this process, all of its threads, and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def memory_mb(peak: bool = False) -> float:
    """Resident memory of this process, now or at its highest."""
    field = "VmHWM:" if peak else "VmRSS:"  # not ru_maxrss, which begins with what the parent had
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field} for this process")


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest of the values."""
    return sorted(values)[round(percent / 100 * (len(values) - 1))]


async def seconds_each(work: Callable[[], Awaitable[object]], at_least: float = 0.1) -> float:
    """Repeat ``work`` for a while; the mean seconds of one."""
    count, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < at_least or count == 0:
        await work()
        count += 1
    return took / count


async def lanes(count: int, at_once: int, work: Callable[[int], Awaitable[object]]) -> None:
    """Do ``work`` for 0 … ``count`` - 1, so many ``at_once``."""
    numbers = iter(range(count))

    async def lane() -> None:
        for number in numbers:
            await work(number)

    await asyncio.gather(*(lane() for _ in range(min(at_once, count))))


def alone(*arguments: str) -> Numbers:
    """Run Python with these arguments in a process of its own; its last line on stdout is the numbers."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, env=os.environ, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{arguments}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
