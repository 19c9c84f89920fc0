"""What agentkit adds to a loop written by hand: per step, per run, per import, with the length of the transcript.

python benchmarks/loop_overhead.py             measure
python benchmarks/loop_overhead.py --profile   where the time of a long run goes
"""

import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness import Numbers, Report, alone, memory_mb, seconds_each
from sampler import profile
from scripted import Scripted, add, add_in_a_thread, by_hand, has_failures, plain_add, plain_add_in_a_thread

from agentkit import Agent, Completed, FileJournal, Limits, MemoryJournal, Tool
from agentkit.transcript.codec import encode_step
from agentkit.transcript.steps import ToolReturned

MICRO = 1e6
LIMITS = Limits(steps=100_000)  # one that is looked at, as in every real run
STEP = ToolReturned(call_id="call_1", tool="add", output=3, seconds=0.001)
APPENDS = 200


def agent_with(model: Scripted, tool: Tool = add) -> Agent[None, str]:
    return Agent(model, tools=[tool], limits=LIMITS)


async def run_once(agent: Agent[None, str], steps: int) -> None:
    outcome = await agent.run("go")
    if (
        not isinstance(outcome, Completed)
        or len(outcome.transcript) != steps
        or has_failures(outcome.transcript)
    ):
        raise RuntimeError(f"not the run that was to be measured: {outcome}")


def hand_loop(calls: list[int], threads: bool = False) -> Numbers:
    model = Scripted(calls)

    async def in_a_thread(a: int, b: int) -> int:
        return await asyncio.to_thread(plain_add_in_a_thread, a, b)

    function = in_a_thread if threads else plain_add
    each = asyncio.run(seconds_each(lambda: by_hand(model, function, (add.spec,))))
    return {"µs a step": each * MICRO / model.steps}


def agent_loop(calls: list[int], threads: bool = False) -> Numbers:
    model = Scripted(calls)
    agent = agent_with(model, add_in_a_thread if threads else add)
    each = asyncio.run(seconds_each(lambda: run_once(agent, model.steps)))
    return {"µs a step": each * MICRO / model.steps}


def compare_loops(report: Report, question: str, calls: list[int], threads: bool = False) -> None:
    measures = {
        "by hand": partial(hand_loop, calls, threads),
        "agentkit": partial(agent_loop, calls, threads),
    }
    report.compare(question, measures)


# --- journals ----------------------------------------------------------------------------------------------------


def append_to_list() -> Numbers:
    kept: list[tuple[int, float, object]] = []
    began = time.perf_counter()
    for index in range(APPENDS):
        kept.append((index, time.time(), STEP))  # noqa: PERF401  (the append is what is measured)
    return {"µs an append": (time.perf_counter() - began) * MICRO / APPENDS}


def append_to_memory() -> Numbers:
    return asyncio.run(_appends(MemoryJournal()))


def append_by_hand() -> Numbers:
    line = encode_step(STEP).encode() + b"\n"
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "run.jsonl").open("ab") as file:
        began = time.perf_counter()
        for _ in range(APPENDS):
            _write(file, line)
        return {"µs an append": (time.perf_counter() - began) * MICRO / APPENDS}


def append_to_file() -> Numbers:
    async def go(folder: str) -> Numbers:
        async with FileJournal(Path(folder) / "run.jsonl") as journal:
            return await _appends(journal)

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(go(folder))


async def _appends(journal: MemoryJournal | FileJournal) -> Numbers:
    began = time.perf_counter()
    for _ in range(APPENDS):
        await journal.append(STEP)
    return {"µs an append": (time.perf_counter() - began) * MICRO / APPENDS}


def _write(file: Any, line: bytes) -> None:
    file.write(line)
    file.flush()
    os.fsync(file.fileno())


# --- agents and runs ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fields:
    """As many fields as an agent has, and nothing else."""

    model: object
    name: str = "agent"
    instructions: str = ""
    tools: tuple[object, ...] = ()
    output: type[object] = str
    deps: type[object] = type(None)
    limits: object = LIMITS
    policy: object = None
    planning: str = "native"
    patience: int = 3


def construction(make: Callable[[], object], count: int = 2000) -> Numbers:
    began = time.perf_counter()
    for _ in range(count):
        make()
    return {"µs": (time.perf_counter() - began) * MICRO / count}


def short_run(make: Callable[[], Any]) -> Numbers:
    work = make()
    return {"µs a run": asyncio.run(seconds_each(work)) * MICRO}


def named_adds(count: int) -> list[Tool]:
    return [Tool(plain_add, name=f"add_{index}", effect="pure") for index in range(count)]


