"""The ways to a server, in the form that the SDK asks for: a pair of streams of messages.

This module imports the SDK; it is imported when a connection is opened.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import anyio
import httpx2
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCRequest, JSONRPCResponse, jsonrpc_message_adapter

from agentkit.characters import visible
from agentkit.errors import AddressRefused
from agentkit.guarded import GuardedTransport
from agentkit.mcp.authorizing import auth_of, sent_by
from agentkit.mcp.hosts import hosts_of
from agentkit.mcp.processes import AS_IT_IS, MOST_LINE, Streams, running
from agentkit.mcp.servers import McpServer
from agentkit.mcp.surroundings import Surroundings

log = logging.getLogger("agentkit.mcp")

_EXIT_SECONDS = 0.2
"""So long a program may take to end after its output has."""
_MOST_ASKED = 100
"""Questions of a server that were not answered yet, or whose answers it has not read."""
_ERROR_LINES = 5
_ERROR_LINE = 300


@dataclass(slots=True)
class Fate:
    """What became of one call.

    Attributes:
        refused: the server has not taken it, so it has certainly not taken effect.
    """

    refused: bool = False


FATE: ContextVar[Fate | None] = ContextVar("FATE", default=None)
"""Of the call that is being made: the SDK sends each message in the context of whoever asked for it."""


class Way(Protocol):
    """A transport that says when it is over.

    Attributes:
        over: set when the other side has gone.
        reason: why, in words that may be shown to anybody; empty where nothing is known.
    """

    over: asyncio.Event
    reason: str

    async def __aenter__(self) -> tuple[Any, Any]: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None: ...

    @property
    def tokens(self) -> Sequence[str]:
        """Tokens that were sent to the server."""
        ...

    @property
    def last_words(self) -> str:
        """What the server said last beside its messages, for the operator alone: it may hold anything."""
        ...


def way_to(server: McpServer, here: Surroundings) -> Way:
    """The transport to a resolved server."""
    return _Program(server, here) if server.url is None else _Address(server, here)


class _Base:
    def __init__(self, server: McpServer) -> None:
        self._server = server
        self._stack = AsyncExitStack()
        self.over = asyncio.Event()
        self.reason = ""

    @property
    def tokens(self) -> Sequence[str]:
        return ()

    @property
    def last_words(self) -> str:
        return ""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        self.over.set()
        return await self._stack.__aexit__(kind, error, trace)


# --- a program ---------------------------------------------------------------------------------------------------


class _Program(_Base):
    """Messages are lines of JSON: written to its input, read from its output. What it writes elsewhere is logged."""

    def __init__(self, server: McpServer, here: Surroundings) -> None:
        super().__init__(server)
        self._here = here
        self._heard = False
        self._asked = 0
        self._said: deque[str] = deque(maxlen=_ERROR_LINES)

    @property
    def last_words(self) -> str:
        return " / ".join(self._said)

    async def __aenter__(self) -> tuple[Any, Any]:
        here = self._here
        process = running(self._server, here.variables, here.sandboxes, here.granted)
        streams = await self._stack.enter_async_context(process)
        incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception]()
        write, outgoing = anyio.create_memory_object_stream[SessionMessage]()
        for work in (
            self._read(streams, incoming),
            self._write(outgoing, streams.stdin),
            self._listen(streams.stderr),
        ):
            self._stack.push_async_callback(_stopped, asyncio.create_task(work))
        for stream in (incoming, read, write, outgoing):
            self._stack.callback(stream.close)
        return read, write

    async def _read(
        self, streams: Streams, incoming: MemoryObjectSendStream[SessionMessage | Exception]
    ) -> None:
        line = b""
        try:
            while line := await streams.stdout.readline():
                if not line.lstrip().startswith(b"{"):
                    continue  # some programs greet on their output
                message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                self._heard = True
                self._asked += isinstance(message, JSONRPCRequest)
                if self._asked > _MOST_ASKED:
                    self.reason = f"it asks, and does not read the answers: {_MOST_ASKED} of them wait"
                    streams.process.kill()
                    return
                await incoming.send(SessionMessage(message))
        except ValueError:  # too long, too deep, or no message at all
            self.reason = f"it sent what is no message, or one of more than {MOST_LINE} bytes"
            if line:
                self._said.append(
                    f"on its output: {visible(line[:_ERROR_LINE].decode(errors='replace').strip())}"
                )
            streams.process.kill()  # nothing that it has still to say is wanted
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass
        else:
            with suppress(TimeoutError):
                await asyncio.wait_for(streams.process.wait(), _EXIT_SECONDS)
            self.reason = self._end_of(streams)
        finally:
            self.over.set()
            incoming.close()  # whoever waits for an answer is told

    def _end_of(self, streams: Streams) -> str:
        if streams.process.returncode is None:
            return "the program ended"
        code = f"the program ended with exit code {streams.process.returncode}"
        if streams.why:
            return streams.why
        if self._heard or self._server.sandbox == "none":
            return code
        return f"{code}: in the jail it sees its installation and what is granted (read, write); {AS_IT_IS}"

    async def _write(
        self, outgoing: MemoryObjectReceiveStream[SessionMessage], into: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError, anyio.ClosedResourceError):
            async for each in outgoing:
                line = each.message.model_dump_json(by_alias=True, exclude_unset=True)
                into.write(line.encode() + b"\n")
                await into.drain()
                self._asked -= isinstance(each.message, JSONRPCResponse | JSONRPCError)
        self.over.set()

    async def _listen(self, errors: asyncio.StreamReader) -> None:
        while chunk := await errors.read(4096):
            for line in chunk.decode(errors="replace").splitlines():
                if line.strip():
                    self._said.append(visible(line.strip())[:_ERROR_LINE])
                    log.debug("%s: %s", self._server.name, self._said[-1])


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


# --- an address --------------------------------------------------------------------------------------------------


class _Address(_Base):
    def __init__(self, server: McpServer, here: Surroundings) -> None:
        super().__init__(server)
        self._auth = auth_of(server, here.tokens, here.login)

    @property
    def tokens(self) -> Sequence[str]:
        return sent_by(self._auth)

    async def __aenter__(self) -> tuple[Any, Any]:
        server = self._server
        assert server.url is not None
        client = httpx2.AsyncClient(
            headers=dict(server.headers),
            auth=self._auth,
            timeout=httpx2.Timeout(server.connect_seconds, read=server.call_seconds + 5.0),
            # with a transport of its own, no proxy of the environment sees what is sent
            transport=_Capped(GuardedTransport(hosts_of(server)), self._gone, httpx2.URL(server.url).host),
        )
        await self._stack.enter_async_context(client)
        streams = streamable_http_client(server.url, http_client=client, max_sse_event_size=MOST_LINE)
        return await self._stack.enter_async_context(streams)

    def _gone(self) -> None:
        """There is no server any more, or another one, which does not know the session that it once gave us."""
        self.reason = "it was ended or restarted"
        self.over.set()


class _Capped(httpx2.AsyncBaseTransport):
    """Gives up on an answer that is too long. Streams of events are capped event by event, by the SDK."""

    def __init__(self, transport: httpx2.AsyncBaseTransport, gone: Callable[[], None], own: str) -> None:
        self._transport = transport
        self._gone = gone
        self._own = own

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["Accept-Encoding"] = "identity"
        try:
            response = await self._transport.handle_async_request(request)
        except AddressRefused as error:
            if request.url.host != self._own or "not public" not in str(error):
                raise
            raise AddressRefused(f"{error} (with `private = true` it is reached)") from None
        except httpx2.ConnectError:
            self._refused(request)
            raise
        if (
            response.status_code in {400, 404}
            and request.method == "POST"
            and "mcp-session-id" in request.headers
        ):
            self._refused(request)
        if "content-encoding" in response.headers:  # a few bytes may unfold to any size
            await response.aclose()
            raise httpx2.DecodingError("the answer is compressed, which was not asked for", request=request)
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            response.stream = _CappedStream(response.stream, request)
        return response

    def _refused(self, request: httpx2.Request) -> None:
        fate = FATE.get()
        if fate is not None and request.method == "POST":  # a GET asks for the rest of an answer
            fate.refused = True
        self._gone()

    async def aclose(self) -> None:
        await self._transport.aclose()


class _CappedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: Any, request: httpx2.Request) -> None:
        self._stream = stream
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > MOST_LINE:
                message = f"the answer has more than {MOST_LINE} bytes"
                raise httpx2.ReadError(message, request=self._request)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
