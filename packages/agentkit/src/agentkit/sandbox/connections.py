"""Connections to granted hosts: made here, to addresses that were checked, for children that can make none."""

from __future__ import annotations

import asyncio
import logging
import socket
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from typing import TypeAlias

from agentkit.addresses import is_public
from agentkit.sandbox.confined.refusals import MOST
from agentkit.sandbox.terms import HostRule

CONNECT_SECONDS = 10.0
MOST_CONNECTIONS = 32
"""At a time, of one child; each is two tasks and two descriptors of this process."""

_HALF_OPEN_SECONDS = 300.0
"""So long one side may still speak after the other has said all."""

_MOST_ADDRESSES = 16
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
        most_bytes: that all its connections together may carry; ``None`` for any number.

    Attributes:
        carried_bytes: so far.
        refused: what was asked for in vain, with ``hosts`` where it is not granted, and ``private`` where its address
            is not public.
    """

    def __init__(self, rules: tuple[HostRule, ...], what: str, most_bytes: int | None) -> None:
        self._rules = rules
        self._what = what
        self._most_bytes = most_bytes
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
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))[:_MOST_ADDRESSES]
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
        return self._there >= MOST_CONNECTIONS

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
            if self._most_bytes is not None and self.carried_bytes > self._most_bytes:
                raise ConnectionAbortedError
            writer.write(piece)
            await writer.drain()
        with suppress(OSError):  # it has gone meanwhile
            if writer.can_write_eof():
                writer.write_eof()
