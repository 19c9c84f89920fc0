"""Network of a child: connections to granted hosts, made here, and the gateway of a jail's loopback.

A jail has a network of its own with nothing in it. Its launcher listens at a few addresses there, and hands the
listening sockets out before anything that is not trusted runs; connections from inside are accepted here. A
granted name has an address of its own in the jail's table of hosts, so that any program reaches it as it would outside.
One door more is a proxy, for names that are granted with a ``*``, for addresses, and for telling in words what is
refused.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

from agentkit.net.hosts import HostRule, is_public
from agentkit.sandbox.confined.refusals import MOST

CONNECT_SECONDS = 10.0
MAX_CONNECTIONS = 32
"""At a time, of one child; each is two tasks and two descriptors of this process."""

_HALF_OPEN_SECONDS = 300.0
"""So long one side may still speak after the other has said all."""

_MAX_ADDRESSES = 16
_CHUNK = 1 << 16

Streams: TypeAlias = tuple[StreamReader, StreamWriter]

log = logging.getLogger("agentkit")


class Denied(Exception):
    """The host is not granted, or its address must not be reached."""


class Connections:
    """Those of one child. Belongs to one event loop.

    Args:
        rules: which hosts are granted.
        what: what the log calls the child.
        max_bytes: that all its connections together may carry; ``None`` for any number.

    Attributes:
        carried_bytes: so far.
        refused: what was asked for in vain, with ``hosts`` where it is not granted, and ``private`` where its address
            is not public.
    """

    def __init__(self, rules: tuple[HostRule, ...], what: str, max_bytes: int | None) -> None:
        self._rules = rules
        self._what = what
        self._max_bytes = max_bytes
        self._there = 0
        self._hosts_at: dict[str, set[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.carried_bytes = 0
        self.refused: dict[str, str] = {}

    async def resolved(self, host: str, port: int) -> list[str]:
        """The addresses of a granted host, all of which may be connected to; with port 0, of one granted at any.

        Raises:
            Denied: see there.
            OSError, TimeoutError: they cannot be found out.
        """
        rule = self._rule(host, port)
        async with asyncio.timeout(CONNECT_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))[:_MAX_ADDRESSES]
        if not rule.private and not all(map(is_public, addresses)):
            self._note(f"{host}:{port}", "private")
            raise self._denied(f"{host} has an address that is not public")
        for address in addresses:
            self._hosts_at.setdefault(address, set()).add(host)
        return addresses

    async def connected(self, host: str, port: int) -> Streams:
        """A connection to a granted host, or to an address that was found for one.

        Raises:
            Denied: see there.
            OSError, TimeoutError: it cannot be reached.
        """
        known = [name for name in self._hosts_at.get(host, ()) if self._covering(name, port) is not None]
        addresses = [host] if known else await self.resolved(host, port)
        problem: OSError | None = None
        async with asyncio.timeout(CONNECT_SECONDS):
            for address in addresses:  # never the name again, which could lead elsewhere by now
                try:
                    return await asyncio.open_connection(address, port)
                except OSError as error:
                    problem = error
        raise problem or OSError("no address")

    async def carry(self, here: Streams, there: Streams) -> None:
        """Carry what is said both ways, until one side has gone or both have said all; then close both."""
        ways = [
            asyncio.create_task(self._carry_one_way(here[0], there[1])),
            asyncio.create_task(self._carry_one_way(there[0], here[1])),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if all(way.exception() is None for way in ways if way.done()):
                await asyncio.wait(ways, timeout=_HALF_OPEN_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for way in ways:
                way.cancel()
            here[1].close()  # before the wait, which may be cancelled, too
            there[1].close()
            await asyncio.wait(ways)
            for way in ways:
                _ = way.cancelled() or way.exception()  # whoever is gone is told by the closing

    def start(self, work: asyncio.Task[None]) -> None:
        """Keep a task that serves a connection, until it ends or all of them are ended."""
        self._there += 1
        self._tasks.add(work)
        work.add_done_callback(self._ended)

    @property
    def is_full(self) -> bool:
        """There are as many connections as there may be."""
        return self._there >= MAX_CONNECTIONS

    def close(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()

    def _ended(self, work: asyncio.Task[None]) -> None:
        self._there -= 1
        self._tasks.discard(work)
        _ = work.cancelled() or work.exception()

    def _rule(self, host: str, port: int) -> HostRule:
        rule = self._covering(host, port)
        if rule is None:
            self._note(f"{host}:{port}", "hosts")
            raise self._denied(f"{host}:{port} is not among the granted hosts")
        return rule

    def _covering(self, host: str, port: int) -> HostRule | None:
        return next((rule for rule in self._rules if rule.covers(host, port or rule.port)), None)

    def _note(self, asked: str, why: str) -> None:
        if len(self.refused) < MOST:
            self.refused.setdefault(asked, why)

    def _denied(self, why: str) -> Denied:
        log.info("%s asked for a connection and was refused: %.200r", self._what, why)
        return Denied(why)

    async def _carry_one_way(self, reader: StreamReader, writer: StreamWriter) -> None:
        while piece := await reader.read(_CHUNK):
            self.carried_bytes += len(piece)
            if self._max_bytes is not None and self.carried_bytes > self._max_bytes:
                raise ConnectionAbortedError
            writer.write(piece)
            await writer.drain()
        with suppress(OSError):  # it has gone meanwhile
            if writer.can_write_eof():
                writer.write_eof()


PROXY = ("127.0.0.2", 3128)

_LOCAL = "localhost,127.0.0.1,::1"
_URL = f"http://{PROXY[0]}:{PROXY[1]}"
ENVIRONMENT = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _URL),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), _LOCAL),
    "NODE_USE_ENV_PROXY": "1",
}
"""What tells programs of the proxy."""

_MAX_DOORS = 32
_MAX_HEAD_BYTES = 1 << 16
_HEAD_SECONDS = 30.0
_ACCEPT_PAUSE_SECONDS = 0.2
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
_LOOPBACK = re.compile(r"127\.\d+\.\d+\.\d+|::1")
_OF_THE_WAY = {b"connection", b"proxy-connection", b"proxy-authorization", b"keep-alive"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which doors a jail has.

    Attributes:
        names: the jail's table of hosts: names with their addresses in there.
        doors: an address and a port in there, and the host behind it; ``None`` behind the first, the proxy.
    """

    names: tuple[tuple[str, str], ...] = ()
    doors: tuple[tuple[str, int, str | None], ...] = ()


