"""The worker's end of what a child may say: progress, and requests for connections to granted hosts."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from agentkit.addresses import is_public
from agentkit.sandbox.confined.calling import LONGEST_MESSAGE
from agentkit.sandbox.port import CallTerms

CONNECT_SECONDS = 10.0
MOST_CONNECTIONS = 32
"""That one call may have made; each is a task and two descriptors of the worker."""

MOST_RELAYED_BYTES = 256 << 20
"""That one call may send and receive, all its connections together."""

_MOST_SAID_BYTES = 1 << 20
_CHUNK = 1 << 16


class Denied(Exception):
    """The host is not granted, or its address must not be reached."""


class Broker:
    """Listens to one child. Belongs to one event loop.

    Args:
        terms: of the call: what is granted, and who is told of progress.
    """

    def __init__(self, terms: CallTerms) -> None:
        self._terms = terms
        self._rules = terms.grants.rules
        self._loop = asyncio.get_running_loop()
        self._channel, self._childs = socket.socketpair()
        self._channel.setblocking(False)
        self._buffer = bytearray()
        self._said = 0
        self._made = 0
        self._relayed = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def childs_end(self) -> int:
        """The descriptor that is handed to the child."""
        return self._childs.fileno()

    def handed_over(self) -> None:
        """The child has its end; ours is closed."""
        self._childs.close()

    def __enter__(self) -> Self:
        self._loop.add_reader(self._channel.fileno(), self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._hear()  # what it reported last
        self._stop()
        self._childs.close()
        self._channel.close()
        for task in self._tasks:
            task.cancel()

    def _stop(self) -> None:
        if self._channel.fileno() >= 0:
            self._loop.remove_reader(self._channel.fileno())

    def _hear(self) -> None:
        """Never with descriptors: those that a child sends are thrown away by the kernel."""
        try:
            piece = self._channel.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        self._said += len(piece)
        if not piece or self._said > _MOST_SAID_BYTES:
            self._stop()
            return
        self._buffer += piece
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = bytearray(rest)
        for line in lines:
            self._heard(line)

    def _heard(self, line: bytes | bytearray) -> None:
        try:
            message: Any = json.loads(line)
        except (ValueError, RecursionError):
            return
        match message:
            case {"report": str(text)}:
                self._terms.report(text[:LONGEST_MESSAGE])
            case {"connect": [str(host), int(port)]}:
                task = self._loop.create_task(self._serve(host, port))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case _:
                pass

    async def _serve(self, host: str, port: int) -> None:
        """Connect, hand the child its end, and carry what is said until one side has enough."""
        try:
            reader, writer = await self._connected(host, port)
        except Denied as error:
            self._answer({"refused": True, "error": str(error)})
            return
        except (OSError, TimeoutError) as error:
            self._answer({"error": f"{host}:{port} cannot be reached: {type(error).__name__}"})
            return
        here, there = socket.socketpair()
        here.setblocking(False)
        with there:
            self._answer({}, there.fileno())
        try:
            up = asyncio.create_task(self._send_up(here, writer))
            down = asyncio.create_task(self._send_down(reader, here))
            try:
                await asyncio.wait({up, down})
            finally:
                up.cancel()
                down.cancel()
        finally:
            here.close()
            writer.close()

    async def _connected(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        rule = next((rule for rule in self._rules if rule.covers(host, port)), None)
        if rule is None:
            message = f"{host}:{port} is not among the granted hosts"
            raise Denied(message)
        self._made += 1
        if self._made > MOST_CONNECTIONS:
            message = f"a call may make {MOST_CONNECTIONS} connections"
            raise Denied(message)
        async with asyncio.timeout(CONNECT_SECONDS):
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
            if not rule.private and not all(map(is_public, addresses)):
                message = f"{host} has an address that is not public"
                raise Denied(message)
            problem: OSError | None = None
            for address in addresses:  # never the name again, which could lead elsewhere by now
                try:
                    return await asyncio.open_connection(address, port)
                except OSError as error:
                    problem = error
        raise problem or OSError("no address")

    async def _send_up(self, here: socket.socket, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await self._loop.sock_recv(here, _CHUNK):
                self._count(piece)
                writer.write(piece)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()

    async def _send_down(self, reader: asyncio.StreamReader, here: socket.socket) -> None:
        with suppress(OSError):
            while piece := await reader.read(_CHUNK):
                self._count(piece)
                await self._loop.sock_sendall(here, piece)
        with suppress(OSError):
            here.shutdown(socket.SHUT_WR)

    def _count(self, piece: bytes) -> None:
        self._relayed += len(piece)
        if self._relayed > MOST_RELAYED_BYTES:
            raise ConnectionAbortedError

    def _answer(self, message: dict[str, Any], *descriptors: int) -> None:
        body = json.dumps(message).encode()
        with suppress(OSError):  # the child is gone, or does not read what it asked for
            if descriptors:
                socket.send_fds(self._channel, [body], descriptors)
            else:
                self._channel.send(body)
