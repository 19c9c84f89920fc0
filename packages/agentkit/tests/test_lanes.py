"""Connections that are taken and put back, against a server that counts them."""

import asyncio
import datetime as dt
import ipaddress
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agentkit.models.adapter import connection_pool as lanes_module
from agentkit.models.adapter.connection_pool import Lanes

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
    async with httpx2.AsyncClient(transport=Lanes(tls=None), base_url=url) as client:
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


# --- what a server may send ----------------------------------------------------------------------------------------

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def answering(
    serve: Serve, *, tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None
) -> AsyncGenerator[tuple[httpx2.AsyncClient, list[asyncio.StreamWriter]]]:
    """A client of a server that serves each of its connections so; and these connections."""
    writers: list[asyncio.StreamWriter] = []
    tasks: list[asyncio.Task[None]] = []

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        tasks.append(cast("asyncio.Task[None]", asyncio.current_task()))
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(one, "127.0.0.1", 0, ssl=tls and tls[0])
    url = f"http{'s' if tls else ''}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    lanes = Lanes(tls=tls and tls[1])
    async with httpx2.AsyncClient(transport=lanes, base_url=url, timeout=5) as client:
        yield client, writers
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks)
    listening.close()


def always(answer: bytes, *, then_close: bool = False) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(answer)
            await writer.drain()
            if then_close:
                return

    return serve


WHOLE = [
    (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", 1),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n", 1),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", 1),
    (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello", 2),
    (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", 2),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", 2),
]


@pytest.mark.parametrize("answer, connections", WHOLE)
async def test_a_whole_response_and_whether_its_connection_is_used_again(answer, connections):
    """What nobody has asked for is the answer to no later request."""
    async with answering(always(answer)) as (client, writers):
        for _ in range(2):
            assert (await client.get("/")).text == "hello"
        assert len(writers) == connections


async def test_a_body_that_ends_with_its_connection():
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 3_000_000  # more than is kept before the server has to wait
    async with answering(always(answer, then_close=True)) as (client, writers):
        for _ in range(2):
            assert len((await client.get("/")).content) == 3_000_000
        assert len(writers) == 2


BROKEN = [
    (b"", httpx2.RemoteProtocolError),
    (b"HTTP/1.1 200", httpx2.RemoteProtocolError),
    (b"nonsense\r\n\r\n", httpx2.RemoteProtocolError),
    (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", httpx2.RemoteProtocolError),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", httpx2.RemoteProtocolError),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 4\r\n\r\nhello", httpx2.RemoteProtocolError),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", httpx2.RemoteProtocolError),
    (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000 + b"\r\n\r\n", httpx2.RemoteProtocolError),
]


@pytest.mark.parametrize("answer, error", BROKEN)
async def test_a_response_that_is_none_is_an_error_and_costs_the_connection(answer, error):
    async with answering(always(answer, then_close=True)) as (client, _writers):
        with pytest.raises(error):
            await client.get("/")
        transport = client._transport
        assert isinstance(transport, Lanes)
        assert not transport._idle


async def test_an_answer_that_comes_before_the_request_is_sent_whole():
    """A server that refuses a large request hangs up while it is sent to."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno")
        await writer.drain()
        writer.write_eof()
        while await reader.read(65536):
            pass

    async with answering(refuse) as (client, _writers):
        response = await client.post("/", content=b"x" * 8_000_000)
        assert (response.status_code, response.text) == (413, "no")


async def test_a_request_in_pieces_arrives_whole():
    got: list[bytes] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head.lower()
        got.append(await reader.readuntil(b"0\r\n\r\n"))
        writer.write(BODY)

    async def pieces() -> AsyncGenerator[bytes]:
        for piece in (b"one", b"two", b"three"):
            yield piece

    async with answering(keep) as (client, _writers):
        assert (await client.post("/", content=pieces())).text == "ok"
    assert got == [b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"]


async def never(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.Event().wait()


async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe")
    await asyncio.Event().wait()


async def deaf(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "serve, error", [(never, httpx2.ReadTimeout), (half, httpx2.ReadTimeout), (deaf, httpx2.WriteTimeout)]
)
async def test_each_wait_for_a_server_has_its_limit(serve, error):
    limits = httpx2.Timeout(5, read=0.05, write=0.05)
    async with answering(serve) as (client, writers):
        with pytest.raises(error):
            await client.post("/", content=b"x" * 20_000_000 if serve is deaf else b"x", timeout=limits)
        assert len(writers) == 1


async def test_a_place_where_nobody_listens_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with httpx2.AsyncClient(transport=Lanes(tls=None)) as client:
            with pytest.raises(httpx2.ConnectError, match=rf"127\.0\.0\.1.*{port}"):
                await client.get(f"http://127.0.0.1:{port}/")
            with pytest.raises(httpx2.UnsupportedProtocol):
                await client.get("ftp://127.0.0.1/")


async def test_a_connection_is_for_one_server():
    here, there = Server(), Server()
    async with serving(here) as client:
        await ask(client)
        elsewhere = await asyncio.start_server(there.serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{elsewhere.sockets[0].getsockname()[1]}/"
        assert (await client.get(url)).text == "ok"
        elsewhere.close()
    assert (here.requests, there.requests) == (1, 1)


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server on the loopback, and of a client that trusts it."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    today = dt.datetime.now(dt.UTC)
    place = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - dt.timedelta(days=1))
        .not_valid_after(today + dt.timedelta(days=1))
        .add_extension(place, critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (tmp_path / "both.pem").write_bytes(secret + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "both.pem")
    return server, ssl.create_default_context(cadata=pem.decode())


async def test_a_server_over_tls(tls):
    async with answering(always(BODY), tls=tls) as (client, writers):
        for _ in range(3):
            await ask(client)
        assert len(writers) == 1


async def test_a_server_over_tls_that_nobody_trusts_is_refused(tls):
    async with answering(always(BODY), tls=(tls[0], ssl.create_default_context())) as (client, _writers):
        with pytest.raises(httpx2.ConnectError, match="certificate"):
            await ask(client)


@pytest.mark.parametrize(
    "exchange",
    [
        test_requests_one_after_the_other_share_a_connection,
        test_as_many_connections_as_requests_at_a_time_and_no_more,
        test_a_connection_that_the_server_has_closed_is_replaced,
        test_a_body_that_is_not_read_closes_its_connection,
        test_a_request_that_is_given_up_closes_its_connection,
        test_a_request_in_pieces_arrives_whole,
        test_a_place_where_nobody_listens_is_named,
    ],
)
def test_it_is_the_same_on_the_loop_of_workers(exchange):
    uvloop = pytest.importorskip("uvloop")
    uvloop.run(asyncio.wait_for(exchange(), 20))
