"""A real server on a free port of the loopback, and agents that do what a test decides."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from agentkit import Agent, tool
from agentkit.errors import ModelBadRequest
from agentkit.memories import AgentMemory
from agentkit.messages import ToolCall
from agentkit.models.resilience.rate_limiter import RateLimits
from agentkit.testing.models import ScriptedModel
from ops_core.assembly import Ops, open_ops
from ops_core.config.catalog import Catalog
from ops_core.config.model_terms import ModelTerms
from ops_core.processes.server import serving_all
from ops_core.settings import Settings
from ops_core.spending import Spending

NOWHERE = "01996c2e-5d1a-7c3e-9f60-2b1f3c8a4d77"
"""A well-formed id that no task has."""

FAR = "2999-01-01T00:00:00Z"


@tool(effect="pure", approval=True, sandbox="inprocess")
def launch(rocket: str) -> str:
    """Launch a rocket."""
    return f"{rocket} is on its way"


class Agents(Catalog):
    """``quick`` answers, ``failing`` fails, ``asking`` asks before it launches, ``held`` waits for ``gate``,
    ``knowing`` has a memory of each ``user``.
    """

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        ask = ToolCall(id="call_1", name="launch", arguments={"rocket": "V2 – Ωμέγα"})
        super().__init__(
            [
                Agent(ScriptedModel.by_turn(["done"]), name="quick"),
                Agent(ScriptedModel.by_turn({0: ModelBadRequest("no")}), name="failing"),
                Agent(ScriptedModel.by_turn([ask, "launched"]), name="asking", tools=[launch]),
                Agent(ScriptedModel.by_turn({0: self._held}), name="held"),
                Agent("offline:planner", name="a/b", instructions="A name with a slash."),
                Agent("offline:planner", name="knowing", memory=AgentMemory(memory="database", per="user")),
            ],
            terms=ModelTerms(
                limits={"limited": RateLimits(concurrency=1)}, spending=Spending(tenants={"other": 1.0})
            ),
        )

    async def _held(self, _request: Any) -> str:
        await self.gate.wait()
        return "released"


@dataclass(kw_only=True)
class Stage:
    """A running server, and what is behind it."""

    ops: Ops
    agents: Agents
    url: str
    grpc_url: str
    closing: asyncio.Event
    http: httpx2.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx2.AsyncClient(base_url=self.url, trust_env=False, timeout=20)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def submit(self, agent: str = "quick", **fields: Any) -> dict[str, Any]:
        body = {"agent": agent, "input": "go", **fields}
        return await self.json("POST", "/api/v1/tasks", json=body, headers={"Prefer": "wait=0"}, expected=202)

    async def json(self, method: str, path: str, *, expected: int = 200, **options: Any) -> dict[str, Any]:
        answer = await self.http.request(method, path, **options)
        assert answer.status_code == expected, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def until(self, task_id: str, *statuses: str) -> dict[str, Any]:
        """The task as soon as it is in one of these statuses."""
        async with asyncio.timeout(10):
            while True:
                task = await self.json("GET", f"/api/v1/tasks/{task_id}")
                if task["status"] in statuses:
                    return task
                await asyncio.sleep(0.01)


@asynccontextmanager
async def staged(folder: Path, *more: Agent[Any, Any], **settings: Any) -> AsyncIterator[Stage]:
    agents, closing = Agents(), asyncio.Event()
    for agent in more:
        agents.add(agent)
    chosen = Settings(store_url=f"sqlite:///{folder}/ops.db", port=0, grace_seconds=5, **settings)
    async with open_ops(chosen, agents) as ops, serving_all(ops, closing) as [url, grpc_url]:
        stage = Stage(ops=ops, agents=agents, url=url, grpc_url=grpc_url, closing=closing)
        async with stage.http:
            yield stage
            agents.gate.set()  # nobody is held when the server stops


async def raw(port: int, *sent: bytes) -> tuple[int, dict[str, str], Any]:
    """Send bytes as they are, and read one answer: status, headers (names in small letters), JSON."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with suppress(ConnectionError):  # refused before all was sent; the answer is there
        for part in sent:
            writer.write(part)
            await writer.drain()
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    writer.close()
    return int(head[0].split()[1]), headers, json.loads(body) if body else None
