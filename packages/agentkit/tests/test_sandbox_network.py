"""Hosts that are granted to sandboxes: who reaches them, by what, and what else is not reached."""

import asyncio
import errno
import os
import resource
import shutil
import socket
import sys
from contextlib import contextmanager, suppress

import pytest
import pytest_asyncio

from agentkit.errors import MachineError, ToolError
from agentkit.sandbox import FunctionRaised, Grants, HostRule, Limits, ProgramTerms
from agentkit.sandbox.child.network import Connections, Denied, asked, planned

from .mcp_servers import node  # type: ignore[import-not-found]
from .sandbox_support import BACKENDS, JAILED, opened  # type: ignore[import-not-found]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="children are confined on Linux only"),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=BACKENDS)
async def box(request):
    async with opened(request.param, limits=Limits(seconds=20)) as box:
        yield box


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def jail():
    async with opened("jail", limits=Limits(seconds=20)) as jail:
        yield jail


@pytest_asyncio.fixture(loop_scope="module")
async def site():
    """A small server, and how often it was connected to."""
    seen = []

    async def serve(reader, writer):
        try:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            seen.append(b"")
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], seen


def granted(port):
    return Grants(hosts=(HostRule(host="localhost", port=port, private=True),))


def descriptors():
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  (a number is wanted)


async def value_of(box, name, arguments=None, **more):
    return (await box.call(f"sandboxed.honest:{name}", arguments, **more)).value


async def test_a_granted_host_is_reached_through_the_worker_and_no_other(box, site):
    port, seen = site
    returned = await box.call(
        "sandboxed.honest:fetch", {"host": "localhost", "port": port}, grants=granted(port)
    )
    assert returned.value == "hello"
    assert returned.usage.network_bytes > 50
    assert len(seen) == 1
    for grants, host in (
        (Grants(), "localhost"),
        (Grants(hosts=(f"localhost:{port}",)), "localhost"),  # an address that is not public
        (Grants(hosts=(f"127.0.0.1:{port}",)), "127.0.0.1"),
        (granted(port), "127.0.0.9"),  # the same machine under another name
        (granted(port), "example.com"),
    ):
        with pytest.raises(FunctionRaised) as error:
            await value_of(box, "fetch", {"host": host, "port": port}, grants=grants)
        if box.name == "pool" or host == "example.com" or grants == Grants():
            assert "granted" in str(error.value) or "not public" in str(error.value)
    assert len(seen) == 1


async def test_libraries_reach_it_also_asynchronous_ones(box, site):
    port, seen = site
    url, grants = f"http://localhost:{port}/", granted(port)
    assert await value_of(box, "fetch_by_urllib", {"url": url}, grants=grants) == "hello"
    streams = {"host": "localhost", "port": port, "times": 5}
    assert await value_of(box, "fetch_by_streams", streams, grants=grants) == ["hello"] * 5
    pytest.importorskip("httpx2")
    assert await value_of(box, "fetch_by_httpx", {"url": url}, grants=grants) == ["hello"] * 2
    assert len(seen) == 8
    for name, arguments in (
        ("fetch_by_streams", {"host": "example.com", "port": 80}),
        ("fetch_by_httpx", {"url": "http://example.com/"}),
    ):
        try:
            found = str(await value_of(box, name, arguments, grants=grants))
        except FunctionRaised as error:
            found = str(error)
        assert "granted" in found


# --- programs in a jail -------------------------------------------------------------------------------------------


@JAILED
async def test_programs_reach_it_and_are_told_what_is_not_granted(jail, site):
    port, seen = site
    url = f"http://localhost:{port}/"
    fetch = "fetch(process.argv[1]).then(r => r.text()).then(console.log, e => console.log(e.cause.message))"
    code = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
    programs = [[sys.executable, "-c", code], [node(), "-e", fetch]]
    programs += [["curl", "-sS"]] if shutil.which("curl") else []
    for program in programs:
        done = await jail.run_program([*program, url], grants=granted(port))
        assert (done.stdout.strip(), done.stderr) == ("hello", "")
        assert done.usage.network_bytes > 50
        other = await jail.run_program([*program, "http://example.com/"], grants=granted(port))
        assert "hello" not in other.stdout
        assert program[0] == node() or "403" in other.stderr or "granted" in other.stdout
        none = await jail.run_program([*program, url])
        assert "hello" not in none.stdout
    assert len(seen) == len(programs)
    script = await jail.run_code(
        f"import urllib.request as u; print(u.urlopen({url!r}).read())", grants=granted(port)
    )
    assert script.stdout == "b'hello'\n"
    async with jail.open_program([*programs[0], url], ProgramTerms(grants=granted(port))) as program:
        assert await program.stdout.read() == b"hello\n"
        assert await program.wait() == 0
    wild = Grants(hosts=(HostRule(host="127.0.0.1", port=port, private=True), "*.example.com"))
    done = await jail.run_program([*programs[0], f"http://127.0.0.1:{port}/"], grants=wild)
    assert done.stdout == "hello\n"


