"""1,000 runs that each wait one second in a tool, on one worker: what it costs to carry many at once.

    python benchmarks/waiting_runs.py             measure
    python benchmarks/waiting_runs.py --hold      also the CPU of holding them idle for 20 seconds
    python benchmarks/waiting_runs.py --profile   where the time goes, thread by thread

Each measure is a process of its own, so that its memory is its own.
"""

import asyncio
import json
import sys
from functools import partial

from harness import Numbers, Report, alone, memory_mb, spending
from sampler import profile
from scripted import Scripted, has_failures
from tasks_sqlite import Ended, fresh_file, submit_all

from agentkit import Agent, Completed, tool
from ops_core.assembly import open_ops
from ops_core.config.catalog import Catalog
from ops_core.processes.event_loop import run_lasting
from ops_core.settings import Settings

RUNS = 1000
HELD_SECONDS = 20.0


def waiting_agent(seconds: float) -> Agent[None, str]:
    @tool(effect="pure")
    async def wait(a: int, b: int) -> int:
        """Wait."""
        await asyncio.sleep(seconds)
        return a + b

    return Agent(Scripted([1], tool="wait"), tools=[wait])


async def sleeps(seconds: float) -> Numbers:
    idle = memory_mb()
    with spending() as spent:
        await asyncio.gather(*(asyncio.sleep(seconds) for _ in range(RUNS)))
    return _numbers(spent.wall, spent.cpu, idle)


async def runs(seconds: float) -> Numbers:
    """The loop alone, each run with a journal in memory."""
    agent = waiting_agent(seconds)
    await waiting_agent(0).run("go")
    idle = memory_mb()
    with spending() as spent:
        outcomes = await asyncio.gather(*(agent.run("go") for _ in range(RUNS)))
    if not all(
        isinstance(outcome, Completed) and not has_failures(outcome.transcript) for outcome in outcomes
    ):
        raise RuntimeError("not all runs have completed")
    return _numbers(spent.wall, spent.cpu, idle)


async def tasks(seconds: float) -> Numbers:
    """Durable tasks on one worker, from the first submit to the last end."""
    ended, catalog = Ended(), Catalog([waiting_agent(seconds)])
    with fresh_file() as path:
        settings = Settings(store_url=f"sqlite:///{path}", concurrency=RUNS)
        async with open_ops(settings, catalog) as ops, ops.working(ended):
            await submit_all(ops, ended, 1)
            idle = memory_mb()
            with spending() as spent:
                await submit_all(ops, ended, RUNS)
    return _numbers(spent.wall, spent.cpu, idle)


def _numbers(wall: float, cpu: float, idle_mb: float) -> Numbers:
    return {"wall s": wall, "CPU s": cpu, "peak MB": memory_mb(peak=True), "before MB": idle_mb}


MEASURES = {"sleeps": sleeps, "runs": runs, "tasks": tasks}
TITLES = {"sleeps": "bare asyncio sleeps", "runs": "agentkit, in memory", "tasks": "engine, SQLite"}


def in_a_process(who: str, seconds: float) -> Numbers:
    return alone(__file__, who, str(seconds))


def holding(who: str) -> Numbers:
    """Cores used while nothing happens: a long wait minus a short one."""
    long, short = in_a_process(who, HELD_SECONDS), in_a_process(who, 1.0)
    cores = (long["CPU s"] - short["CPU s"]) / (HELD_SECONDS - 1.0)
    return {"cores while idle": max(cores, 0.0), "CPU s, long": long["CPU s"], "peak MB": long["peak MB"]}


def main(hold: bool) -> None:
    report = Report("waiting_runs", max_seconds=600)
    report.compare(
        f"{RUNS:,} times one second",
        {TITLES[who]: partial(in_a_process, who, 1.0) for who in MEASURES},
        seconds=60,
    )
    if hold:
        measures = {TITLES[who]: partial(holding, who) for who in MEASURES}
        report.compare(f"{RUNS:,} held for {HELD_SECONDS:g} seconds", measures, rounds=2, warm_up=False)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [] | ["--hold"]:
            main(hold=len(sys.argv) > 1)
        case ["--profile"]:
            profile(lambda: asyncio.run(tasks(1.0)))
        case [who, seconds]:
            print(json.dumps(run_lasting(MEASURES[who](float(seconds)))))
        case _:
            raise SystemExit(__doc__)