def planned(rules: Sequence[HostRule]) -> Plan:
    """The doors for these grants; none for none."""
    if not rules:
        return Plan()
    names = {"localhost": "127.0.0.1"}
    doors: dict[tuple[str, int], str | None] = {PROXY: None}
    for rule in rules:
        host = rule.host.lower().rstrip(".")
        if _LOOPBACK.fullmatch(host):
            address = host
        elif _NAME.fullmatch(host) and not host.rpartition(".")[2].isdecimal():
            address = names.setdefault(host, f"127.1.0.{len(names)}")
        else:
            continue  # by the proxy alone
        if len(doors) < _MAX_DOORS:
            doors.setdefault((address, rule.port), host)
    return Plan(
        names=tuple(names.items()),
        doors=tuple((address, port, host) for (address, port), host in doors.items()),
    )


@contextmanager
def network(rules: tuple[HostRule, ...], what: str, max_bytes: int | None) -> Generator[NetworkGateway]:
    """What a child reaches of the network, as long as it is there.

    Args:
        rules: which hosts are granted.
        what: what the log calls the child.
        max_bytes: that all its connections together may carry; ``None`` for any number.
    """
    connections = Connections(rules, what, max_bytes)
    doors = NetworkGateway(planned(rules), connections)
    try:
        yield doors
    finally:
        doors.close()
        connections.close()


