"""Wake-ups through a real RabbitMQ, and through one that is broken in every way that we know of."""

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pika
import pytest

from ops_core.dispatchers import open_dispatcher
from ops_core.dispatchers.rabbitmq import RabbitDispatcher
from ops_core.errors import ConfigError
from ops_core.ports import Dispatcher
from ops_core.testing import DispatcherContract, SharedDispatcherContract
from ops_core.testing.servers.rabbitmq import RabbitServer

pytestmark = pytest.mark.timeout(180)
LATE = 10.0


@pytest.fixture
def queue() -> str:
    """A queue that no other test has."""
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture
def url(rabbit: RabbitServer, queue: str) -> str:
    return rabbit.url(queue=queue)


@pytest.fixture
async def dispatchers(url: str) -> AsyncGenerator[list[Dispatcher]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_dispatcher(url)) for _ in range(3)]


class TestRabbitDispatcher(DispatcherContract):
    @pytest.fixture
    async def dispatcher(self, url: str) -> AsyncGenerator[Dispatcher]:
        async with open_dispatcher(url) as opened:
            yield opened


class TestRabbitDispatchers(SharedDispatcherContract):
    pass


# --- TLS ---------------------------------------------------------------------------------------------------------


def over_tls(rabbit: RabbitServer, queue: str, **files: Path) -> str:
    named = "".join(f"&{name}={path}" for name, path in files.items())
    return f"amqps://guest:guest@127.0.0.1:{rabbit.tls_port}/?queue={queue}{named}"


async def test_wake_ups_go_over_tls(rabbit: RabbitServer, queue: str, certificates: Path):
    own = {"certfile": certificates / "server.pem", "keyfile": certificates / "server.key"}
    url = over_tls(rabbit, queue, cacertfile=certificates / "ca.pem")
    other = over_tls(rabbit, queue, cacertfile=certificates / "ca.pem", **own)
    async with open_dispatcher(url) as one, open_dispatcher(other) as two:
        for sender, hearer in ((one, two), (two, one)):
            heard = asyncio.create_task(hearer.woken(LATE))
            while not heard.done():
                await sender.wake()
                await asyncio.wait({heard}, timeout=0.1)
            assert heard.result()


async def test_a_certificate_that_nobody_trusts_is_told_in_one_line(
    rabbit: RabbitServer, queue: str, caplog: pytest.LogCaptureFixture
):
    async with open_dispatcher(over_tls(rabbit, queue)) as dispatcher:
        await dispatcher.wake()
        async with asyncio.timeout(LATE):
            while not caplog.messages:
                await asyncio.sleep(0.01)
    assert [message for message in caplog.messages if "certificate" in message]
    assert "guest:guest" not in caplog.text


@pytest.mark.parametrize("name", ["cacertfile", "certfile"])
async def test_a_file_of_certificates_that_is_none(name: str, tmp_path: Path):
    (tmp_path / "file").write_text("nothing")
    for path in (tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(ConfigError, match="dispatcher_url: cacertfile, certfile or keyfile"):
            async with open_dispatcher(f"amqps://guest:secret@127.0.0.1:1/?{name}={path}"):
                pass


@contextmanager
def channel_to(rabbit: RabbitServer):
    """What any other program could do to the node."""
    connection = pika.BlockingConnection(pika.URLParameters(rabbit.url()))
    yield connection.channel()
    connection.close()


async def hears(there: Dispatcher, here: Dispatcher) -> bool:
    """Whether a wake-up passes between them, now."""
    waiting = asyncio.create_task(there.woken(LATE))
    await here.wake()
    return await waiting


async def until_heard(there: Dispatcher, here: Dispatcher) -> None:
    """Until one passes: hints may be lost while things are broken."""
    async with asyncio.timeout(60):
        while True:
            waiting = asyncio.create_task(there.woken(0.5))
            await here.wake()
            if await waiting:
                return


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("ops_core")]


# ------------------------------------------------------------------------------------------------ what is in the queue


def test_any_number_of_wake_ups_is_a_few_messages_in_one_queue(rabbit, queue, url):
    async def flood():
        async with open_dispatcher(url) as here:
            for _ in range(200):
                await here.wake()
                await asyncio.sleep(0.001)

    asyncio.run(flood())
    with channel_to(rabbit) as channel:
        assert 1 <= channel.queue_declare(queue, passive=True).method.message_count <= 4
    names = rabbit.tell("[binary_to_list(element(4, N)) || N <- rabbit_amqqueue:list_names()]")
    assert f'"{queue}"' in names
    assert f"{queue}." not in names  # no queue of delayed messages, none of dead letters


async def test_a_process_that_only_submits_takes_no_hint(url):
    async with open_dispatcher(url) as here, open_dispatcher(url) as there:
        await here.wake()
        await there.wake()
        await asyncio.sleep(0.1)
        async with open_dispatcher(url) as worker:
            assert await worker.woken(LATE)


