"""How programs in a jail reach granted hosts: doors on the jail's own loopback, behind which this process waits.

A jail has a network of its own with nothing in it. Its launcher listens at a few addresses there, and hands the
listening sockets out before anything that is not trusted runs; whoever connects to one inside is accepted here. A
granted name has an address of its own in the jail's table of hosts, so that any program reaches it as it would outside.
One door more is a proxy, for names that are granted with a ``*``, for addresses, and for telling in words what is
refused.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from agentkit.sandbox.connections import Connections, Denied, Streams
from agentkit.sandbox.terms import HostRule

PROXY = ("127.0.0.2", 3128)

_LOCAL = "localhost,127.0.0.1,::1"
_URL = f"http://{PROXY[0]}:{PROXY[1]}"
ENVIRONMENT = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _URL),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), _LOCAL),
    "NODE_USE_ENV_PROXY": "1",
}
"""What tells programs of the proxy."""

_MOST_DOORS = 32
_MOST_HEAD_BYTES = 1 << 16
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
        if len(doors) < _MOST_DOORS:
            doors.setdefault((address, rule.port), host)
    return Plan(
        names=tuple(names.items()),
        doors=tuple((address, port, host) for (address, port), host in doors.items()),
    )


@contextmanager
def network(rules: tuple[HostRule, ...], what: str, most_bytes: int | None) -> Generator[Doors]:
    """What a child reaches of the network, as long as it is there.

    Args:
        rules: which hosts are granted.
        what: what the log calls the child.
        most_bytes: that all its connections together may carry; ``None`` for any number.
    """
    connections = Connections(rules, what, most_bytes)
    doors = Doors(planned(rules), connections)
    try:
        yield doors
    finally:
        doors.close()
        connections.close()


class Doors:
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
        here = await asyncio.open_connection(sock=accepted, limit=_MOST_HEAD_BYTES)
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
