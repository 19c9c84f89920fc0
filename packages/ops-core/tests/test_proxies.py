"""The wire of the chaos tests does what it says, or they would show nothing."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress

import pytest

from ops_core.testing.servers.tcp_proxy import TcpProxy

SOON = 30.0
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def heard() -> list[bytes]:
    """What the server was told."""
    return []


@pytest.fixture
async def proxy(heard: list[bytes]) -> AsyncGenerator[TcpProxy]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionResetError):
            while line := await reader.readline():
                heard.append(line)
                writer.write(line)
        await closed(writer)

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, TcpProxy(server.sockets[0].getsockname()) as opened:
        yield opened


@pytest.fixture
async def connect(proxy: TcpProxy) -> AsyncGenerator[Callable[[], Awaitable[Streams]]]:
    async with AsyncExitStack() as stack:

        async def connected() -> Streams:
            streams = await asyncio.open_connection("127.0.0.1", proxy.port)
            stack.push_async_callback(closed, streams[1])
            return streams

        yield connected


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionResetError):
        await writer.wait_closed()


async def told(streams: Streams, line: bytes) -> bytes:
    """The answer to a line."""
    streams[1].write(line)
    async with asyncio.timeout(SOON):
        return await streams[0].readline()


async def test_everything_passes(proxy: TcpProxy, connect):
    one, other = await connect(), await connect()
    assert [await told(one, b"a\n"), await told(other, b"b\n")] == [b"a\n", b"b\n"]
    assert proxy.links == 2


async def test_a_cut_resets_both_sides_and_lets_new_ones_through(proxy: TcpProxy, connect):
    streams = await connect()
    await told(streams, b"a\n")
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        await told(streams, b"b\n")
    assert await told(await connect(), b"c\n") == b"c\n"


async def test_whoever_is_refused_is_reset(proxy: TcpProxy, connect):
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        await told(await connect(), b"a\n")
    proxy.refuse(refuse=False)
    assert await told(await connect(), b"b\n") == b"b\n"


async def test_nothing_passes_a_black_hole_until_it_goes_on(proxy: TcpProxy, heard: list[bytes], connect):
    streams = await connect()
    await told(streams, b"a\n")
    proxy.stop()
    answer = asyncio.create_task(told(streams, b"b\n"))
    await asyncio.wait({answer}, timeout=0.1)
    assert (answer.done(), heard) == (False, [b"a\n"])
    proxy.go_on()
    assert await answer == b"b\n"


async def test_a_lost_answer_is_to_a_request_that_was_carried_out(
    proxy: TcpProxy, heard: list[bytes], connect
):
    streams = await connect()
    proxy.lose_the_answer_to(b"COMMIT")
    assert await told(streams, b"BEGIN\n") == b"BEGIN\n"
    with pytest.raises(ConnectionResetError):
        await told(streams, b"COMMIT\n")
    assert (heard[-1], proxy.lost_answers) == (b"COMMIT\n", 1)
