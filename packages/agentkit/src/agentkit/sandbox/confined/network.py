"""Network of a child: it makes no connections itself; the worker's broker makes them, to granted hosts only.

In the pool there is no network at all: names are resolved and connections made by asking the worker over a socket, from
which descriptors of connections come. Whatever goes through :mod:`socket` in Python works: synchronous clients, and
those of asyncio. A jail has a loopback with doors in it, see :mod:`agentkit.sandbox.child.network`; nothing is
replaced there.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from .refusals import note_host

_MAX_ANSWER_BYTES = 4096
_OUT_OF_REACH = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.EACCES, errno.EPERM}
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_plain = socket.socket
_plain_getaddrinfo = socket.getaddrinfo


class Broker:
    """Asks the worker, one question at a time.

    Args:
        descriptor: of the connection to it.
    """

    def __init__(self, descriptor: int) -> None:
        self._channel = _plain(fileno=descriptor)
        self._channel.setblocking(True)
        self._lock = threading.Lock()

    def addresses(self, host: str, port: int) -> list[str]:
        """Those of a granted host.

        Raises:
            PermissionError: it is not granted, or has an address that must not be reached.
            OSError: they cannot be found out.
        """
        said, _descriptors = self._ask({"resolve": [host, port]})
        return [str(address) for address in said["addresses"]]

    def connection(self, host: str, port: int) -> int:
        """The descriptor of a connection to a granted host.

        Raises:
            PermissionError: it is not granted, or has an address that must not be reached.
            OSError: it cannot be reached.
        """
        _said, descriptors = self._ask({"connect": [host, port]})
        if not descriptors:
            raise ConnectionError("the broker is gone")
        return descriptors[0]

    def _ask(self, question: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        with self._lock:
            self._channel.sendall(json.dumps(question).encode() + b"\n")
            answer, descriptors, _flags, _from = socket.recv_fds(self._channel, _MAX_ANSWER_BYTES, 1)
        said: dict[str, Any] = json.loads(answer or b'{"error": "the broker is gone"}')
        if "error" in said:
            kind = PermissionError if said.get("refused") else ConnectionError
            raise kind(said["error"])
        return said, descriptors


class BrokeredSocket(socket.socket):
    """A socket that, once it is connected, is the broker's connection. Options of TCP are the broker's business."""

    broker: Broker
    peer: tuple[str, int] | None = None
    _asked_for: int = -1

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:  # noqa: A002
        wanted = socket.AF_INET if family == -1 else family
        kind = socket.SOCK_STREAM if type == -1 else type
        stream = kind & 0xF == socket.SOCK_STREAM
        if fileno is not None or wanted not in _INTERNET or not stream:
            super().__init__(family, type, proto, fileno)
            return
        placeholder, other = socket.socketpair()
        other.close()
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM, 0, placeholder.detach())
        self._asked_for = wanted

    @property
    def family(self) -> Any:
        """What was asked for."""
        return super().family if self._asked_for == -1 else socket.AddressFamily(self._asked_for)

    def connect(self, address: Any) -> None:
        """Become a connection to a granted host.

        Raises:
            PermissionError, OSError: as :meth:`Broker.connection`.
        """
        if self._asked_for == -1:
            super().connect(address)
            return
        host, port = str(address[0]), int(address[1])
        connection = self.broker.connection(host, port)
        try:
            os.set_blocking(connection, self.gettimeout() is None)
            os.dup2(connection, self.fileno(), inheritable=False)
        finally:
            os.close(connection)
        self.peer = (host, port)

    def connect_ex(self, address: Any) -> int:
        """As :meth:`connect`, with the number of an error instead of it."""
        try:
            self.connect(address)
        except OSError as error:
            return error.errno or 111
        return 0

    def setsockopt(self, *arguments: Any) -> None:
        """Nothing, where it is not TCP what it would be set on."""
        if self._asked_for == -1:
            super().setsockopt(*arguments)

    def getpeername(self) -> Any:
        """The host and the port that were asked for."""
        return super().getpeername() if self.peer is None else self.peer


def offer(descriptor: int | None) -> None:
    """Let sockets go through the broker, or say what is missing where nothing is granted."""
    if descriptor is None:
        socket.create_connection = _refused  # type: ignore[assignment]
        socket.getaddrinfo = _explaining(_no_network)
        socket.socket = socket.SocketType = RefusedSocket  # type: ignore[misc, assignment]
        return
    broker = Broker(os.dup(descriptor))
    BrokeredSocket.broker = broker
    socket.socket = socket.SocketType = BrokeredSocket  # type: ignore[misc, assignment]
    socket.getaddrinfo = _resolving(broker)
    import asyncio.selector_events as loops  # only where there is a network to wait for

    _let_wait(loops.BaseSelectorEventLoop)


def explain() -> None:
    """In a jail with doors: say what is missing where a name has no address."""
    socket.getaddrinfo = _explaining(_not_granted)
    socket.socket = socket.SocketType = RefusedSocket  # type: ignore[misc, assignment]


class RefusedSocket(socket.socket):
    """A socket that remembers which host it could not be connected to."""

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:  # noqa: A002
        try:
            super().__init__(family, type, proto, fileno)
        except PermissionError:
            if family in {-1, *_INTERNET}:
                note_host("", 0)
            raise

    def connect(self, address: Any) -> None:
        """As that of any socket.

        Raises:
            OSError: it cannot be reached, or is not granted.
        """
        try:
            super().connect(address)
        except OSError as error:
            if error.errno in _OUT_OF_REACH and self.family in _INTERNET:
                note_host(address[0], address[1])
            raise


def _no_network(host: Any) -> str:
    return f"no network in the sandbox: {host} is not among the granted hosts"


def _not_granted(host: Any) -> str:
    return f"{host} is not among the granted hosts"


def _explaining(words: Callable[[Any], str]) -> Callable[..., Any]:
    """``getaddrinfo`` that says what is missing where a name has no address."""

    def resolved(host: Any, port: Any = None, *more: Any, **others: Any) -> Any:
        try:
            return _plain_getaddrinfo(host, port, *more, **others)
        except socket.gaierror:
            if host is None:
                raise
            note_host(host, port)
            raise PermissionError(words(host)) from None

    return resolved


def _refused(address: tuple[str, int], *_more: Any, **_others: Any) -> socket.socket:
    note_host(*address[:2])
    raise PermissionError(_no_network(address[0]))


def _resolving(broker: Broker) -> Callable[..., Any]:
    def getaddrinfo(
        host: Any,
        port: Any,
        family: int = 0,
        type: int = 0,  # noqa: A002
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        numeric = flags | socket.AI_NUMERICHOST
        try:
            return _plain_getaddrinfo(host, port, family, type, proto, numeric)
        except socket.gaierror:
            if host is None or flags & socket.AI_NUMERICHOST:
                raise
        number = int(_plain_getaddrinfo(None, port)[0][4][1])
        name = host.decode("ascii") if isinstance(host, bytes) else str(host)
        found: list[Any] = []
        for address in broker.addresses(name, number):
            of_six = ":" in address
            if family in {0, _INTERNET[of_six]}:
                found += _plain_getaddrinfo(address, port, 0, type, proto, numeric & ~socket.AI_ADDRCONFIG)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, f"{name} has no address of this family")
        return found

    return getaddrinfo


def _let_wait(loop: Any) -> None:
    """Connect in a thread, while the event loop goes on."""
    plain = loop.sock_connect

    async def sock_connect(self: Any, sock: Any, address: Any) -> None:
        if isinstance(sock, BrokeredSocket):
            await self.run_in_executor(None, sock.connect, address)
        else:
            await plain(self, sock, address)

    loop.sock_connect = sock_connect