async def test_a_hint_is_sent_before_the_process_ends(url):
    async with open_dispatcher(url) as there:
        waiting = asyncio.create_task(there.woken(LATE))
        async with open_dispatcher(url) as here:
            await here.wake()
        assert await waiting


async def test_messages_that_are_no_hints_are_thrown_away(rabbit, queue, url, caplog):
    fields = f'"queue_name": "{queue}", "args": [], "message_id": "1", "message_timestamp": 1'
    poison = [
        b"",
        b"\x00\xff\xfe",
        b"[1]",
        b'"text"',
        b"{}",
        b'{"unknown": 1}',
        (
            "{{{}, {}}}".format(fields, '"actor_name": "delete_everything", "kwargs": {}, "options": {}')
        ).encode(),
        ("{{{}, {}}}".format(fields, '"actor_name": "wake", "kwargs": {}, "options": {}')).encode(),
        ("{{{}, {}}}".format(fields, '"actor_name": "wake", "kwargs": {"by": 1}, "options": {}')).encode(),
        (
            "{{{}, {}}}".format(fields, '"actor_name": "wake", "kwargs": {"by": "a", "x": 1}, "options": {}')
        ).encode(),
    ]
    async with open_dispatcher(url) as here, open_dispatcher(url) as there:
        assert await hears(there, here)
        with channel_to(rabbit) as channel:
            for body in poison:
                waiting = asyncio.create_task(there.woken(0.1))  # it stays a consumer
                channel.basic_publish("", queue, body)
                assert not await waiting, body
                assert await hears(there, here), body
            # an eta would have Dramatiq hold it back; as anything else that is an option, it means nothing here
            late = "{{{}, {}}}".format(
                fields,
                '"actor_name": "wake", "kwargs": {"by": "other"}, "options": {"eta": 9e15, "pipe_target": {}}',
            )
            channel.basic_publish("", queue, late.encode())
            assert await there.woken(LATE)
            assert channel.queue_declare(queue, passive=True).method.message_count == 0
    thrown = [line for line in told(caplog) if "no hint" in line]
    assert len(thrown) == len(poison) == len(told(caplog))


async def test_hints_may_be_doubled_and_late(rabbit, queue, url):
    """They are woken once more for nothing, and that is all."""
    async with open_dispatcher(url) as here, open_dispatcher(url) as there:
        await here.wake()
        await asyncio.sleep(0.2)
        with channel_to(rabbit) as channel:
            _method, _properties, body = channel.basic_get(queue, auto_ack=True)
            assert body is not None
            for _ in range(4):
                channel.basic_publish("", queue, body)
        assert await there.woken(LATE)
        while await there.woken(0.2):
            pass
        assert await hears(there, here)


# ------------------------------------------------------------------------------------------------ what Dramatiq is not


async def test_nothing_of_dramatiq_is_on_that_could_lose_repeat_or_end_a_task(url):
    """E3, E4, E5, E7: no retries, time limits, results, pipelines or delays, and no broker for the whole process."""
    import dramatiq.broker

    async with open_dispatcher(url) as opened:
        await opened.woken(0.05)
        assert isinstance(opened, RabbitDispatcher)
        broker = opened._broker
        assert [type(one).__name__ for one in broker.middleware] == ["_WorkerMiddleware"]
        assert broker.delay_queues == set()
        assert list(broker.actors) == ["wake"]
        assert broker.actors["wake"].options == {}
        assert opened._worker is not None
        assert list(opened._worker.consumers) == [broker.queue]
        assert dramatiq.broker.global_broker is None


