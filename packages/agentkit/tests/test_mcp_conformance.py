"""The official conformance suite of MCP against our client: every scenario that a revision requires.

The scenarios run against :class:`agentkit.mcp.McpPool`, as agents use it: the toolset lists the tools and calls them.
"""

import asyncio
import json
import re
import sys
import tempfile
import traceback
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from agentkit.mcp import McpOAuth, McpPool, McpServer, TokenFolder
from agentkit.messages import ToolCall
from agentkit.testing.toolsets import context

from .mcp_servers import node, peer  # type: ignore[import-not-found]
from .oauth_mcp import Agrees  # type: ignore[import-not-found]

COURIER = Path(__file__).parent / "mcp_courier.py"
METADATA_URL = "https://conformance-test.local/client-metadata.json"


async def agrees(server, message, schema):
    assert message
    assert schema["type"] == "object"
    return {}


def some(schema: Any) -> Any:
    """A value that a schema of an argument allows."""
    match schema.get("type"):
        case "object":
            needed = {name: schema["properties"][name] for name in schema.get("required", ())}
            return {name: some(each) for name, each in needed.items()}
        case "number" | "integer":
            return 5
        case "boolean":
            return True
        case _:
            return "some"


async def issuer_of(url: str) -> str:
    """The authorization server, which whoever has a secret for it knows."""
    place = urlsplit(url)
    async with httpx2.AsyncClient(timeout=60) as http:  # forty scenarios begin at once
        about = await http.get(f"http://{place.netloc}/.well-known/oauth-protected-resource{place.path}")
    return str(about.json()["authorization_servers"][0])


async def declared(scenario: str, url: str, told: dict[str, Any]) -> McpServer:
    oauth = None
    if scenario == "auth/client-credentials-basic":
        oauth = McpOAuth(
            grant="client_credentials",
            client_id=told["client_id"],
            client_secret=told["client_secret"],
            issuer=await issuer_of(url),
        )
    elif scenario.startswith("auth/"):
        oauth = McpOAuth(
            client_id=told.get("client_id"),
            client_secret=told.get("client_secret"),
            issuer=told.get("issuer"),
            client_metadata_url=METADATA_URL,
            hosts=("localhost",),
        )
    return McpServer(name="peer", url=url, oauth=oauth, call_seconds=60)


async def play(scenario: str, url: str, told: dict[str, Any]) -> None:
    """What an agent does: see which tools there are, and call them."""
    with tempfile.TemporaryDirectory() as folder:
        tokens = TokenFolder(folder)
        server = await declared(scenario, url, told)
        async with McpPool([server], tokens=tokens, login=Agrees(), elicit=agrees) as pool:
            toolset = pool.toolset("peer")
            wanted = {spec.name: some(spec.parameters) for spec in await toolset.specs()}
            if "peer__json_schema_echo" in wanted:
                (seen,) = (spec.parameters for spec in await toolset.specs() if "2020" in spec.name)
                wanted["peer__json_schema_echo"] = {"schema": seen}
            calls = [(f"peer__{call['name']}", call["arguments"]) for call in told.get("toolCalls", ())]
            for name, arguments in calls or wanted.items():
                await toolset.call(ToolCall(id="c", name=name, arguments=arguments), context())


@asynccontextmanager
async def clients(folder: Path):
    """Plays what couriers bring. Gives the command that starts one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told = json.loads(await reader.readline())
        code, said = 0, ""
        try:
            await play(told["scenario"], told["url"], told["context"])
        except Exception:
            code, said = 1, traceback.format_exc()
        writer.write(json.dumps({"code": code, "said": said}).encode() + b"\n")
        writer.close()

    address = folder / "s"
    async with await asyncio.start_unix_server(serve, address, limit=1 << 20):
        yield f"{sys.executable} -I -S {COURIER} {address}"


# Beside what is required, and passed: what else of OAuth we have, and schemas that are kept as they are.
BESIDE = {"auth/client-credentials-basic", "json-schema-2020-12-preservation"}
# Ways of OAuth that nobody has to have, and we have not.
EXTENSIONS = {
    "auth/client-credentials-jwt",
    "auth/enterprise-managed-authorization",
    "auth/dpop",
    "auth/dpop-nonce",
    "auth/wif-jwt-bearer",
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("revision, required", [("2026-07-28", 32), ("2025-11-25", 18)])
async def test_every_scenario_that_is_required_of_clients_passes(revision, required):
    suite = peer("conformance")
    with tempfile.TemporaryDirectory() as short:  # the address of a socket has some hundred characters
        async with clients(Path(short)) as command:
            process = await asyncio.create_subprocess_exec(
                *(node(), suite, "client", "--command", command, "--requirements", revision),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            said = (await process.communicate())[0].decode()
    results = dict(
        re.findall(r"^[✓✗] (\S+): (\d+ passed, .*)$", said.partition("SUITE SUMMARY")[2], re.MULTILINE)
    )
    assert process.returncode == 0, said
    assert sum(1 for name in results if name not in EXTENSIONS | BESIDE) == required
    unmet = {name: told for name, told in results.items() if "passed, 0 failed" not in told}
    assert unmet.keys() <= EXTENSIONS, said
    assert results.keys() >= BESIDE
