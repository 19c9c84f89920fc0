"""HTTP that connects only to addresses which were looked at: against a real listener, which must see nothing."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

import pytest

from agentkit.errors import AddressRefused, ToolError, ToolTimeout, UsageError
from agentkit.net.http_client import GuardedClient
from agentkit.sandbox import HostRule

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi"


def moved(status: str, to: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n".encode()


def encoded(head: str, body: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + body


class Listener:
    """Answers on loopback, and keeps what it was asked."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests: list[str] = []
        self.answer: Callable[[str], bytes] = lambda _request: OK
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            size = next(
                (
                    int(line.partition(":")[2])
                    for line in head.lower().split("\r\n")
                    if line.startswith("content-length")
                ),
                0,
            )
            request = head + (await reader.readexactly(size)).decode()
            self.requests.append(request)
            answer = self.answer(request)
            writer.write(answer)
            await writer.drain()
            if not answer:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def listener() -> AsyncGenerator[Listener]:
    made = Listener()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


def here(listener: Listener, **options: object) -> GuardedClient:
    """May reach the listener."""
    rule = HostRule(host="127.0.0.1", port=listener.port, private=True)
    return GuardedClient(hosts=[rule], schemes=["http"], **options)  # type: ignore[arg-type]


def answering(*addresses: str) -> Callable[[str, int], object]:
    """Looks every name up in this way; each time the next answer."""
    answers = iter(addresses)

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return [next(answers)]

    return resolve


INSIDE = [
    "http://127.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://017700000001:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://0.0.0.0:{port}/",
    "http://0:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[64:ff9b:1::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[fe80::1]:{port}/",
    "http://[fc00::1]:{port}/",
    "http://169.254.169.254:{port}/latest/meta-data/",
    "http://10.0.0.1:{port}/",
    "http://192.168.0.1:{port}/",
    "http://100.64.0.1:{port}/",
    "http://224.0.0.1:{port}/",
    "http://255.255.255.255:{port}/",
    "http://example.com@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@example.com/",
    "http://127.0.0.1\t:{port}/",
    "http://１２７.０.０.１:{port}/",
    "http://ⓛocalhost:{port}/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/",
    "ftp://127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "http:///",
    "",
]


@pytest.mark.parametrize("url", INSIDE)
async def test_what_leads_inside_is_not_connected_to(listener: Listener, url: str):
    port = listener.port
    hosts = [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
    ]
    hosts += [
        "localhost",
        "0.0.0.0",
        "0",
        "169.254.169.254",
        "10.0.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "224.0.0.1",
    ]
    hosts += ["255.255.255.255", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]"]
    hosts += ["[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "[fc00::1]"]
    rules = [HostRule(host=host.strip("[]"), port=port) for host in hosts]  # named, and still not private
    for client in (GuardedClient(hosts=rules, schemes=["http"]), GuardedClient(schemes=["http", "https"])):
        with pytest.raises(AddressRefused):
            await client.send("GET", url.format(port=port))
    assert listener.connections == 0


async def test_a_name_is_looked_up_once_and_all_its_addresses_count(listener: Listener):
    rule = [HostRule(host="service.test", port=listener.port)]
    url = f"http://service.test:{listener.port}/"

    async def several(_host: str, _port: int) -> Sequence[str]:
        return ["93.184.215.14", "127.0.0.1"]

    for resolve in (several, answering("127.0.0.1")):
        with pytest.raises(AddressRefused, match=r"service\.test has an address that is not public"):
            await GuardedClient(hosts=rule, schemes=["http"], resolve=resolve).send("GET", url)  # type: ignore[arg-type]
    assert listener.connections == 0
    trusted = [HostRule(host="service.test", port=listener.port, private=True)]
    once = GuardedClient(hosts=trusted, schemes=["http"], resolve=answering("127.0.0.1"))  # type: ignore[arg-type]
    assert (await once.send("GET", url)).body == b"hi"
    assert f"Host: service.test:{listener.port}" in listener.requests[0]


async def test_every_redirect_is_looked_at(listener: Listener):
    def redirect(request: str) -> bytes:
        if "GET /a" in request:
            return moved("302 Found", "/b")
        if "GET /b" in request:
            return OK
        return moved("302 Found", f"http://localhost:{listener.port}/b")

    listener.answer = redirect
    root = f"http://127.0.0.1:{listener.port}"
    fetched = await here(listener).send("GET", f"{root}/a", headers={"authorization": "Bearer one"})
    assert (fetched.status, fetched.url) == (200, f"{root}/b")
    assert all("authorization: Bearer one" in request for request in listener.requests)
    with pytest.raises(AddressRefused):
        await here(listener).send("GET", f"{root}/elsewhere")
    assert (await here(listener).send("POST", f"{root}/elsewhere", content=b"x")).status == 302
    assert (await here(listener, redirects=0).send("GET", f"{root}/a")).status == 302


@pytest.mark.parametrize(
    "target", ["http://[::1", "http://a\x80b/", "http://x:abc/", "http://" + "a" * 70000, "\\\\inside"]
)
async def test_a_redirect_that_nobody_can_read(listener: Listener, target: str):
    listener.answer = lambda _request: moved("302 Found", target)
    with pytest.raises(AddressRefused, match="cannot be read"):
        await here(listener).send("GET", f"http://127.0.0.1:{listener.port}/a")


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "inside"},
        {"Content-Length": "5"},
        {"transfer-encoding": "chunked"},
        {"a\r\nb": "c"},
        {"a": "b\nc"},
    ],
)
async def test_a_header_that_would_change_the_request(listener: Listener, headers: dict[str, str]):
    with pytest.raises(UsageError, match="header"):
        await here(listener).send("POST", f"http://127.0.0.1:{listener.port}/", headers=headers, content=b"x")
    assert listener.connections == 0