def compare_short_runs(report: Report) -> None:
    model = Scripted([])
    none, one = Agent(model), Agent(model, tools=[add])
    ten, plain = Agent(model, tools=named_adds(10)), Agent(model, tools=[plain_add])
    report.compare(
        "a run of one reply: what a run costs besides its steps",
        {
            "by hand": lambda: short_run(lambda: lambda: by_hand(model, plain_add, ())),
            "agentkit, no tool": lambda: short_run(lambda: lambda: none.run("go")),
            "agentkit, one tool": lambda: short_run(lambda: lambda: one.run("go")),
            "agentkit, ten tools": lambda: short_run(lambda: lambda: ten.run("go")),
            "agentkit, one plain function": lambda: short_run(lambda: lambda: plain.run("go")),
        },
    )


# --- in a process of its own -------------------------------------------------------------------------------------

IMPORT = """
import json, sys, time
before, began = len(sys.modules), time.perf_counter()
{}
took = 1000 * (time.perf_counter() - began)
memory = next(int(l.split()[1]) / 1024 for l in open("/proc/self/status") if l.startswith("VmRSS:"))
print(json.dumps(dict(ms=took, modules=len(sys.modules) - before, MB=memory)))
"""
READY = """
from agentkit import Agent, tool
@tool(effect="pure")
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b
add.spec
Agent("offline:planner", tools=[add])
"""


def compare_imports(report: Report) -> None:
    report.compare(
        "import, in a process of its own",
        {
            "import asyncio, json": lambda: alone("-c", IMPORT.format("import asyncio, json")),
            "import asyncio, json, pydantic": lambda: alone(
                "-c", IMPORT.format("import asyncio, json\nfrom pydantic import BaseModel, TypeAdapter")
            ),
            "import agentkit": lambda: alone("-c", IMPORT.format("import agentkit")),
            "agentkit and an agent with one tool": lambda: alone("-c", IMPORT.format(READY)),
        },
    )


def growth_of(who: str, runs: int = 2000) -> Numbers:
    """Memory that so many runs leave behind, after the first few hundred."""
    model = Scripted([1] * 5)
    agent = agent_with(model)

    async def go(count: int) -> None:
        for _ in range(count):
            if who == "agentkit":
                await run_once(agent, model.steps)
            else:
                await by_hand(model, plain_add, (add.spec,))

    async def both() -> Numbers:
        await go(300)
        gc.collect()
        before = memory_mb()
        await go(runs)
        gc.collect()
        return {"KB a run": (memory_mb() - before) * 1024 / runs, "MB at the end": memory_mb()}

    return asyncio.run(both())


def compare_growth(report: Report) -> None:
    measures = {who: partial(alone, __file__, "--growth-of", who) for who in ("by hand", "agentkit")}
    report.compare("memory left by 2,000 runs of 13 steps, in a process of its own", measures, rounds=3)


def main() -> None:
    report = Report("loop_overhead", max_seconds=300)
    compare_loops(report, "50 turns of one call", [1] * 50)
    compare_loops(report, "25 turns of three parallel calls", [3] * 25)
    compare_loops(report, "50 turns of one call, synchronous tool", [1] * 50, threads=True)
    for who, loop in (("by hand", hand_loop), ("agentkit", agent_loop)):
        lengths = {f"{steps} steps": partial(loop, [1] * (steps // 2 - 1)) for steps in (50, 200, 1000)}
        report.compare(f"growth with the transcript, {who}", lengths)
    report.compare("append in memory", {"a list": append_to_list, "MemoryJournal": append_to_memory})
    report.compare(
        "append to a file", {"write and fsync by hand": append_by_hand, "FileJournal": append_to_file}
    )
    report.compare(
        "making an agent",
        {
            "a frozen dataclass": lambda: construction(lambda: Fields("model", tools=(add,))),
            "agentkit": lambda: construction(lambda: Agent("offline:planner", tools=(add,))),
        },
    )
    compare_short_runs(report)
    compare_imports(report)
    compare_growth(report)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--growth-of", who]:
            print(json.dumps(growth_of(who)))
        case ["--profile"]:
            for turns, times in ((20, 400), (500, 4)):
                print(f"\nruns of {turns} turns", file=sys.stderr)
                agent, steps = agent_with(Scripted([1] * turns)), 2 * turns + 3
                profile(lambda a=agent, s=steps, t=times: [asyncio.run(run_once(a, s)) for _ in range(t)])
        case []:
            main()
        case _:
            raise SystemExit(__doc__)
