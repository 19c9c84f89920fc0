"""What the tests of clients share: requests, and what breaks connections."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from ops_core.schemas import BatchItem, TaskRequest
from ops_core.task import RetryPolicy

AT_ONCE = RetryPolicy(first_seconds=0.001, max_seconds=0.01)
AFTER_A_BREATH = RetryPolicy(first_seconds=0.3, factor=1.0)
"""gRPC connects again after 0.1 s at the earliest."""


def request(agent: str = "quick", **fields: object) -> TaskRequest:
    return TaskRequest.model_validate({"agent": agent, "input": "go", **fields})


def item(agent: str = "quick", **fields: object) -> BatchItem:
    return BatchItem.model_validate({"agent": agent, "input": "go", **fields})


class Proxy:
    """Between a client and a server; breaks connections when it is told to.

    Attributes:
        cut_after: bytes of answers to let through before the connection is cut; ``None`` for all of them.
        cuts: so many connections are cut, then no more.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.cut_after: int | None = None
        self.cuts = 0
        self.connections = 0

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[str]:
        async with asyncio.TaskGroup() as group:

            def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                served.append(group.create_task(self._serve(reader, writer)))

            served: list[asyncio.Task[None]] = []
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            server.close()
            for task in served:
                task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        cut = self.cut_after if self.cuts > 0 else None
        self.cuts -= cut is not None
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
        requests = asyncio.ensure_future(self._pass(reader, there_writer, None))
        try:
            with suppress(ConnectionError):
                await self._pass(there_reader, writer, cut)
        finally:
            requests.cancel()
            await asyncio.wait({requests})
            for one in (writer, there_writer):
                one.transport.abort()

    @staticmethod
    async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int | None) -> None:
        passed = 0
        while data := await reader.read(64):
            if most is not None and passed + len(data) > most:
                writer.write(data[: most - passed])
                return
            writer.write(data)
            passed += len(data)
