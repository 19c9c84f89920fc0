"""Programs that speak MCP, in the jail: what a hostile one tries, looked at from outside."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from agentkit.errors import McpUnavailable, ToolError
from agentkit.mcp import McpPool, McpServer
from agentkit.mcp.executables import needed
from agentkit.messages import ToolCall
from agentkit.sandbox import HostRule
from agentkit.sandbox.backends.jail import find_bubblewrap
from agentkit.testing.toolsets import context

pytestmark = pytest.mark.skipif(sys.platform != "linux" or find_bubblewrap() is None, reason="no jail here")
in_one_loop = pytest.mark.asyncio(loop_scope="module")

PRYING = Path(__file__).parent / "prying_mcp_server.py"


def processes(mark: str) -> list[int]:
    """Those on this machine that were started with ``mark``."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if mark.encode() in words:
                found.append(int(folder.name))
    return found


async def gone(mark: str) -> None:
    async with asyncio.timeout(20):
        while processes(mark):
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jail")
    for name in ("secret", "shown", "kept"):
        (folder / name).mkdir()
        (folder / name / "note").write_text(f"of {name}")
    return folder


@pytest.fixture(scope="module")
def mark():
    return f"mark-{uuid.uuid4()}"


def prying(mark, **declared):
    args = ("-S", str(PRYING), mark)
    fields = {"read": (str(PRYING),), "sandbox": "jail", "call_seconds": 20.0, **declared}
    return McpServer(name="prying", command=sys.executable, args=args, **fields)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def attempt(folder, mark):
    """What came of something that the server has tried."""
    server = prying(
        mark,
        read=(str(PRYING), "shown"),
        write=("kept",),
        env={"MINE": "${TOKEN}"},
        cwd="shown",
    )
    variables = {**os.environ, "TOKEN": "t-1", "OPENAI_API_KEY": "sk-secret"}
    async with McpPool([server], variables=variables, folder=str(folder)) as pool:
        toolset = pool.toolset("prying")

        async def attempt(what, argument=None):
            call = ToolCall(id="c", name=f"prying__{what}", arguments={"what": argument})
            return json.loads(str(await toolset.call(call, context())))

        yield attempt


@in_one_loop
async def test_it_reads_and_changes_what_it_is_granted_and_nothing_else(attempt, folder):
    assert await attempt("reads", str(folder / "shown/note")) == "of shown"
    assert await attempt("reads", "note") == "of shown"  # it runs there
    assert await attempt("reads", str(folder / "kept/note")) == "of kept"
    assert await attempt("writes", str(folder / "kept/new")) == "written"
    assert (folder / "kept/new").read_text() == "written"
    for path in (folder / "shown/new", Path("/usr/new"), Path("/etc/new")):
        with pytest.raises(ToolError, match="Error"):
            await attempt("writes", str(path))
        assert not path.exists()
    beside = folder / "secret/new"
    with suppress(ToolError):  # below /tmp it may make folders of its own
        await attempt("writes", str(beside))
    assert not beside.exists()
    own = [str(Path(__file__)), str(folder / "secret/note"), "/etc/shadow", "/proc/1/environ"]
    for path in [*own, str(Path.home()), "../secret/note"]:
        with pytest.raises(ToolError, match="Error"):
            await attempt("reads", path)
    with pytest.raises(ToolError, match="Error"):
        await attempt("lists", str(folder / "secret"))
    with suppress(ToolError):  # the jail may have one of its own
        assert "root:" not in await attempt("reads", "/etc/passwd")


@in_one_loop
async def test_it_sees_its_own_variables_and_its_own_processes(attempt):
    seen = await attempt("environment")
    assert seen["MINE"] == "t-1"
    assert not {"OPENAI_API_KEY", "TOKEN"} & seen.keys()
    assert len(await attempt("finds_processes")) < 6


@in_one_loop
async def test_it_reaches_nobody(attempt):
    came = []
    async with await asyncio.start_server(lambda *streams: came.append(streams), "127.0.0.1", 0) as server:
        with pytest.raises(ToolError, match="Error"):
            await attempt("connects", server.sockets[0].getsockname()[1])
    assert came == []