async def test_headers_stay_with_their_host(listener: Listener):
    def redirect(request: str) -> bytes:
        if "GET /a" in request:
            return moved("307 Temporary Redirect", f"http://other.test:{listener.port}/b")
        return OK

    listener.answer = redirect
    rules = [HostRule(host=host, port=listener.port, private=True) for host in ("127.0.0.1", "other.test")]
    client = GuardedClient(hosts=rules, schemes=["http"], resolve=answering("127.0.0.1", "127.0.0.1"))  # type: ignore[arg-type]
    secret = {"authorization": "Bearer one", "x-api-key": "two", "accept": "text/plain"}
    await client.send("GET", f"http://127.0.0.1:{listener.port}/a", headers=secret)
    first, second = listener.requests
    assert "Bearer one" in first
    assert "accept: text/plain" in second
    assert "one" not in second
    assert "two" not in second


@pytest.mark.parametrize(
    "answer,error",
    [
        (encoded("content-length: 300", b"x" * 300), "more than 100 bytes"),
        (
            encoded("transfer-encoding: chunked", b"ff\r\n%b\r\n0\r\n\r\n" % (b"x" * 255)),
            "more than 100 bytes",
        ),
        (encoded("content-encoding: gzip\r\ncontent-length: 20", b"x" * 20), "compressed"),
        (encoded("content-length: 50", b"short"), "cannot be used"),
        (b"what is this\r\n\r\n", "cannot be used"),
    ],
)
async def test_an_answer_that_cannot_be_taken(listener: Listener, answer: bytes, error: str):
    listener.answer = lambda _request: answer
    with pytest.raises(ToolError, match=error) as caught:
        await here(listener, max_bytes=100).send("GET", f"http://127.0.0.1:{listener.port}/?key=secret")
    assert "secret" not in str(caught.value)


async def test_a_silent_server_is_given_up(listener: Listener):
    listener.answer = lambda _request: b""
    with pytest.raises(ToolTimeout, match=r"within 0\.2 s"):
        await here(listener, seconds=0.2).send("GET", f"http://127.0.0.1:{listener.port}/")


async def test_no_proxy_of_the_environment_is_used(listener: Listener, monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{listener.port}")
    client = GuardedClient(schemes=["http"], resolve=answering("10.0.0.1"))  # type: ignore[arg-type]
    with pytest.raises(AddressRefused):
        await client.send("GET", "http://example.com/")
    assert listener.connections == 0


async def test_only_usual_ports_where_no_host_is_named(listener: Listener):
    with pytest.raises(AddressRefused, match="only the usual port of https"):
        await GuardedClient().send("GET", f"https://example.com:{listener.port}/")
    with pytest.raises(AddressRefused, match="only https"):
        await GuardedClient().send("GET", "http://example.com/")


def test_a_client_that_makes_no_sense():
    with pytest.raises(UsageError, match="schemes"):
        GuardedClient(schemes=["file"])
    with pytest.raises(UsageError, match="HOST or HOST:PORT"):
        GuardedClient(hosts=["https://example.com/"])
