"""The server as a process of its own: signals, addresses, ports."""

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from ops_core.api.serve import serving
from ops_core.assembly import open_ops
from ops_core.errors import ConfigError
from ops_core.settings import Settings

from .api_support import FAR, Agents  # type: ignore[import-not-found]

SCRIPT = """
import asyncio, sys, time
from agentkit import Agent, tool
from agentkit.messages import ToolCall
from agentkit.testing.models import ScriptedModel
from ops_core.processes.server import run_server as serve
from ops_core.assembly import open_ops
from ops_core.config.catalog import Catalog
from ops_core.config.sandbox import Sandboxing
from ops_core.settings import Settings

@tool(effect="pure")
async def nap() -> str:
    "Sleep."
    await asyncio.sleep(float(sys.argv[2]))
    return "slept"

replies = [ToolCall(id=f"c{n}", name="nap", arguments={}) for n in range(1000)]
napping = Agent(ScriptedModel.by_turn(replies), name="napping", tools=[nap])

async def main():
    settings = Settings(store_url=f"sqlite:///{sys.argv[1]}/ops.db", port=0, grace_seconds=3)
    async with open_ops(settings, Catalog([napping], sandboxing=Sandboxing(default="inprocess"))) as ops:
        await serve(ops, lambda addresses: print(addresses[0], flush=True))
    print("in good order", flush=True)

asyncio.run(main())
"""


@asynccontextmanager
async def process(
    folder: Path, nap_seconds: float
) -> AsyncGenerator[tuple[asyncio.subprocess.Process, httpx2.AsyncClient]]:
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SCRIPT, str(folder), str(nap_seconds)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert running.stdout is not None
    try:
        async with asyncio.timeout(20):
            address = (await running.stdout.readline()).decode().strip()
        async with httpx2.AsyncClient(base_url=address, trust_env=False, timeout=30) as http:
            yield running, http
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


async def submit(http: httpx2.AsyncClient, **fields: object) -> str:
    answer = await http.post("/api/v1/tasks", json={"agent": "napping", "input": "go", **fields})
    task_id: str = answer.json()["id"]
    return task_id


async def steps_of(http: httpx2.AsyncClient, task_id: str, at_least: int) -> None:
    while len((await http.get(f"/api/v1/tasks/{task_id}/steps")).json()["items"]) < at_least:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_server_in_good_order_whoever_is_connected(tmp_path, which):
    async with process(tmp_path, 0.01) as (running, http):
        running_task, later = await submit(http), await submit(http, run_at=FAR)
        await steps_of(http, running_task, 3)
        body = {"agent": "napping", "input": "go", "run_at": FAR}
        waiting = asyncio.ensure_future(http.post("/api/v1/tasks", json=body, headers={"Prefer": "wait=50"}))
        async with http.stream("GET", f"/api/v1/tasks/{later}/events") as stream:
            while len((await http.get("/api/v1/tasks")).json()["items"]) < 3:
                await asyncio.sleep(0.01)
            running.send_signal(which)
            assert [line async for line in stream.aiter_lines()] == []
        assert (await waiting).status_code == 202
        async with asyncio.timeout(30):  # grace, the drain, and room: without a bound it waits 50 s
            out, err = await running.communicate()
        assert (running.returncode, out, err) == (0, b"in good order\n", b"")
    async with open_ops(Settings(store_url=f"sqlite:///{tmp_path}/ops.db")) as ops:
        task = await ops.engine.get("default", running_task)
        assert (task.status, task.attempt) == ("pending", 0)  # let go, not lost


async def test_a_second_signal_ends_the_process_at_once(tmp_path):
    async with process(tmp_path, 60) as (running, http):
        await steps_of(http, await submit(http), 2)
        running.send_signal(signal.SIGTERM)
        with pytest.raises(httpx2.TransportError):
            while True:  # until the first one has arrived
                await http.get("/health/live", headers={"Connection": "close"})
        async with asyncio.timeout(5):
            while running.returncode is None:  # one that comes at once is the first one's echo
                running.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.05)
        assert running.returncode == -signal.SIGTERM


async def test_a_port_that_is_taken_is_a_plain_error(tmp_path):
    first = Settings(store_url=f"sqlite:///{tmp_path}/ops.db", port=0)
    async with open_ops(first, Agents()) as ops, serving(ops) as [address]:
        port = int(address.rpartition(":")[2])
        second = Settings(store_url=f"sqlite:///{tmp_path}/ops.db", port=port)
        async with open_ops(second, Agents()) as other:
            with pytest.raises(ConfigError, match=f"port {port}: Address already in use"):
                async with serving(other):
                    pass


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
async def test_the_addresses_that_are_announced_answer(tmp_path, host):
    before = signal.getsignal(signal.SIGTERM)
    settings = Settings(store_url=f"sqlite:///{tmp_path}/ops.db", host=host, port=0)
    async with open_ops(settings, Agents()) as ops, serving(ops) as addresses:
        assert addresses
        for address in addresses:
            async with httpx2.AsyncClient(trust_env=False) as http:
                assert (await http.get(f"{address}/health/ready")).status_code == 200
    assert signal.getsignal(signal.SIGTERM) is before


async def test_an_answer_does_not_wait_for_an_acknowledgement(tmp_path):
    """A caller who delays his acknowledgements, as kernels do by themselves after a while: 40 ms for each answer."""
    settings = Settings(store_url=f"sqlite:///{tmp_path}/ops.db", port=0)
    async with open_ops(settings, Agents()) as ops, serving(ops) as [address]:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
        now, took = asyncio.get_running_loop().time, []
        for _ in range(60):
            began = now()
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            await reader.readuntil(b'"ok"}')
            took.append(now() - began)
        writer.close()
    assert min(took[30:]) < 0.03