async def test_nobody_else_is_reached(box, site):
    port, seen = site
    others = ["127.0.0.3", "169.254.169.254", "[::1]", "example.com", "10.0.0.1"]
    if box.name == "pool":  # in a jail it is its own, at which the granted name is found
        others += ["127.0.0.1", "0.0.0.0", "2130706433"]
    others += ["localhost.example.com", socket.gethostname()]
    arguments = {"port": port, "others": others}
    found = (await box.call("sandboxed.attacks:reach_others", arguments, grants=granted(port))).value
    assert found == []
    assert seen == []


async def test_connections_are_limited(box, site):
    port, _seen = site
    before = descriptors()
    arguments = {"host": "localhost", "port": port}
    flooded = await box.call("sandboxed.attacks:flood_with_connections", arguments, grants=granted(port))
    assert 0 < flooded.value <= 32
    async with asyncio.timeout(10):
        while descriptors() > before + 8:
            await asyncio.sleep(0.02)
    assert await value_of(box, "fetch", arguments, grants=granted(port)) == "hello"


@contextmanager
def few_descriptors(count):
    """So many more can be opened in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each) for each in os.listdir("/proc/self/fd"))  # noqa: PTH208  (numbers are wanted)
    held: list[int] = []
    while not held or held[-1] <= highest:
        held.append(os.open("/dev/null", os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1] + 1 + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in held:
            os.close(each)


async def test_descriptors_that_run_out_at_any_moment_are_named_and_none_is_lost(box, site):
    port, _seen = site
    arguments = {"host": "localhost", "port": port}
    assert await value_of(box, "fetch", arguments, grants=granted(port)) == "hello"
    before, endings = descriptors(), []
    for count in range(16):
        with few_descriptors(count):
            try:
                endings.append(await value_of(box, "fetch", arguments, grants=granted(port)))
            except (MachineError, ToolError) as error:
                endings.append(getattr(error, "errno", type(error).__name__))
    assert {errno.EMFILE} <= set(endings) <= {errno.EMFILE, "FunctionRaised", "hello"}
    assert (endings[0], endings[-1]) == (errno.EMFILE, "hello")
    async with asyncio.timeout(10):
        while descriptors() > before + 2:  # a spare child
            await asyncio.sleep(0.02)
    assert await value_of(box, "fetch", arguments, grants=granted(port)) == "hello"


@JAILED
async def test_a_proxy_that_is_talked_nonsense_to_says_so(jail, site):
    port, seen = site
    answers = (await jail.call("sandboxed.attacks:babble_at_the_proxy", grants=granted(port))).value
    assert {answer[9:12] for answer in answers if answer != "gone"} <= {"400", "403", "502"}
    assert len(answers) == 9
    assert await value_of(jail, "fetch", {"host": "localhost", "port": port}, grants=granted(port)) == "hello"
    assert len(seen) == 1


# --- by themselves ------------------------------------------------------------------------------------------------


async def test_every_address_of_a_name_must_be_public(monkeypatch):
    answers = {"mixed.test": ["93.184.216.34", "10.0.0.1"], "inner.test": ["169.254.169.254"]}

    async def getaddrinfo(host, port, **_more):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in answers[host]]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    connections = Connections((HostRule(host="*.test"),), "a test", None)
    for name in answers:
        with pytest.raises(Denied, match="not public"):
            await connections.connected(name, 443)
    with pytest.raises(Denied, match="granted"):  # what was found for a name that is refused is not granted
        await connections.connected("169.254.169.254", 443)


async def test_doors_for_names_and_a_proxy_for_the_rest():
    rules = [
        HostRule.of(text)
        for text in ("a.test", "b.test:80", "a.test:8443", "*.c.test", "10.0.0.1", "[::1]:1")
    ]
    plan = planned(rules)
    assert dict(plan.names) == {"localhost": "127.0.0.1", "a.test": "127.1.0.1", "b.test": "127.1.0.2"}
    assert [(address, port) for address, port, _host in plan.doors] == [
        ("127.0.0.2", 3128),
        ("127.1.0.1", 443),
        ("127.1.0.2", 80),
        ("127.1.0.1", 8443),
        ("::1", 1),
    ]
    assert planned([]).doors == ()
    assert len(planned([HostRule(host="x.test", port=port) for port in range(1, 100)]).doors) == 32
    assert dict(planned([HostRule(host="a\n1.2.3.4 b")]).names) == {"localhost": "127.0.0.1"}


@pytest.mark.parametrize(
    "head, expected",
    [
        (b"CONNECT a.test:443 HTTP/1.1\r\n\r\n", ("a.test", 443, None)),
        (b"CONNECT [::1]:443 HTTP/1.1\r\nHost: x\r\n\r\n", ("::1", 443, None)),
        (
            b"GET http://u@a.test/p?q=1 HTTP/1.1\r\nHost: a.test\r\nProxy-Connection: keep-alive\r\n\r\n",
            ("a.test", 80, b"GET /p?q=1 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"),
        ),
        (
            b"POST http://a.test:8080 HTTP/1.0\r\n\r\n",
            ("a.test", 8080, b"POST / HTTP/1.0\r\nConnection: close\r\n\r\n"),
        ),
    ],
)
async def test_what_a_proxy_is_asked(head, expected):
    assert asked(head) == expected
