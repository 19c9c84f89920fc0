"""What is secret stays secret: real processes, servers that repeat what they are sent, and every place looked at."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from ops_core.cli.commands import mcp
from ops_core.cli.exit_codes import Exit

PROGRAM = str(Path(sys.executable).parent / "opspawn")
NAMES = (
    *("PROVIDER_KEY", "SHOP_KEY", "TOOL_KEY", "SERVER_KEY"),
    *("CRUMB", "PAIRED", "SLASHED", "GIVEN", "GITHUB_PAT", "DATABASE_DSN", "PEM"),
)
LITERALS = {"X-Org": "canary-org-1f0e9d8c7b6a", "SECOND": "canary-literal-0a1b2c3d4e"}
GOAL = "Look everywhere."

TOOLS = '''
import os
import sys

from agentkit import ToolContext, tool


@tool(effect="pure")
def tells(context: ToolContext) -> list[str]:
    """Say it in every way."""
    key = os.environ["TOOL_KEY"]
    print(key)
    print(key, file=sys.stderr)
    context.report(f"looking with {key}")
    return [key, f"with {key} within"]


@tool(effect="pure")
def fails() -> str:
    """Fail with it."""
    raise ValueError(f"cannot use {os.environ['TOOL_KEY']}")


@tool(effect="pure")
def looks() -> str:
    """Look for the others."""
    return " ".join(f"{name}={value}" for name, value in os.environ.items())
'''

SERVER = """
import json, os, sys, urllib.parse

KEY = os.environ["SERVER_KEY"]
MORE = [os.environ[name] for name in ("GITHUB_PAT", "SLASHED", "SECOND")] + sys.argv[2:]
MORE += [os.environ["DATABASE_DSN"], os.environ["DATABASE_DSN"].split(":")[2].split("@")[0], *os.environ["PEM"].split()]
MORE += [urllib.parse.quote(each, safe="") for each in MORE] + [json.dumps(each) for each in MORE]
TOOL = {"name": "environment", "description": "Look.", "inputSchema": {"type": "object"}}
print(f"started with {KEY} {MORE}", file=sys.stderr, flush=True)
for each in MORE:
    print("x" * 290 + each, file=sys.stderr, flush=True)  # where lines are shortened
    print("y" * (4090 - len(each)) + each, file=sys.stderr, flush=True)  # where they are read in pieces
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    match asked["method"]:
        case "initialize":
            told = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
            told["serverInfo"] = {"name": "s", "version": "1"}
        case "tools/list":
            told = {"tools": [TOOL]}
        case "tools/call":
            told = {"content": [{"type": "text", "text": f"my key is {KEY}"}], "structuredContent": {KEY: [KEY, *MORE]}}
            told["isError"] = bool(asked["params"].get("arguments", {}).get("fail"))
        case _:
            told = None
    result = {"error": {"code": -32601, "message": f"no {KEY}"}} if told is None else {"result": told}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **result}), flush=True)
"""

FILE = """
[endpoints.echo]
base_url = "{url}/v1"
api_key_env = "PROVIDER_KEY"
headers = {{ X-Org = "canary-org-1f0e9d8c7b6a" }}

[tools.shop]
url = "{url}/shop/{{status}}"
private = true

[tools.shop.headers]
Authorization = "Bearer ${{SHOP_KEY}}"
Cookie = "a=b; sid=${{CRUMB}}"
X-Pair = "id:${{PAIRED}}"

[mcp.servers.away]
command = "{python}"
args = ["-S", "server.py", "--token", "${{GIVEN}}"]
cwd = "away"
effects = {{ "*" = "pure" }}

[mcp.servers.away.env]
SERVER_KEY = "${{SERVER_KEY}}"
GITHUB_PAT = "${{GITHUB_PAT}}"
SLASHED = "${{SLASHED}}"
DATABASE_DSN = "${{DATABASE_DSN}}"
PEM = "${{PEM}}"
SECOND = "canary-literal-0a1b2c3d4e"

[sandbox.tools.tells]
secrets = ["TOOL_KEY"]

[sandbox.tools.fails]
secrets = ["TOOL_KEY"]

[agents.all]
model = "echo:tiny"
tools = ["secret_tools:tells", "secret_tools:fails", "secret_tools:looks", "shop"]
mcp = ["away"]
retries = {{ first_seconds = 0.01 }}
memory = {{ remember = "outcome" }}

