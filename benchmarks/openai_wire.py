"""What a run over the OpenAI wire costs, as a ratio to the bare OpenAI SDK making the same calls.

    python benchmarks/openai_wire.py [ROUNDS]                measure; five rounds where not said
    BENCH_HARNESS=FOLDER python benchmarks/openai_wire.py    the same by the harness of a comparison of agent
                                                             libraries (measure.py, mock_server.py, peers/)

A run is two calls of the model and one of a tool, against a server on loopback that thinks for no time. Each library
has an environment of its own, made on first use below BENCH_FOLDER (else the folder for temporary files). Floor and
candidate are measured in turn in each round, every other round the other way round; ratios are taken within a round,
and the median over the rounds is told. CPU is that of the client's process alone, the best of several passes.
"""

import asyncio
import contextlib
import gc
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
FLOOR, OURS = "openai_sdk", "agentkit_chat"
NEEDS = {FLOOR: ["openai"], OURS: [f"{HERE.parent / 'packages' / 'agentkit'}[openai]"]}
PHASES = ("import", "run", "stream")
RUNS, WIDE, DELTAS = 300, 50, 2000
ROWS = [
    ("import + client + one agent, ms", "ready_ms", 0),
    ("modules", "modules", 0),
    ("memory then, MB", "ready_rss_mb", 1),
    ("making an agent, µs", "build_us", 1),
    ("CPU of a run, ms", "cpu_ms", 2),
    ("runs a second, 50 at a time", "runs_per_s", 0),
    ("CPU of a run, 50 at a time, ms", "wide_cpu_ms", 2),
    ("CPU of a streamed delta, µs", "delta_us", 1),
    ("packages installed", "packages", 0),
]


# --- in the environment of one library ---------------------------------------------------------------------------


def rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def measure_import(name: str, _base: str) -> dict[str, float]:
    before, began = rss_mb(), time.perf_counter()
    peer = importlib.import_module(f"wire_peers.{name}")
    peer.build(peer.model("http://127.0.0.1:9"))
    return {
        "ready_ms": (time.perf_counter() - began) * 1e3,
        "ready_rss_mb": rss_mb() - before,
        "modules": len(sys.modules),
    }


def measure_run(name: str, base: str) -> dict[str, float]:
    return asyncio.run(_runs(importlib.import_module(f"wire_peers.{name}"), base))


async def _runs(peer, base: str) -> dict[str, float]:
    model = peer.model(base)
    agent = peer.build(model)
    built = []
    for _ in range(200):
        began = time.perf_counter()
        peer.build(model)
        built.append(time.perf_counter() - began)

    async def times(count: int) -> None:
        for _ in range(count):
            if "42" not in await peer.run(agent):
                raise RuntimeError("not the answer")

    await times(30)
    each, fast, wide = [], [], []
    for _ in range(10):  # the best of them is told: what else the machine does only ever adds
        began = time.process_time()
        await times(RUNS // 10)
        each.append((time.process_time() - began) / (RUNS // 10))
    await asyncio.gather(*(times(1) for _ in range(WIDE)))
    gc.collect()
    for _ in range(5):
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(times(4) for _ in range(WIDE)))
        fast.append(4 * WIDE / (time.perf_counter() - began))
        wide.append((time.process_time() - cpu) / (4 * WIDE))
    await peer.close(model)
    return {
        "build_us": statistics.median(built) * 1e6,
        "cpu_ms": min(each) * 1e3,
        "runs_per_s": max(fast),
        "wide_cpu_ms": min(wide) * 1e3,
    }


def measure_stream(name: str, base: str) -> dict[str, float]:
    peer = importlib.import_module(f"wire_peers.{name}")

    async def cost(count: int) -> float:
        model, spent = peer.stream_model(base, count), []
        for _ in range(4):
            began = time.process_time()
            await peer.stream(model, count)
            spent.append(time.process_time() - began)
        await peer.close(model)
        return min(spent)

    return {"delta_us": (asyncio.run(cost(DELTAS)) - asyncio.run(cost(1))) / DELTAS * 1e6}


# --- across them -------------------------------------------------------------------------------------------------


def environment(name: str) -> Path:
    folder = Path(os.environ.get("BENCH_FOLDER", tempfile.gettempdir())) / "bench-openai-wire" / name
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--upgrade", *NEEDS[name]], check=True)
    if name == OURS:  # the version does not change with the source
        subprocess.run([*pip, "--force-reinstall", "--no-deps", *NEEDS[name]], check=True)
    return python


def packages(python: Path) -> int:
    site = next((python.parent.parent / "lib").glob("python*/site-packages"))
    return len(
        [found for found in site.glob("*.dist-info") if not found.name.startswith(("pip-", "setuptools-"))]
    )


HARNESS = os.environ.get("BENCH_HARNESS")
SHIM = """
import runpy, sys
sys.path[:0] = [{harness!r}, {here!r}]
import peers
peers.__path__.append({ours!r})
sys.argv = ["measure.py", *sys.argv[1:]]
runpy.run_path({harness!r} + "/measure.py", run_name="__main__")
"""


@contextlib.contextmanager
def server() -> Iterator[str]:
    script = Path(HARNESS, "mock_server.py") if HARNESS else HERE / "llm_server.py"
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def measure(python: Path, name: str, phase: str) -> dict[str, float]:
    with server() as base:
        if HARNESS:
            shim = SHIM.format(harness=HARNESS, here=str(HERE), ours=str(HERE / "wire_peers"))
            command = [python, "-c", shim, name, phase, *([] if phase == "import" else [base])]
        else:
            command = [python, __file__, "one", name, phase, base]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise SystemExit(f"{name} {phase}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(rounds: int) -> None:
    pythons = {name: environment(name) for name in (FLOOR, OURS)}
    found: list[dict[str, dict[str, float]]] = []
    for number in range(rounds):
        found.append({name: {"packages": packages(python)} for name, python in pythons.items()})
        for phase in PHASES:
            for name in (FLOOR, OURS) if number % 2 else (OURS, FLOOR):
                found[-1][name] |= measure(pythons[name], name, phase)
        print(f"round {number + 1} of {rounds}", json.dumps(found[-1]), file=sys.stderr, flush=True)
    print("| | OpenAI SDK | agentkit | ratio |\n| --- | --- | --- | --- |")
    for title, key, digits in ROWS:
        floor, ours = (statistics.median(one[name][key] for one in found) for name in (FLOOR, OURS))
        ratio = statistics.median(one[OURS][key] / one[FLOOR][key] for one in found)
        told = "" if key == "build_us" else f"× {ratio:.2f}"  # the SDK has no agent
        print(
            f"| {title} | {'' if key == 'build_us' else f'{floor:.{digits}f}'} | {ours:.{digits}f} | {told} |"
        )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["one", name, phase, base]:
            print(
                json.dumps(
                    {"import": measure_import, "run": measure_run, "stream": measure_stream}[phase](
                        name, base
                    )
                )
            )
        case []:
            compare(5)
        case [rounds]:
            compare(int(rounds))
        case _:
            raise SystemExit(__doc__)
