"""MCP servers that nobody here wrote: of both generations of the protocol, over standard streams and over HTTP."""

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import pytest_asyncio

from agentkit import Agent, ToolError, ToolProgress
from agentkit.errors import BadArguments, McpUnavailable, ToolTimeout
from agentkit.mcp import McpPool, McpServer
from agentkit.messages import ToolCall
from agentkit.sandbox.backends.jail import find_bubblewrap
from agentkit.testing import ScriptedModel
from agentkit.testing.toolsets import context

from .mcp_servers import (  # type: ignore[import-not-found]
    PEERS,
    clock,
    everything,
    everything_over_http,
    filesystem,
    free_port,
    git,
    is_running,
    memory,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mcp")
    (folder / "note.txt").write_text("hello from a file")
    subprocess.run(["git", "init", "-q", folder], check=True)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(folder):
    """All of them at once, in the jail where one can be made; each is started by the first test that needs it."""
    servers = [everything(), filesystem(folder), memory(folder / "graph.json"), clock(), git(folder)]
    if sys.platform == "linux" and find_bubblewrap() is not None:
        packages = str(PEERS.parent)
        granted = {"everything": (packages,), "files": (packages, str(folder)), "memory": (packages,)}
        kept = {"memory": (str(folder),), "git": (str(folder),)}
        servers = [
            replace(each, sandbox="jail", read=granted.get(each.name, ()), write=kept.get(each.name, ()))
            for each in servers
        ]
    async with McpPool(servers) as pool:
        yield pool


async def call(pool, server, tool, **arguments):
    return await pool.toolset(server).call(
        ToolCall(id="c", name=f"{server}__{tool}", arguments=arguments), context()
    )


async def begun(pool, server):
    """A call of half a minute, once the server has reported that it is at it."""
    reported = asyncio.Event()
    told = replace(context(), report=lambda _text: reported.set())
    arguments = {"duration": 30, "steps": 300}
    wanted = ToolCall(id="c", name=f"{server}__trigger-long-running-operation", arguments=arguments)
    running = asyncio.create_task(pool.toolset(server).call(wanted, told))
    async with asyncio.timeout(10):
        await reported.wait()
    return running


async def test_they_speak_both_revisions(pool):
    listed = await asyncio.gather(*(pool.toolset(name).specs() for name in pool.servers))
    assert all(listed)
    revisions = {name: pool.connection(name).revision for name in pool.servers}
    assert revisions == {
        "everything": "2025-11-25",
        "files": "2025-11-25",
        "memory": "2025-11-25",
        "time": "2026-07-28",
        "git": "2026-07-28",
    }


async def test_each_does_its_work(pool, folder):
    assert await call(pool, "everything", "echo", message="hé") == "Echo: hé"
    read = await call(pool, "files", "read_text_file", path=str(folder / "note.txt"))
    assert "hello from a file" in str(read)
    told = await call(pool, "time", "get_current_time", timezone="Europe/Oslo")
    assert told["timezone"] == "Europe/Oslo"
    assert "note.txt" in str(await call(pool, "git", "git_status", repo_path=str(folder)))
    entity = {"name": "Ada", "entityType": "person", "observations": ["wrote the first program"]}
    await call(pool, "memory", "create_entities", entities=[entity])
    assert "first program" in str(await call(pool, "memory", "read_graph"))


async def test_what_they_refuse_is_told_to_the_model(pool):
    with pytest.raises(ToolError, match="outside allowed directories"):
        await call(pool, "files", "read_text_file", path="/etc/passwd")
    with pytest.raises(ToolError, match="Invalid timezone"):
        await call(pool, "time", "get_current_time", timezone="Nowhere/None")
    with pytest.raises(BadArguments, match="timezone: it is required"):
        await call(pool, "time", "get_current_time")


async def test_structured_output_pictures_links_and_resources_are_kept(pool):
    weather = await call(pool, "everything", "get-structured-content", location="New York")
    assert weather["temperature"] == 33
    picture = await call(pool, "everything", "get-tiny-image")
    assert (
        next(part for part in picture if isinstance(part, dict))["$attachment"]["media_type"] == "image/png"
    )
    links = await call(pool, "everything", "get-resource-links", count=2)
    assert [part["type"] for part in links if isinstance(part, dict)] == ["resource_link", "resource_link"]
    embedded = await call(pool, "everything", "get-resource-reference", resourceType="Blob", resourceId=2)
    blob = next(part for part in embedded if isinstance(part, dict))
    assert blob["uri"]
    assert blob["content"]["$attachment"]["data"]

    listed = await call(pool, "everything", "list_resources")
    uri = next(each["uri"] for each in listed["resources"] if each["name"] == "architecture.md")
    assert "Architecture" in await call(pool, "everything", "read_resource", uri=uri)
    with pytest.raises(ToolError):
        await call(pool, "everything", "read_resource", uri="demo://nothing")


async def test_a_picture_reaches_the_model_as_a_picture(pool):
    model = ScriptedModel([ToolCall(id="c", name="everything__get-tiny-image", arguments={}), "A logo."])
    await Agent(model, tools=[pool.toolset("everything")]).run("What is in the picture?")
    result = model.requests[1].messages[-1]
    assert "[attachment 1: image/png]" in result.content
    assert "iVBOR" not in result.content
    assert result.attachments[0].data.startswith(b"\x89PNG")


async def test_progress_is_shown(pool):
    shown = []
    model = ScriptedModel(
        [
            ToolCall(
                id="c",
                name="everything__trigger-long-running-operation",
                arguments={"duration": 0.3, "steps": 3},
            ),
            "done",
        ]
    )
    agent = Agent(model, tools=[pool.toolset("everything")])
    await agent.run(
        "go", on_event=lambda event: shown.append(event) if isinstance(event, ToolProgress) else None
    )
    assert [event.text for event in shown][:3] == ["1 of 3", "2 of 3", "3 of 3"]


async def test_a_server_is_killed_in_mid_call_and_is_there_again(folder):
    server, before = everything("killed"), children()
    async with McpPool([server]) as pool:
        await call(pool, "killed", "echo", message="a")
        running = await begun(pool, "killed")
        (pid,) = children() - before
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(McpUnavailable, match=r"exit code -9.*not known whether"):
            await running
        assert await call(pool, "killed", "echo", message="b") == "Echo: b"
        (pid,) = children() - before
    assert not is_running(pid)


def children():
    """The processes that this one has started."""
    command = ["ps", "--ppid", str(os.getpid()), "-o", "pid=,args="]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {int(line.split()[0]) for line in listed if "ps --ppid" not in line}


async def test_a_server_over_http_is_killed_in_mid_call_restarted_and_found_again():
    port = free_port()
    server = McpServer(
        name="http", url=f"http://127.0.0.1:{port}/mcp", call_seconds=20, effects={"echo": "pure"}
    )
    async with McpPool([server]) as pool:
        async with everything_over_http(port) as process:
            assert await call(pool, "http", "echo", message="a") == "Echo: a"
            running = await begun(pool, "http")
            process.kill()
            with pytest.raises(McpUnavailable, match="not known whether"):
                await running
        with pytest.raises(McpUnavailable, match="cannot be reached"):
            await call(pool, "http", "echo", message="b")
        async with everything_over_http(port):
            pool.connection("http")._not_before = 0.0  # as if the pause were over
            assert await call(pool, "http", "echo", message="c") == "Echo: c"
        async with everything_over_http(port):  # between two calls: it knows nothing of our session
            assert await call(pool, "http", "trigger-long-running-operation", duration=0.1, steps=1)
            with pytest.raises(ToolTimeout):
                slow = McpServer(name="slow", url=server.url, call_seconds=0.3)
                async with McpPool([slow]) as impatient:
                    await call(impatient, "slow", "trigger-long-running-operation", duration=30, steps=100)