[agents.refused]
model = "echo:refuses"
"""

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("tells", {}),
    ("fails", {}),
    ("looks", {}),
    ("shop", {"status": "200"}),
    ("shop", {"status": "403"}),
    ("away__environment", {}),
    ("away__environment", {"fail": True}),
]


class Echo(ThreadingHTTPServer):
    """A provider of models and a shop; in every answer is what they were sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.prompts: list[str] = []
        self.failed = self.repeated = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Echo
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        crumb, pair = self.headers["cookie"].rpartition("=")[2], self.headers["x-pair"].partition(":")[2]
        told = {"sent": dict(self.headers), "alone": [crumb, pair, {quote(pair, safe=""): json.dumps(crumb)}]}
        self._answer(int(self.path.partition("?")[0].rpartition("/")[2]), told)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.prompts.append(json.dumps(asked))
        told = f"what is {self.headers['authorization']}?"
        if asked["model"] == "refuses":
            self._answer(401, {"error": {"message": told, "code": "invalid_api_key"}})
        elif not self.server.failed:
            self.server.failed = True
            self._answer(503, {"error": {"message": told}})
        elif asked["messages"][-1]["role"] == "user":
            calls = [
                {
                    "id": f"c{n}",
                    "type": "function",
                    "function": {"name": name, "arguments": json.dumps(given)},
                }
                for n, (name, given) in enumerate(CALLS)
            ]
            self._say({"role": "assistant", "content": None, "tool_calls": calls}, "tool_calls")
        else:
            key = self.headers["authorization"].partition(" ")[2]
            call = {"name": "tells", "arguments": json.dumps({"key": key})}
            if self.server.repeated:
                self._say({"role": "assistant", "content": f"Nothing. {key} {self.headers['x-org']}"}, "stop")
            else:
                self.server.repeated = True
                calls = [{"id": "again", "type": "function", "function": call}]
                self._say(
                    {"role": "assistant", "content": f"I have {key}", "tool_calls": calls}, "tool_calls"
                )

    def _say(self, message: dict[str, Any], why: str) -> None:
        usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
        choice = {"index": 0, "message": message, "finish_reason": why}
        self._answer(200, {"id": "x", "model": "tiny", "choices": [choice], "usage": usage})

    def _answer(self, status: int, told: dict[str, Any]) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("x-request-id", f"{self.headers['x-org']} {self.headers['authorization']}")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_told: Any) -> None:
        pass


@contextmanager
def echoing() -> Iterator[Echo]:
    with Echo() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


class Place:
    """A folder with a deployment in it, and all that was seen of it, by where."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.keys = {name: f"canary-{name.lower()}-{secrets.token_hex(12)}" for name in NAMES}
        self.keys["SLASHED"] = f"/canary+{secrets.token_hex(12)}/ab="
        password, lines = self.keys["DATABASE_DSN"], [self.keys["PEM"], f"second-{self.keys['PEM']}"]
        brought = {"DATABASE_DSN": f"postgres://app:{password}@db/x", "PEM": "\n".join(lines)}
        self.seen: dict[str, str] = {}
        self.env = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            **self.keys,
            **brought,
            "PYTHONPATH": str(folder),
            "OPSPAWN_PORT": "0",
            "OPSPAWN_GRPC_PORT": "0",
            "OPSPAWN_LOG_LEVEL": "debug",
            "NO_PROXY": "127.0.0.1",
        }
        (folder / "secret_tools.py").write_text(TOOLS)
        (folder / "away").mkdir()
        (folder / "away" / "server.py").write_text(SERVER)
        (folder / "opspawn.toml").write_text(FILE.format(url=url, python=sys.executable))

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The address of a server that carries tasks; what it has logged is seen when it has ended."""
        with (self.folder / "log").open("w+") as log:
            process = subprocess.Popen(
                [PROGRAM, "serve"], cwd=self.folder, env=self.env, stdout=log, stderr=log
            )
            try:
                yield self._address(process)
            finally:
                process.terminate()
                process.wait(30)
                self.seen["log"] = (self.folder / "log").read_text()

    def _address(self, process: subprocess.Popen[bytes]) -> str:
        while process.poll() is None:
            found = re.search(r"http://127\.0\.0\.1:\d+", (self.folder / "log").read_text())
            if found is not None:
                return found[0]
            threading.Event().wait(0.02)
        raise AssertionError((self.folder / "log").read_text())

    def ask(self, address: str, path: str, body: Any = None, **headers: str) -> Any:
        sent = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            address + path, sent, {"content-type": "application/json", **headers}
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            text = answer.read().decode()
        self.seen[path] = self.seen.get(path, "") + text
        return json.loads(text) if "json" in answer.headers["content-type"] else text


@pytest.mark.skipif(
    sys.platform != "linux", reason="tools of opspawn.toml run in the pool, which needs Linux"
)
def test_no_secret_is_told_recorded_or_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    with echoing() as echo:
        place = Place(tmp_path, echo.url)
        for name in NAMES:
            monkeypatch.setenv(name, place.env[name])
        assert asyncio.run(mcp._approve("away", (), yes=True)) is Exit.OK
        place.seen["opspawn mcp approve"] = "".join(capfd.readouterr())
        with place.serving() as address:
            ended = [
                place.ask(address, "/api/v1/tasks", {"agent": agent, "input": GOAL}, Prefer="wait=60")
                for agent in ("all", "refused")
            ]
            for task in ended:
                for more in ("", "/steps", "/events"):
                    place.ask(address, f"/api/v1/tasks/{task['id']}{more}")
            for path in ("/api/v1/agents", "/api/v1/notes", "/metrics", "/health/ready"):
                place.ask(address, path)
        assert [task["status"] for task in ended] == ["completed", "failed"], ended
        place.seen["prompts"] = "\n".join(echo.prompts)
        for file in set(tmp_path.glob("opspawn.*")) - {
            tmp_path / "opspawn.toml"
        }:  # where the literal ones stand
            place.seen[file.name] = file.read_bytes().decode("latin-1")
    steps = place.seen[f"/api/v1/tasks/{ended[0]['id']}/steps"]
    assert "[secret TOOL_KEY]" in steps  # they were there to be told
    assert '"Authorization":"[secret Authorization]"' in steps
    assert "my key is [secret SERVER_KEY]" in steps
    assert "I have [secret api_key]" in steps
    looked_for = {**place.keys, **LITERALS}
    written = {name: {key, key[:-4], quote(key, safe="")} for name, key in looked_for.items()}
    told = {
        (where, name)
        for where, text in place.seen.items()
        for name, forms in written.items()
        if any(form in text for form in forms)
    }
    assert told == set()