@in_one_loop
async def test_it_reaches_a_host_that_is_granted(mark):
    came = []

    async def serve(_reader, writer):
        came.append(writer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        rule = HostRule(host="127.0.0.1", port=port, private=True)
        async with McpPool([prying(f"{mark}-granted", hosts=(rule,))]) as pool:
            call = ToolCall(id="c", name="prying__connects", arguments={"what": port})
            assert "connected" in str(await pool.toolset("prying").call(call, context()))
    assert came


@in_one_loop
async def test_what_it_says_beside_its_messages_does_not_pile_up(attempt):
    assert await attempt("floods") == "flooded"


@in_one_loop
async def test_it_may_not_use_all_memory_and_is_started_again(attempt):
    with pytest.raises(ToolError, match=r"MemoryError|memory"):
        await attempt("eats")
    assert await attempt("environment")


@in_one_loop
async def test_nothing_is_left_of_it_when_the_pool_is(mark, folder):
    own = f"{mark}-own"
    async with McpPool([prying(own)]) as pool:
        call = ToolCall(id="c", name="prying__stays", arguments={"what": own})
        assert "it stays" in str(await pool.toolset("prying").call(call, context()))
        assert len(processes(own)) >= 2  # itself, and what it has left
    assert processes(own) == []


@in_one_loop
async def test_nothing_is_left_of_it_when_the_worker_is_killed(mark):
    own = f"{mark}-killed"
    code = f"""
import asyncio, sys
from agentkit.mcp import McpPool, McpServer
from agentkit.messages import ToolCall
from agentkit.testing.toolsets import context

async def main():
    server = McpServer(name="prying", command=sys.executable, args=("-S", {str(PRYING)!r}, {own!r}),
                       read=({str(PRYING)!r},), sandbox="jail")
    async with McpPool([server]) as pool:
        call = ToolCall(id="c", name="prying__stays", arguments={{"what": {own!r}}})
        print(await pool.toolset("prying").call(call, context()), flush=True)
        await asyncio.sleep(300)

asyncio.run(main())
"""
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    assert worker.stdout is not None
    async with asyncio.timeout(60):
        assert b"it stays" in await worker.stdout.readline()
    assert len(processes(own)) >= 2
    worker.send_signal(signal.SIGKILL)
    await worker.wait()
    await gone(own)
    worker._transport.close()  # type: ignore[attr-defined]  # it would warn when it is collected


@in_one_loop
async def test_one_that_is_killed_is_told_and_started_again(mark):
    own = f"{mark}-dies"
    async with McpPool([prying(own)]) as pool:
        toolset = pool.toolset("prying")
        call = ToolCall(id="c", name="prying__environment", arguments={})
        assert await toolset.call(call, context())
        (pid,) = processes(own)
        live = pool.connection("prying")._live
        assert live is not None
        os.kill(pid, signal.SIGKILL)
        await asyncio.wait({live.over}, timeout=20)
        assert await toolset.call(call, context())
        assert processes(own) not in ([], [pid])


# --- what is told -------------------------------------------------------------------------------------------------


async def problem_of(server, **more):
    async with McpPool([server], **more) as pool:
        with pytest.raises(McpUnavailable) as caught:
            await pool.toolset(server.name).specs()
        return f"{caught.value} // {pool.connection(server.name).last_words}"


@in_one_loop
async def test_one_that_misses_a_file_is_told_what_to_do():
    told = await problem_of(prying("x", read=()))
    assert "exit code 2" in told
    assert 'what is granted (read, write); where it is trusted, sandbox = "none"' in told
    assert "No such file or directory" in told.partition(" // ")[2]


@in_one_loop
async def test_one_that_waits_for_the_network_is_told_what_to_do():
    script = "echo fetching >&2; sleep 60"
    told = await problem_of(
        McpServer(name="x", command="/bin/sh", args=("-c", script), sandbox="jail", connect_seconds=3)
    )
    assert "no answer within 3 s; in the jail it reaches what is granted (hosts)" in told
    assert told.endswith("// fetching")


@in_one_loop
async def test_one_that_does_not_exist_is_told():
    told = await problem_of(McpServer(name="x", command="no-such-program", sandbox="jail"))
    assert "the program cannot be started: No such file or directory" in told
    told = await problem_of(McpServer(name="x", command="./no-such-program", sandbox="jail"))
    assert "No such file or directory" in told


@in_one_loop
async def test_a_path_that_does_not_exist_is_told_before_anything_is_started(tmp_path):
    server = prying("x", read=("nowhere",))
    pool = McpPool([server], folder=str(tmp_path))
    assert pool.problem_of("prying") == f"{tmp_path}/nowhere is granted, and does not exist"
    assert "nowhere is granted, and does not exist" in await problem_of(server, folder=str(tmp_path))


def test_where_no_jail_can_be_made_it_is_told_what_to_do(monkeypatch):
    monkeypatch.setattr("agentkit.mcp.pool.find_bubblewrap", lambda: None)
    told = str(McpPool([prying("x")]).problem_of("prying"))
    assert "bubblewrap" in told
    assert 'sandbox = "none"' in told
    assert McpPool([McpServer(name="x", command="x")]).problem_of("x") is None


# --- what is shown without a word ---------------------------------------------------------------------------------


def test_an_installation_is_shown_and_what_is_beside_it_is_not(tmp_path):
    local = tmp_path / ".local"
    for path in ("bin", "lib/python3.11/site-packages", "share/keyrings", "state/opspawn"):
        (local / path).mkdir(parents=True)
    tool = local / "bin/tool"
    tool.write_text("#!/usr/bin/env -S python3 -x\n")
    tool.chmod(0o755)
    shown = needed(str(tool), {"PATH": "/usr/bin:/bin"})
    assert str(local / "bin") in shown
    assert not [path for path in shown if "share" in path or "state" in path or path == str(local)]
    alone = tmp_path / "tool"
    shutil.copy(tool, alone)
    assert needed(str(alone), {"PATH": "/usr/bin:/bin"})[0] == str(alone)
    assert needed("/usr/bin/env", {}) == []
