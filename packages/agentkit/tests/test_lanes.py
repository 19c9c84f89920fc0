"""Connections that are taken and put back, against a server that counts them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2
import pytest

from agentkit.models import lanes as lanes_module
from agentkit.models.lanes import Lanes

BODY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Server:
    """Answers every request, once ``full`` have arrived; knows its connections."""

    def __init__(self, full: int = 1) -> None:
        self.connections: list[asyncio.StreamWriter] = []
        self.requests = 0
        self.arrived = asyncio.Event()
        self.closed = 0
        self.all_closed = asyncio.Event()
        self._full = full

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                if self.requests >= self._full:
                    self.arrived.set()
                await self.arrived.wait()
                writer.write(BODY)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.closed += 1
            if self.closed == len(self.connections):
                self.all_closed.set()
            writer.close()


@asynccontextmanager
async def serving(server: Server) -> AsyncGenerator[httpx2.AsyncClient]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with httpx2.AsyncClient(transport=Lanes(tls=False), base_url=url) as client:
        yield client
    await server.all_closed.wait()
    listening.close()


async def ask(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/")).text == "ok"


async def test_requests_one_after_the_other_share_a_connection():
    server = Server()
    async with serving(server) as client:
        for _ in range(5):
            await ask(client)
    assert len(server.connections) == 1


async def test_as_many_connections_as_requests_at_a_time_and_no_more():
    server = Server(full=20)
    async with serving(server) as client:
        for _ in range(3):
            await asyncio.gather(*(ask(client) for _ in range(20)))
    assert len(server.connections) == 20
    assert server.requests == 60


async def test_a_connection_that_the_server_has_closed_is_replaced():
    server = Server()
    async with serving(server) as client:
        await ask(client)
        server.connections[0].close()
        await server.connections[0].wait_closed()
        await ask(client)
    assert len(server.connections) == 2


async def test_a_body_that_is_not_read_closes_its_connection():
    server = Server()
    async with serving(server) as client:
        async with client.stream("GET", "/"):
            pass
        await ask(client)
    assert len(server.connections) == 2


async def test_a_request_that_is_given_up_closes_its_connection():
    server = Server(full=2)
    async with serving(server) as client:
        asking = asyncio.create_task(ask(client))
        while not server.requests:
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking})
        server.arrived.set()
        await ask(client)
    assert len(server.connections) == 2


@pytest.mark.parametrize("kept, seconds, open_after", [(3, 30.0, 3), (100, -1.0, 0), (100, 30.0, 10)])
async def test_connections_that_nobody_uses_are_closed(monkeypatch, kept, seconds, open_after):
    monkeypatch.setattr(lanes_module, "KEPT", kept)
    monkeypatch.setattr(lanes_module, "_KEPT_SECONDS", seconds)
    server = Server(full=10)
    async with serving(server) as client:
        await asyncio.gather(*(ask(client) for _ in range(10)))
        transport = client._transport
        assert isinstance(transport, Lanes)
        assert len(transport._idle) == open_after
