"""Submitting over HTTP and gRPC: what a request costs the server, against the engine's own submit and a bare endpoint.

    python benchmarks/http_submit.py                        measure
    python benchmarks/http_submit.py --profile [rest|batch] where the time goes in the server

The server is a process of its own, without a worker, on an SQLite file that is flushed at every commit. "Per core"
means per second of CPU that the server's process has used. The caller of HTTP sends the same bytes again and again over
20 connections. BENCH_FOLDER names the folder of the databases; it must be on a real disk.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import grpc
from harness import Numbers, Report, lanes, spending
from sampler import profile
from scripted import Scripted

from agentkit import Agent
from ops_core.api.serve import serving
from ops_core.assembly import open_ops
from ops_core.config.catalog import Catalog
from ops_core.processes.event_loop import run_lasting
from ops_core.protocol.v1.task_service_pb2 import BatchCreateTasksRequest, CreateTaskRequest
from ops_core.protocol.v1.task_service_pb2_grpc import TaskServiceStub
from ops_core.rpc.serve import serving as serving_grpc
from ops_core.settings import Settings
from ops_core.task import NewTask

AT_ONCE = 20
TASK = {"agent": "agent", "input": "Count the words of this text.", "labels": {"team": "search"}}
ONE = json.dumps(TASK).encode()
HERE = Path(__file__)


def many(count: int) -> bytes:
    return json.dumps({"tasks": [TASK] * count}).encode()


# --- the servers, each a process of its own ----------------------------------------------------------------------


async def serve_bare() -> None:
    """The least that answers JSON with JSON: Starlette on uvicorn, and nothing behind it."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def accept(request: Request) -> JSONResponse:
        return JSONResponse({"id": "1", **await request.json()}, 202)

    app = Starlette(routes=[Route("/api/v1/tasks", accept, methods=["POST"])])
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, http="h11", log_level="critical", lifespan="off", access_log=False)
    )
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  (uvicorn has no event for it)
        await asyncio.sleep(0.01)
    told(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
    await until_end_of_input()
    server.should_exit = True
    await task


@asynccontextmanager
async def platform(folder: str) -> AsyncIterator[Any]:
    settings = Settings(store_url=f"sqlite:///{folder}/tasks.db", port=0)
    async with open_ops(settings, Catalog([Agent(Scripted(()), name="agent")])) as ops:
        yield ops


async def serve_ours(wire: str) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER")) as folder:
        async with platform(folder) as ops:
            opening = serving_grpc(ops) if wire == "grpc" else serving(ops, worker=False)
            async with opening as [address]:
                told(address)
                await until_end_of_input()


def told(address: str) -> None:
    print(address, flush=True)


async def until_end_of_input() -> None:
    await asyncio.to_thread(sys.stdin.read)


class Server:
    """One of the servers above.

    Args:
        kind: ``bare``, ``rest`` or ``grpc``.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __enter__(self) -> Self:
        command = [sys.executable, HERE, "--serve", self._kind]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip().partition("://")[2]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- the callers -------------------------------------------------------------------------------------------------


async def call_http(address: str, path: str, body: bytes, requests: int) -> None:
    host, port = address.split(":")
    head = f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n"
    sent = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    connections = [await asyncio.open_connection(host, int(port)) for _ in range(min(AT_ONCE, requests))]

    async def call(number: int) -> None:
        reader, writer = connections.pop()
        writer.write(sent)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        text = await reader.readexactly(length)
        if not answer.startswith((b"HTTP/1.1 202", b"HTTP/1.1 200")) or b'"status":422' in text:
            raise RuntimeError(f"{number}: {answer!r} {text[:500]!r}")
        connections.append((reader, writer))

    await lanes(requests, AT_ONCE, call)
    for _reader, writer in connections:
        writer.close()


async def call_grpc(address: str, batch: int, requests: int) -> None:
    one = CreateTaskRequest(agent="agent", input_json=json.dumps(TASK["input"]), labels={"team": "search"})
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = TaskServiceStub(channel)

        async def call(_number: int) -> None:
            if batch == 1:
                await stub.CreateTask(one)
                return
            answer = await stub.BatchCreateTasks(BatchCreateTasksRequest(requests=[one] * batch))
            assert all(result.created for result in answer.results)

        await lanes(requests, AT_ONCE, call)


def over(kind: str, tasks: int, batch: int = 1) -> Numbers:
    """Submit so many tasks through a server, so many in each request."""

    def call(requests: int) -> Awaitable[None]:
        if kind == "grpc":
            return call_grpc(server.address, batch, requests)
        path, body = ("/api/v1/tasks", ONE) if batch == 1 else ("/api/v1/tasks:batch", many(batch))
        return call_http(server.address, path, body, requests)

    with Server(kind) as server:
        asyncio.run(as_coroutine(call(AT_ONCE if batch == 1 else 1)))
        cpu, began = server.cpu_seconds(), time.perf_counter()
        asyncio.run(as_coroutine(call(tasks // batch)))
        wall, cpu = time.perf_counter() - began, server.cpu_seconds() - cpu
    return numbers(tasks, tasks // batch, wall, cpu)


async def as_coroutine(work: Awaitable[None]) -> None:
    await work


async def _by_the_engine(tasks: int, at_once: int) -> Numbers:
    new = NewTask(agent="agent", input=TASK["input"], labels={"team": "search"})
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER")) as folder:
        async with platform(folder) as ops:
            submit: Callable[[int], Awaitable[Any]] = lambda _number: ops.engine.submit(new)  # noqa: E731
            await lanes(AT_ONCE, AT_ONCE, submit)
            with spending() as spent:
                await lanes(tasks, at_once, submit)
    return numbers(tasks, tasks, spent.wall, spent.cpu)


def by_the_engine(tasks: int, at_once: int) -> Numbers:
    return asyncio.run(_by_the_engine(tasks, at_once))


def numbers(tasks: int, requests: int, wall: float, cpu: float) -> Numbers:
    return {
        "tasks/s per core": tasks / cpu,
        "requests/s per core": requests / cpu,
        "tasks/s": tasks / wall,
        "CPU s per 1,000": 1000 * cpu / tasks,
    }


def main() -> None:
    report = Report("http_submit", max_seconds=400)
    report.compare(
        "one task in each request, 20 connections",
        {
            "a bare Starlette endpoint that stores nothing": partial(over, "bare", 2000),
            "engine.submit, 20 at a time": partial(by_the_engine, 2000, AT_ONCE),
            "POST /tasks": partial(over, "rest", 2000),
            "CreateTask": partial(over, "grpc", 2000),
        },
        rounds=5,
        seconds=60,
        warm_up=False,
    )
    report.compare(
        "many tasks",
        {
            "engine.submit, 1,000 at a time": partial(by_the_engine, 10_000, 1000),
            "POST /tasks": partial(over, "rest", 2000),
            "POST /tasks:batch of 1,000": partial(over, "rest", 20_000, 1000),
            "BatchCreateTasks of 1,000": partial(over, "grpc", 20_000, 1000),
        },
        rounds=5,
        seconds=60,
        warm_up=False,
    )


async def _served_and_called(kind: str) -> None:
    """Server and caller in one process, for the profiler."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER")) as folder:
        async with platform(folder) as ops, serving(ops, worker=False) as [address]:
            place = address.partition("://")[2]
            if kind == "rest":
                await call_http(place, "/api/v1/tasks", ONE, 5000)
            else:
                await call_http(place, "/api/v1/tasks:batch", many(1000), 40)


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case ["--serve", "bare"]:
            asyncio.run(serve_bare())
        case ["--serve", wire]:
            run_lasting(serve_ours(wire))
        case ["--profile", *kinds]:
            for one_kind in kinds or ["rest", "batch"]:
                print(f"\n{one_kind}", file=sys.stderr)
                profile(lambda kind=one_kind: asyncio.run(_served_and_called(kind)))
        case _:
            raise SystemExit(__doc__)
