import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ops_core.api.connections import ConnectionLimits, http_config
from ops_core.api.serve import _Server
from ops_core.observability.logs import Sampled

from .api_support import Stage, raw, staged  # type: ignore[import-not-found]

HALVES = [b"", b"GET /", b"GET / HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Le"]


async def app(scope, receive, send):
    """Answer with as many mebibytes as the path says."""
    body = bytes(int(scope["path"].strip("/") or 0) << 20)
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
    )
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(**limits) -> AsyncIterator[tuple[int, _Server]]:
    chosen = ConnectionLimits(**{"max_connections": 100, **limits})
    server = _Server(http_config(app, drain_seconds=1, limits=chosen))
    with socket.create_server(("127.0.0.1", 0)) as bound:
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve([bound]))
            await server.accepting.wait()
            try:
                yield bound.getsockname()[1], server
            finally:
                server.should_exit = True


@asynccontextmanager
async def listening(**limits) -> AsyncIterator[int]:
    async with serving(**limits) as (port, _server):
        yield port


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("sent", HALVES)
async def test_a_connection_without_a_whole_head_is_closed(sent):
    async with listening(head_seconds=0.1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        assert await until_closed(reader) == b""
        writer.close()


@pytest.mark.parametrize("sent", HALVES[1:])
async def test_half_a_head_behind_an_answer_is_not_waited_for_either(sent):
    async with listening(head_seconds=0.1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /0 HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        assert await until_closed(reader) == b""
        writer.close()


async def test_a_connection_beyond_the_bound_is_refused_and_the_others_are_served():
    async with listening(max_connections=2) as port:
        first, second = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        third, closing = await asyncio.open_connection("127.0.0.1", port)
        assert (await until_closed(third)).startswith(b"HTTP/1.1 503 ")
        closing.close()
        for reader, writer in (first, second):
            writer.write(b"GET /0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert (await until_closed(reader)).startswith(b"HTTP/1.1 200 ")
            writer.close()


async def test_a_caller_who_does_not_read_is_disconnected_and_one_who_does_is_not():
    async with serving(write_seconds=0.2) as (port, server):
        _idle, unread = await asyncio.open_connection("127.0.0.1", port, limit=1 << 10)
        busy, reading = await asyncio.open_connection("127.0.0.1", port)
        for writer in (unread, reading):
            writer.write(b"GET /32 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert len(await until_closed(busy)) > 32 << 20
        reading.close()
        async with asyncio.timeout(10):
            while server.server_state.connections:
                await asyncio.sleep(0.01)
        unread.close()


def test_a_process_keeps_descriptors_for_its_runs(monkeypatch):
    import resource

    for soft, most in ((64, 32), (200, 100), (1024, 768), (1 << 20, 10_000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _what, soft=soft: (soft, soft))
        assert ConnectionLimits.of_process().max_connections == most


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncGenerator[Stage]:
    async with staged(tmp_path) as opened:
        yield opened


async def test_two_lengths_of_one_body_are_refused_and_the_connection_ends(stage):
    head = b"POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    writer.write(head + b"0\r\n\r\nGET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answered = await until_closed(reader)
    assert answered.startswith(b"HTTP/1.1 400 ")
    assert answered.count(b"HTTP/1.1") == 1
    assert b"connection: close" in answered.lower()
    writer.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/tasks", "/api/v1/agents", "/metrics", "/openapi.json", "/docs"])
async def test_a_page_of_another_site_reads_nothing(stage, path, headers):
    told = await stage.json("GET", path, headers=headers, expected=403)
    assert told["code"] == "cross_origin"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ],
)
async def test_our_own_pages_and_followed_links_are_answered(stage, headers):
    answered = await stage.http.get("/docs", headers=headers)
    assert answered.status_code == 200
    assert answered.headers["Cross-Origin-Resource-Policy"] == "same-origin"


async def test_whoever_leaves_is_not_waited_for(stage):
    """The request ends with its caller: its connection and the looks at its task are given back."""
    body = b'{"agent": "held", "input": "go"}'
    head = b"POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nPrefer: wait=60\r\n"
    waiting = stage.ops.engine.until_ended
    ended = asyncio.Event()

    async def until_ended(*given):
        try:
            return await waiting(*given)
        finally:
            ended.set()

    stage.ops.engine.until_ended = until_ended
    _reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    async with asyncio.timeout(10):
        while not (await stage.json("GET", "/api/v1/tasks"))["items"]:
            await asyncio.sleep(0.01)
        writer.close()
        await ended.wait()


async def test_events_are_not_held_back_by_a_proxy(stage):
    task = await stage.submit()
    async with stage.http.stream("GET", f"/api/v1/tasks/{task['id']}/events") as events:
        assert events.headers["X-Accel-Buffering"] == "no"


async def test_malformed_requests_do_not_fill_the_log(stage, caplog):
    logger = logging.getLogger("uvicorn.error")
    sampled = Sampled()
    logger.addFilter(sampled)
    try:
        for _ in range(5):
            await raw(stage.port, b"\x00 nothing of HTTP\r\n\r\n")
    finally:
        logger.removeFilter(sampled)
    assert len([record for record in caplog.records if record.name == "uvicorn.error"]) == 1


def test_a_sampled_message_says_how_many_were_left_out():
    sampled, record = Sampled(seconds=3600), logging.makeLogRecord({"msg": "refused %d"})
    assert [sampled.filter(record) for _ in range(3)] == [True, False, False]
    sampled = Sampled(seconds=0)
    assert [sampled.filter(record) for _ in range(3)] == [True, True, True]
    assert not hasattr(record, "left_out")
