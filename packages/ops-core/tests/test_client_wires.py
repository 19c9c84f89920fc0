"""Clients whose connections break, and servers that are not there: over HTTP and gRPC."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import pytest

from ops_core import errors
from ops_core.api.serve import serving
from ops_core.assembly import open_ops
from ops_core.client import HttpClient
from ops_core.client.grpc import GrpcClient
from ops_core.errors import (
    ConfigError,
    InvalidRequest,
    ServerUnavailable,
)
from ops_core.halt import HaltKind
from ops_core.problem_details import ERRORS
from ops_core.schemas import HaltRequest
from ops_core.settings import Settings
from ops_core.task import RetryPolicy

from .api_support import FAR, NOWHERE, Agents, Stage, staged  # type: ignore[import-not-found]
from .client_support import AFTER_A_BREATH, AT_ONCE, Proxy, request  # type: ignore[import-not-found]


@pytest.fixture
async def stage(tmp_path) -> AsyncGenerator[Stage]:
    async with staged(tmp_path) as opened:
        yield opened


# --- over HTTP ----------------------------------------------------------------------------------------------------


def test_every_error_is_raised_again():
    known = {
        cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.OpsError)
    }
    assert set(ERRORS.values()) == known - {errors.OpsError}


@pytest.fixture
async def proxy(stage) -> Proxy:
    return Proxy(stage.port)


@pytest.mark.parametrize("cut_after", [0, 100, 450, 600, 700, 900])
async def test_a_broken_stream_is_taken_up_after_the_last_step(stage, proxy, cut_after):
    async with proxy.listening() as url, HttpClient(url, retry=AT_ONCE) as client:
        task = await client.submit(request("quick"), wait=20)
        whole = list(await client.steps(task.id))
    proxy.cut_after, proxy.cuts = cut_after, 5
    async with proxy.listening() as url, HttpClient(url, retry=AT_ONCE) as client:
        assert [recorded async for recorded in client.watch(task.id)] == whole
    assert proxy.cuts < 5


async def test_a_stream_that_breaks_again_and_again_is_given_up(stage, proxy):
    task = await stage.submit(run_at=FAR)
    proxy.cut_after, proxy.cuts = 50, 1000
    async with proxy.listening() as url, HttpClient(url, retry=AT_ONCE) as client:
        with pytest.raises(ServerUnavailable, match="broke off 8 times in a row"):
            await anext(client.watch(task["id"]))


async def test_a_submit_whose_answer_is_lost_makes_one_task(stage, proxy):
    proxy.cut_after, proxy.cuts = 20, 2
    async with proxy.listening() as url, HttpClient(url, retry=AT_ONCE) as client:
        task = await client.submit(request(run_at=FAR))
        assert [one.id async for one in client.tasks()] == [task.id]
    assert proxy.connections >= 3


async def test_what_makes_something_is_repeated_when_its_answer_is_lost_and_makes_it_once(stage, proxy):
    task = await stage.submit(run_at=FAR)
    await stage.json("POST", f"/api/v1/tasks/{task['id']}/cancel")
    proxy.cut_after, proxy.cuts = 20, 2
    async with proxy.listening() as url, HttpClient(url, retry=AT_ONCE) as client:
        again = await client.retry(task["id"])
        assert [one.id async for one in client.tasks()] == [again.id, task["id"]]
    proxy.cuts = 2
    async with proxy.listening() as url, HttpClient(url, retry=AT_ONCE) as client:
        halt = await client.halt(HaltRequest(kind=HaltKind.ALL))
        assert [one.id for one in (await client.halts()).items] == [halt.id]


async def test_a_server_that_is_not_there_is_told_plainly():
    async with HttpClient("http://127.0.0.1:9", retry=AT_ONCE) as client:
        with pytest.raises(ServerUnavailable, match=r"http://127\.0\.0\.1:9 does not answer"):
            await client.submit(request())
        with pytest.raises(ServerUnavailable, match="broke off"):
            await anext(client.watch(NOWHERE))


async def test_something_else_than_our_server_is_told_plainly():
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", retry=AT_ONCE) as client:
        with pytest.raises(ServerUnavailable, match="answered 404, not as a server of Opspawn does"):
            await client.get(NOWHERE)
    server.close()


async def test_an_answer_of_another_form_is_told_plainly():
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", retry=AT_ONCE) as client:
        for asked in (client.get(NOWHERE), client.agents(), client.steps(NOWHERE)):
            with pytest.raises(ServerUnavailable, match="not as a server of this release does"):
                await asked
    server.close()


async def test_a_watcher_survives_a_restart_of_the_server(tmp_path):
    settings = Settings(store_url=f"sqlite:///{tmp_path}/ops.db", port=0, grace_seconds=0.1)
    agents = Agents()
    first = AsyncExitStack()
    [address] = await first.enter_async_context(
        serving(await first.enter_async_context(open_ops(settings, agents)))
    )
    async with HttpClient(address, retry=RetryPolicy(first_seconds=0.2, max_seconds=2.0)) as client:
        task = await client.submit(request("held"))
        watching = client.watch(task.id)
        seen = [await anext(watching)]
        await first.aclose()
        agents.gate.set()
        again = settings.model_copy(update={"port": int(address.rpartition(":")[2])})
        async with open_ops(again, agents) as ops, serving(ops):
            seen += [recorded async for recorded in watching]
    assert [recorded.seq for recorded in seen] == [0, 1, 2]


# --- over gRPC ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def grpc_proxy(stage) -> Proxy:
    return Proxy(int(stage.grpc_url.rpartition(":")[2]))


@pytest.mark.parametrize("cut_after", [0, 50, 200, 400, 700])
async def test_a_broken_stream_over_grpc_is_taken_up_after_the_last_step(stage, grpc_proxy, cut_after):
    async with GrpcClient(stage.grpc_url) as client:
        task = await client.submit(request("quick"), wait=20)
        whole = list(await client.steps(task.id))
    grpc_proxy.cut_after, grpc_proxy.cuts = cut_after, 3
    async with (
        grpc_proxy.listening() as url,
        GrpcClient(url.replace("http:", "grpc:"), retry=AFTER_A_BREATH) as client,
    ):
        assert [recorded async for recorded in client.watch(task.id)] == whole
    assert grpc_proxy.cuts < 3


async def test_a_submit_over_grpc_whose_answer_is_lost_makes_one_task(stage, grpc_proxy):
    grpc_proxy.cut_after, grpc_proxy.cuts = 60, 2
    async with (
        grpc_proxy.listening() as url,
        GrpcClient(url.replace("http:", "grpc:"), retry=AFTER_A_BREATH) as client,
    ):
        task = await client.submit(request(run_at=FAR))
        assert [one.id async for one in client.tasks()] == [task.id]
    assert grpc_proxy.connections >= 2


async def test_a_server_of_grpc_that_is_not_there_is_told_plainly(stage):
    async with GrpcClient("grpc://127.0.0.1:9", retry=AT_ONCE) as client:
        with pytest.raises(ServerUnavailable, match=r"grpc://127\.0\.0\.1:9 does not answer"):
            await client.submit(request())
        with pytest.raises(ServerUnavailable, match="broke off"):
            await anext(client.watch(NOWHERE))
    async with GrpcClient(stage.url.replace("http:", "grpc:"), retry=AT_ONCE) as client:  # that speaks HTTP
        with pytest.raises(ServerUnavailable):
            await client.get(NOWHERE)


@pytest.mark.parametrize(
    "url", ["grpc://", "grpc://x:y:z", "grpc://me:hunter2@host", "grpc://h/path", "http://h"]
)
def test_an_address_that_names_no_server_is_refused(url):
    with pytest.raises(ConfigError, match="grpc://HOST:PORT") as refused:
        GrpcClient(url)
    assert "hunter2" not in str(refused.value)


async def test_errors_carry_what_the_server_said(stage):
    async with HttpClient(stage.url, retry=AT_ONCE) as client:
        with pytest.raises(InvalidRequest) as raised:
            await client._send(
                "POST", "/tasks", content=b'{"agent": 5}', headers={"Content-Type": "application/json"}
            )
    assert raised.value.field == "agent"
    assert "input" in str(raised.value)


async def test_a_password_in_the_address_is_in_no_error():
    async with HttpClient(
        "http://anna:hunter2@127.0.0.1:9", retry=RetryPolicy(first_seconds=0.001)
    ) as client:
        with pytest.raises(ServerUnavailable, match=r"http://127\.0\.0\.1:9 does not answer") as refused:
            await client.agents()
    assert "hunter2" not in str(refused.value)
