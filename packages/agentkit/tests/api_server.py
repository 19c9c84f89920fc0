"""A small API on loopback, and what tests of tools over HTTP need beside it."""

import asyncio
import json
from http import HTTPStatus
from typing import Any

from agentkit.messages import ToolCall
from agentkit.net.http_client import GuardedClient
from agentkit.ports import ToolContext
from agentkit.sandbox import HostRule
from agentkit.tools import HttpToolset

SECRET = "Bearer sk-0123456789"


class Api:
    """A small API on loopback that tells what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.kind = "application/json"
        self.body: bytes | None = None
        self.extra = ""
        self.heads: list[str] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def client(self) -> GuardedClient:
        rule = HostRule(host="127.0.0.1", port=self.port, private=True)
        return GuardedClient(hosts=[rule], schemes=["http"])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(head)
        first, *lines = head.strip().split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _colon, value in (line.partition(":") for line in lines)
        }
        sent = (await reader.readexactly(int(headers.get("content-length", "0")))).decode()
        method, target, _version = first.split(" ")
        told = {
            "method": method,
            "target": target,
            "headers": headers,
            "body": json.loads(sent) if sent else None,
        }
        body = json.dumps(told).encode() if self.body is None else self.body
        answer = f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\ncontent-type: {self.kind}\r\n{self.extra}"
        writer.write(f"{answer}content-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()


async def called(toolset: HttpToolset, tool: str, /, **arguments: Any) -> Any:
    context: ToolContext[Any] = ToolContext(
        deps=None, run_id="run", call_id="call", idempotency_key="run:call"
    )
    return await toolset.call(ToolCall(id="call", name=tool, arguments=arguments), context)


def schema(*required: str, **properties: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in properties.items()},
        "required": [*required],
        "additionalProperties": False,
    }