def test_the_client_is_loaded_only_for_a_url_that_asks_for_it():
    program = (
        "import asyncio, sys\n"
        "from ops_core.dispatchers import open_dispatcher\n"
        "async def main():\n"
        "    async with open_dispatcher('local://'): pass\n"
        "asyncio.run(main())\n"
        "assert not {'dramatiq', 'pika'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


async def test_without_the_extra_it_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("ops_core.dispatchers.")]:
        if name.endswith(("rabbitmq", "hints")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pika", None)
    with pytest.raises(ConfigError, match=r"opspawn\[rabbitmq\]"):
        async with open_dispatcher("amqp://localhost"):
            pass


# ------------------------------------------------------------------------------------------------------------- breaking


async def test_connections_that_are_cut_are_made_again(rabbit, url, caplog):
    async with open_dispatcher(url) as here, open_dispatcher(url) as there:
        for _ in range(2):
            assert await hears(there, here)
            assert await asyncio.to_thread(rabbit.close_connections) >= 2
            await until_heard(there, here)
    broken = [line for line in told(caplog) if "cannot be used" in line]
    healed = [line for line in told(caplog) if "used again" in line]
    assert 2 <= len(broken) <= 4
    assert len(healed) == len(broken)
    assert "by the test" in broken[0]


async def test_a_queue_that_is_deleted_is_made_again(rabbit, queue, url):
    async with open_dispatcher(url) as here, open_dispatcher(url) as there:
        assert await hears(there, here)
        for _ in range(2):
            waiting = asyncio.create_task(there.woken(0.2))
            with channel_to(rabbit) as channel:
                channel.queue_delete(queue)
            await waiting
            await until_heard(there, here)


@pytest.mark.parametrize(
    "arguments",
    [
        {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "elsewhere"},  # as Dramatiq declares it
        {"x-max-length": 1, "x-overflow": "reject-publish"},
        {"x-queue-type": "quorum"},
    ],
    ids=["dramatiq", "reject-publish", "quorum"],
)
async def test_a_queue_with_other_arguments_is_used_as_it_is(rabbit, queue, url, caplog, arguments):
    with channel_to(rabbit) as channel:
        channel.queue_declare(queue, durable=True, arguments=arguments)
    async with open_dispatcher(url) as here, open_dispatcher(url) as there:
        for _ in range(20):
            await here.wake()
            await asyncio.sleep(0.002)
        assert await there.woken(LATE)
        assert await hears(there, here)
    assert "as it is" in caplog.text


@asynccontextmanager
async def nobody() -> AsyncGenerator[int]:
    """A port where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@asynccontextmanager
async def a_mute() -> AsyncGenerator[int]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@asynccontextmanager
async def a_babbler() -> AsyncGenerator[int]:
    """A server that speaks another language."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("other", [nobody, a_mute, a_babbler])
async def test_without_a_broker_nothing_waits_and_one_line_says_so(other, caplog):
    loop = asyncio.get_running_loop()
    async with other() as port:
        began = loop.time()
        async with open_dispatcher(f"amqp://kim:s3cret@127.0.0.1:{port}/") as opened:
            assert not await opened.woken(0.05)
            before = loop.time()
            for _ in range(10_000):
                await opened.wake()
            assert loop.time() - before < 1.0
            assert await opened.woken(0.05)  # within the process it works
            await asyncio.sleep(0.5)
            closing = loop.time()
        assert loop.time() - closing < 5.0
        assert loop.time() - began < 10.0
    if other is not a_mute:  # of that one, nothing is known before the time for an answer is over
        (line,) = told(caplog)
        assert f"127.0.0.1:{port}" in line
        assert "cannot be used" in line
    assert "s3cret" not in caplog.text


async def test_refused_credentials_are_told_without_them(rabbit, caplog):
    async with open_dispatcher(f"amqp://kim:s3cret@127.0.0.1:{rabbit.port}/") as opened:
        assert not await opened.woken(1.0)
    (line,) = told(caplog)
    assert "credentials were refused" in line
    assert "s3cret" not in caplog.text


async def test_during_an_alarm_nobody_waits_and_afterwards_it_heals(rabbit, url, caplog):
    """RabbitMQ short of memory stops reading from whoever publishes."""
    loop = asyncio.get_running_loop()
    async with open_dispatcher(url) as here, open_dispatcher(url) as there:
        assert await hears(there, here)
        rabbit.alarm(on=True)
        try:
            before = loop.time()
            for _ in range(1000):
                await here.wake()
                await asyncio.sleep(0)
            assert loop.time() - before < 1.0
            assert await here.woken(LATE)
            async with open_dispatcher(url) as third:  # one that is closed while it is blocked
                await third.wake()
                await asyncio.sleep(0.1)
                before = loop.time()
            assert loop.time() - before < 5.0
        finally:
            rabbit.alarm(on=False)
        await until_heard(there, here)


async def test_a_broker_that_is_killed_and_loses_its_disk_is_used_again(rabbit, url, caplog):
    loop = asyncio.get_running_loop()
    async with open_dispatcher(url) as here, open_dispatcher(url) as there:
        assert await hears(there, here)
        rabbit.end(signal.SIGKILL)
        rabbit.empty()
        before = loop.time()
        for _ in range(1000):
            await here.wake()
        assert loop.time() - before < 1.0
        assert not await there.woken(0.3)
        await asyncio.to_thread(rabbit.start)
        await until_heard(there, here)
        while len([line for line in told(caplog) if "used again" in line]) < 2:
            await asyncio.sleep(0.05)
    broken = [line for line in told(caplog) if "cannot be used" in line]
    assert len(broken) == 2, "one line for each process"


async def test_a_frozen_broker_keeps_nobody(rabbit, url):
    loop = asyncio.get_running_loop()
    node = rabbit._node
    assert node is not None
    async with open_dispatcher(url) as here, open_dispatcher(url) as there:
        assert await hears(there, here)
        os.kill(node.pid, signal.SIGSTOP)
        try:
            async with open_dispatcher(url) as third:
                await third.wake()
                await here.wake()
                assert not await there.woken(0.2)
                closing = loop.time()
            assert loop.time() - closing < 5.0
        finally:
            os.kill(node.pid, signal.SIGCONT)
        await until_heard(there, here)


async def test_idle_it_costs_next_to_nothing(url):
    async with open_dispatcher(url) as opened, open_dispatcher(url) as other:
        assert await hears(opened, other)
        before, began = time.process_time(), time.monotonic()
        await opened.woken(1.5)
        assert (time.process_time() - before) / (time.monotonic() - began) < 0.05