class NetworkGateway:
    """Waits behind the doors of one jail. Belongs to one event loop.

    Args:
        plan: see there.
        connections: makes those that are asked for.
    """

    def __init__(self, plan: Plan, connections: Connections) -> None:
        self._plan = plan
        self.connections = connections
        self._listeners: list[socket.socket] = []
        self._loop = asyncio.get_running_loop()

    def open(self, descriptors: Sequence[int]) -> None:
        """Begin to wait behind them; they come in the order of the plan."""
        for descriptor, (_address, port, host) in zip(descriptors, self._plan.doors, strict=True):
            listener = socket.socket(fileno=descriptor)
            listener.setblocking(False)
            self._listeners.append(listener)
            self._listen(listener, host, port)

    def _listen(self, listener: socket.socket, host: str | None, port: int) -> None:
        if listener.fileno() >= 0:
            self._loop.add_reader(listener.fileno(), self._accept, listener, host, port)

    def close(self) -> None:
        """Let nobody in any more."""
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
            listener.close()
        self._listeners.clear()

    def _accept(self, listener: socket.socket, host: str | None, port: int) -> None:
        try:
            here, _from = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except (
            OSError
        ):  # no descriptor is left: the listener stays ready, and would be called without a pause
            self._loop.remove_reader(listener.fileno())
            self._loop.call_later(_ACCEPT_PAUSE_SECONDS, self._listen, listener, host, port)
            return
        if self.connections.is_full:
            here.close()
            return
        here.setblocking(False)
        self.connections.start(self._loop.create_task(self._serve(here, host, port)))

    async def _serve(self, accepted: socket.socket, host: str | None, port: int) -> None:
        here = await asyncio.open_connection(sock=accepted, limit=_MAX_HEAD_BYTES)
        try:
            if host is None:
                await self._serve_proxy(here)
            else:
                with suppress(Denied, OSError, TimeoutError):  # there is no word to tell it by
                    await self.connections.carry(here, await self.connections.connected(host, port))
        finally:
            here[1].close()

    # --- the proxy ---------------------------------------------------------------------------------------------------

    async def _serve_proxy(self, here: Streams) -> None:
        reader, writer = here
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            host, port, opening = asked(head)
        except (ValueError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            _refuse(writer, "400 Bad Request", "a proxy is asked by CONNECT HOST:PORT, or by METHOD http://…")
            return
        except OSError:
            return
        try:
            there = await self.connections.connected(host, port)
        except Denied as error:
            _refuse(writer, "403 Forbidden", str(error))
            return
        except (OSError, TimeoutError) as error:
            _refuse(writer, "502 Bad Gateway", f"{host}:{port} cannot be reached: {type(error).__name__}")
            return
        if opening is None:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            there[1].write(opening)
        await self.connections.carry(here, there)


def asked(head: bytes) -> tuple[str, int, bytes | None]:
    """The host and the port that a proxy is asked for, and what is to be said there first; ``None`` for nothing.

    Raises:
        ValueError: this asks for nothing.
    """
    first, *fields = head[:-4].split(b"\r\n")
    method, target, version = first.split(b" ")
    if not version.startswith(b"HTTP/1."):
        raise ValueError(version)
    if method == b"CONNECT":
        split = urlsplit("//" + target.decode("ascii"))
        if split.hostname is None or split.port is None or split.path:
            raise ValueError(target)
        return split.hostname, split.port, None
    split = urlsplit(target.decode("ascii"))
    if split.scheme != "http" or split.hostname is None:
        raise ValueError(target)
    path = (split.path or "/") + (f"?{split.query}" if split.query else "")
    kept = [field for field in fields if field.partition(b":")[0].strip().lower() not in _OF_THE_WAY]
    lines = [b" ".join((method, path.encode("ascii"), version)), *kept, b"Connection: close", b"", b""]
    return split.hostname, split.port or 80, b"\r\n".join(lines)


def _refuse(writer: asyncio.StreamWriter, status: str, why: str) -> None:
    body = why.encode("ascii", "replace") + b"\n"
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode("ascii") + body)
