"""Where the requests to a server with a url may go: what the operator has written, and nothing that others choose."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from agentkit.errors import McpUnavailable
from agentkit.mcp import McpOAuth, McpPool, McpServer, TokenFolder
from agentkit.mcp.hosts import hosts_of
from agentkit.messages import ToolCall
from agentkit.testing.toolsets import context

from .oauth_mcp import Agrees, oauth_peers  # type: ignore[import-not-found]


@asynccontextmanager
async def listening(answer=b""):
    """A port of the loopback that answers everything alike. Gives it, and how often somebody came."""
    came = []

    async def serve(reader, writer):
        came.append(await reader.read(10))
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], came


@pytest.fixture
def leads(monkeypatch):
    """Names lead where the test says."""
    known: dict[str, str] = {}

    async def addresses_of(host, port):
        if host in known:
            return [known[host]]
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [str(each[4][0]) for each in found]

    monkeypatch.setattr("agentkit.net.http_client._addresses_of", addresses_of)
    return known


async def problem_of(server, **more):
    async with McpPool([server], **more) as pool:
        with pytest.raises(McpUnavailable) as caught:
            await pool.toolset(server.name).specs()
    return str(caught.value)


@pytest.mark.parametrize("host", ["tickets.example.com", "127.1", "2130706433", "0x7f000001", "localhost."])
async def test_a_name_that_leads_inside_is_not_followed(host, leads):
    leads |= {"tickets.example.com": "127.0.0.1", "localhost.": "127.0.0.1"}
    async with listening() as (port, came):
        told = await problem_of(McpServer(name="x", url=f"http://{host}:{port}/mcp", connect_seconds=5))
    assert came == []
    assert "has an address that is not public (with `private = true` it is reached)" in told


async def test_what_the_operator_has_written_is_reached(leads):
    leads["tickets.internal"] = "127.0.0.1"
    async with listening() as (port, came):
        for url, private in (
            (f"http://127.0.0.1:{port}/mcp", False),
            (f"http://localhost:{port}/mcp", False),
            (f"http://tickets.internal:{port}/mcp", True),
        ):
            before = len(came)
            await problem_of(McpServer(name="x", url=url, private=private))
            assert len(came) > before, url


async def test_a_redirect_leads_to_no_other_place():
    async with listening() as (inside, came):
        where = f"http://127.0.0.1:{inside}/mcp"
        moved = f"HTTP/1.1 307 Moved\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode()
        async with listening(moved) as (port, asked):
            await problem_of(McpServer(name="x", url=f"http://127.0.0.1:{port}/mcp"))
    assert asked
    assert came == []


async def test_an_authorization_server_that_the_mcp_server_names_is_not_followed_inside(tmp_path):
    """A person is there, and would agree: but nobody has said that this machine may be asked for tokens."""
    async with oauth_peers() as peers, listening() as (port, came):
        peers.issuer = f"http://127.0.0.1:{port}"
        server = McpServer(name="x", url=peers.url, oauth=McpOAuth())
        told = await problem_of(server, tokens=TokenFolder(tmp_path), login=Agrees())
    assert "may be asked for tokens by https alone" in told
    assert came == []


@pytest.mark.parametrize("scheme, address", [("https", "127.0.0.1"), ("https", "10.0.0.7"), ("https", "::1")])
async def test_nor_by_https_nor_by_a_name(scheme, address, leads, tmp_path):
    leads["auth.example.com"] = address
    async with oauth_peers() as peers:
        peers.issuer = f"{scheme}://auth.example.com"
        server = McpServer(name="x", url=peers.url, oauth=McpOAuth())
        told = await problem_of(server, tokens=TokenFolder(tmp_path), login=Agrees())
    assert "auth.example.com has an address that is not public" in told


async def test_an_issuer_that_is_declared_as_an_address_is_reached(tmp_path):
    async with oauth_peers() as peers:
        server = McpServer(name="x", url=peers.url, oauth=McpOAuth(issuer=peers.issuer))
        async with McpPool([server], tokens=TokenFolder(tmp_path), login=Agrees()) as pool:
            add = ToolCall(id="c", name="x__add", arguments={"a": 2, "b": 3})
            assert await pool.toolset("x").call(add, context()) == {"result": 5}


def test_without_authorization_no_other_host_is_asked():
    from agentkit.errors import AddressRefused

    rule_for = hosts_of(McpServer(name="x", url="https://x.example.com/mcp"))
    assert not rule_for("https", "X.example.com", 443).private
    for other in (
        ("https", "y.example.com", 443),
        ("https", "x.example.com", 444),
        ("http", "x.example.com", 443),
    ):
        with pytest.raises(AddressRefused, match="is not the host of x"):
            rule_for(*other)
