"""The gRPC of `opspawn serve` as a process, driven by a client that is none of ours: buf, over reflection."""

import asyncio
import base64
import json
import re
import signal
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

PROGRAMS = Path(sys.executable).parent
TASKS = "opspawn.v1.TaskService"


@dataclass(kw_only=True)
class Buf:
    """A caller."""

    address: str

    async def ask(self, method: str, code: int = 0, **fields: Any) -> Any:
        """The messages of an answer; of one that is an error, the error."""
        done = await asyncio.create_subprocess_exec(
            PROGRAMS / "buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge",
            "-d", json.dumps(fields), f"{self.address}/{method}",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(30):
            out, err = await done.communicate()
        assert done.returncode == code, err.decode()
        return json.loads(err) if code else [json.loads(part) for part in re.split(rb"(?<=\n)(?={)", out)]


@pytest.fixture
async def buf(tmp_path: Path) -> AsyncGenerator[Buf]:
    server = await asyncio.create_subprocess_exec(
        PROGRAMS / "opspawn", "serve", "--port", "0",
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        async with asyncio.timeout(60):
            while not (found := re.search(rb"grpc://(\S+)", await server.stdout.readline())):
                pass
        yield Buf(address=f"http://{found[1].decode()}")
        server.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            assert await server.wait() == 0
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()


async def test_another_client_submits_watches_and_is_refused(buf):
    given = '{"goal": "count", "n": 9007199254740993, "none": null, "x": 1.0}'
    [answer] = await buf.ask(
        f"{TASKS}/CreateTask", agent="assistant", input_json='"What is 12 * 7?"', wait_seconds=30
    )
    task = answer["task"]
    assert (task["status"], task["outputJson"], answer["created"]) == (
        "TASK_STATUS_COMPLETED",
        '"12 * 7 = 84. (offline model)"',
        True,
    )

    later = {"agent": "assistant", "input_json": given, "run_at": "2999-01-01T00:00:00Z"}
    [accepted] = await buf.ask(f"{TASKS}/CreateTask", **later)
    assert accepted["task"]["runAfter"] == "2999-01-01T00:00:00Z"
    assert accepted["task"]["inputJson"] == given.replace(": ", ":").replace(", ", ",")
    [page] = await buf.ask(f"{TASKS}/ListTasks", page_size=1)
    assert [one["id"] for one in page["tasks"]] == [accepted["task"]["id"]]
    assert page["nextPageToken"]

    events = await buf.ask(f"{TASKS}/WatchTask", task_id=task["id"])
    kinds = [event["step"]["kind"] for event in events[:-1]]
    assert (kinds[0], kinds[-1]) == ("run_started", "finished")
    assert events[-1] == {"end": "TASK_STATUS_COMPLETED"}
    rest = await buf.ask(f"{TASKS}/WatchTask", task_id=task["id"], after=len(kinds) - 2)
    assert rest == events[-2:]

    refused = await buf.ask(f"{TASKS}/CreateTask", code=24, agent="assistant", input_json="{")
    assert refused["code"] == "invalid_argument"
    details = {detail["type"]: base64.b64decode(detail["value"] + "==") for detail in refused["details"]}
    assert ErrorInfo.FromString(details["google.rpc.ErrorInfo"]).reason == "INVALID_REQUEST"
    [violation] = BadRequest.FromString(details["google.rpc.BadRequest"]).field_violations
    assert violation.field == "input_json"

    assert await buf.ask("grpc.health.v1.Health/Check", service=TASKS) == [{"status": "SERVING"}]
    [agents] = await buf.ask("opspawn.v1.AgentService/ListAgents")
    assert agents["agents"][0]["name"] == "assistant"
