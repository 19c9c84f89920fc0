"""Broker of a child: the worker's end for its progress and its requests for connections to granted hosts."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from agentkit.sandbox.child.network import Connections, Denied
from agentkit.sandbox.confined.function_call import LONGEST_MESSAGE

_MAX_SAID_BYTES = 1 << 20
_CHUNK = 1 << 16


class Broker:
    """Listens to one child. Belongs to one event loop.

    Args:
        connections: makes those that it may have.
        report: shown what it reports.
    """

    def __init__(self, connections: Connections, report: Callable[[str], None]) -> None:
        self._connections = connections
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._channel, self._childs = socket.socketpair()
        self._channel.setblocking(False)
        self._buffer = bytearray()
        self._said = 0

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
        if not piece or self._said > _MAX_SAID_BYTES:
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
                self._report(text[:LONGEST_MESSAGE])
            case {"connect": [str(host), int(port)]}:
                self._serve(host, port, self._connect)
            case {"resolve": [str(host), int(port)]}:
                self._serve(host, port, self._resolve)
            case _:
                pass

    def _serve(self, host: str, port: int, how: Callable[[str, int], Any]) -> None:
        if self._connections.is_full:
            self._answer({"error": "there are too many connections at a time"})
            return
        self._connections.start(self._loop.create_task(self._answered(host, port, how)))

    async def _answered(self, host: str, port: int, how: Callable[[str, int], Any]) -> None:
        try:
            await how(host, port)
        except Denied as error:
            self._answer({"refused": True, "error": str(error)})
        except (OSError, ValueError) as error:
            self._answer({"error": f"{host}:{port} cannot be reached: {type(error).__name__}"})

    async def _resolve(self, host: str, port: int) -> None:
        self._answer({"addresses": await self._connections.resolved(host, port)})

    async def _connect(self, host: str, port: int) -> None:
        """Connect, hand the child its end, and carry what is said."""
        there = await self._connections.connected(host, port)
        try:
            here, childs = socket.socketpair()
            with childs:
                self._answer({}, childs.fileno())
            await self._connections.carry(await asyncio.open_connection(sock=here), there)
        finally:
            there[1].close()

    def _answer(self, message: dict[str, Any], *descriptors: int) -> None:
        body = json.dumps(message).encode() + b"\n"
        with suppress(OSError):  # the child is gone, or does not read what it asked for
            if descriptors:
                socket.send_fds(self._channel, [body], descriptors)
            else:
                self._channel.send(body)
