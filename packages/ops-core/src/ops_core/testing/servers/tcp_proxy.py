"""TCP proxy for tests: it can cut, stop or slow a connection, or lose an answer."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

Target: TypeAlias = tuple[str, int] | Path
"""A host with a port, or a socket in the file system."""

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""``SO_LINGER`` for no time at all: the other side is told "reset", as by a machine that has lost its power."""

CHUNK = 65536


@dataclass(eq=False, slots=True)
class _Link:
    """One connection from a client to the server, in two halves."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    losing_the_answer: bool = False
    pumps: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    def reset(self) -> None:
        for writer in (self.client, self.server):
            _reset(writer)


class TcpProxy:
    """Listens on a free loopback port and passes everything on; an async context manager.

    Args:
        target: where to.

    Attributes:
        port: where it listens.
        delay_seconds: each piece that passes, in either direction, waits for so long.
        lost_answers: so many answers were lost by :meth:`lose_the_answer_to`.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._links: set[_Link] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._refuses = False
        self._fatal: bytes | None = None
        self._server: asyncio.Server | None = None
        self.port = 0
        self.delay_seconds = 0.0
        self.lost_answers = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        pumps = [pump for link in self._links for pump in link.pumps]
        self.cut()
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    # --- faults ---------------------------------------------------------------------------------------------------

    @property
    def links(self) -> int:
        """So many connections pass through it."""
        return len(self._links)

    def cut(self) -> None:
        """Reset every connection; new ones are accepted."""
        for link in tuple(self._links):
            link.reset()

    def refuse(self, *, refuse: bool = True) -> None:
        """Cut, and reset whoever connects anew, until told otherwise."""
        self._refuses = refuse
        if refuse:
            self.cut()

    def lead_to(self, target: Target) -> None:
        """Fail over: whoever connects from now on reaches ``target``; connections that there are stay as they are."""
        self._target = target

    def stop(self) -> None:
        """A black hole: connections stay, nothing passes."""
        self._flows.clear()

    def go_on(self) -> None:
        """What was held up passes."""
        self._flows.set()

    def lose_the_answer_to(self, request: bytes | None) -> None:
        """Pass on whatever holds ``request``, and reset the connection instead of the answer, until told otherwise.

        So the server does what it was asked to, and the client never learns it.
        """
        self._fatal = request

    # --- passing on -----------------------------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            _reset(writer)
            return
        try:
            answers, server = await self._connect()
        except OSError:
            _reset(writer)
            return
        link = _Link(writer, server)
        self._links.add(link)
        link.pumps = [
            asyncio.create_task(self._pump(link, reader, server)),
            asyncio.create_task(self._pump(link, answers, writer, back=True)),
        ]
        await asyncio.wait(link.pumps)
        self._links.discard(link)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection(*self._target)

    async def _pump(
        self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, back: bool = False
    ) -> None:
        with suppress(OSError):
            while data := await source.read(CHUNK):
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                await self._flows.wait()
                if back and link.losing_the_answer:
                    self.lost_answers += 1
                    link.reset()
                    return
                if not back and self._fatal is not None and self._fatal in data:
                    link.losing_the_answer = True
                sink.write(data)
                await sink.drain()
        with suppress(OSError):
            sink.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    peer: Any = writer.get_extra_info("socket")
    if peer is not None and peer.family != socket.AF_UNIX:
        with suppress(OSError):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()
