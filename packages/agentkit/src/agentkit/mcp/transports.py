"""Transports to a server, in the form that the SDK expects: a pair of message streams.

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
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol

import anyio
import httpx2
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCRequest, JSONRPCResponse

from agentkit.errors import AddressRefused, MachineError
from agentkit.machine_errors import machine_error
from agentkit.mcp.framing import Found, failed_answer, read_messages
from agentkit.mcp.hosts import hosts_of
from agentkit.mcp.http_answers import (
    BUSY,
    COMPRESSED,
    EVENTS,
    HTTP_OK,
    HTTP_REFUSAL,
    CappedStream,
    EventStream,
    body_of,
    call_id_of,
    failed_body,
    refusal_of,
)
from agentkit.mcp.oauth.flow import auth_of, sent_by
from agentkit.mcp.pool_context import PoolContext
from agentkit.mcp.processes import AS_IT_IS, MAX_LINE, Streams, running
from agentkit.mcp.servers import McpServer
from agentkit.net.headers import retry_after
from agentkit.net.http_client import GuardedTransport
from agentkit.untrusted.text import visible

log = logging.getLogger("agentkit.mcp")

_EXIT_SECONDS = 0.2
"""So long a program may take to end after its output has."""
_MAX_ASKED = 100
"""Questions of a server that were not answered yet, or whose answers it has not read."""
MAX_NOISE = 8 * MAX_LINE
"""Bytes without a message in them after which a program is ended."""
MAX_NOISY_LINES = 50_000
"""Lines without a message after which it is."""
_MAX_TOLD = 20
"""So many of them are reported."""
_CHUNK = 64 * 1024
_EDGE = 4096
_ERROR_LINES = 5
_ERROR_LINE = 300
_MAX_UNFINISHED = 1 << 16
"""Bytes of a line that has no end yet."""


@dataclass(slots=True)
class Fate:
    """What became of one call.

    Attributes:
        refused: the server has not taken it, so it has certainly not taken effect.
        refusal: the status with which it was refused, in words; empty for none.
        retry_after: seconds after which the server will take it, where it was too busy and has said so.
    """

    refused: bool = False
    refusal: str = ""
    retry_after: float | None = None


FATE: ContextVar[Fate | None] = ContextVar("FATE", default=None)
"""Of the call that is being made: the SDK sends each message in the context of whoever asked for it."""


class Way(Protocol):
    """A transport that says when it is over.

    Attributes:
        over: set when the other side has gone.
        reason: why, in words that may be shown to anybody; empty where nothing is known.
        machine_error: what the machine lacked for it.
    """

    over: asyncio.Event
    reason: str
    machine_error: MachineError | None

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
    def refusal(self) -> str:
        """The last status of HTTP that refused something, in words."""
        ...

    @property
    def last_words(self) -> str:
        """What the server said last beside its messages, for the operator alone: it may hold anything."""
        ...


def way_to(server: McpServer, here: PoolContext, hidden: Callable[[str], str]) -> Way:
    """The transport to a resolved server.

    Args:
        server: resolved.
        here: what all connections of its pool find.
        hidden: takes secrets out of what is logged.
    """
    return _Program(server, here, hidden) if server.url is None else _Address(server, here, hidden)


class _Noise:
    """Reports what a server writes that is no message: what looks like one once as a warning, the rest at debug."""

    def __init__(self, server: McpServer, hidden: Callable[[str], str]) -> None:
        self._name = server.name
        self._hidden = hidden
        self._has_warned = False
        self._count = 0

    def told(self, raw: str) -> str:
        """Report it, and return it as it was reported."""
        self._count += 1
        if self._count > _MAX_TOLD:
            return ""
        words = str(visible(self._hidden(raw[:_MAX_UNFINISHED].strip())))[:_ERROR_LINE]
        level = logging.DEBUG
        if not self._has_warned and "{" in words:
            self._has_warned, level = True, logging.WARNING
        log.log(level, "MCP server %s writes what is no message: %s", self._name, words)
        return f"on its output: {words}"


class _Base:
    def __init__(self, server: McpServer, hidden: Callable[[str], str]) -> None:
        self._server = server
        self._hidden = hidden
        self._noise = _Noise(server, hidden)
        self._stack = AsyncExitStack()
        self.over = asyncio.Event()
        self.reason = ""
        self.machine_error: MachineError | None = None

    @property
    def tokens(self) -> Sequence[str]:
        return ()

    @property
    def refusal(self) -> str:
        return ""

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

    def __init__(self, server: McpServer, here: PoolContext, hidden: Callable[[str], str]) -> None:
        super().__init__(server, hidden)
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
        # answers that nobody reads are counted below; without room for them here the session would wait, and count none
        write, outgoing = anyio.create_memory_object_stream[SessionMessage](2 * _MAX_ASKED)
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
        lines = _Lines(streams.stdout)
        try:
            async for line, is_whole in lines:
                found = await read_messages(line) if is_whole else _too_long(line)
                if found.noise:
                    lines.noise += 1
                    if told := self._noise.told(found.noise):
                        self._said.append(told)
                if found.messages and is_whole:
                    self._heard = True
                    lines.skipped = lines.noise = 0
                for message in found.messages:
                    self._asked += isinstance(message, JSONRPCRequest)
                    await incoming.send(SessionMessage(message))
                babbles = lines.skipped > MAX_NOISE or lines.noise > MAX_NOISY_LINES
                if self._asked > _MAX_ASKED or babbles:
                    asks = f"it asks, and does not read the answers: {_MAX_ASKED} of them wait"
                    told = f"it sent {lines.noise} lines ({lines.skipped} bytes) of what is no message"
                    self.reason = asks if self._asked > _MAX_ASKED else told
                    streams.process.kill()  # nothing that it has still to say is wanted
                    return
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
        rest = b""
        while chunk := await errors.read(4096):
            *lines, rest = (rest + chunk).split(b"\n")  # a secret may lie across two chunks
            if len(rest) > _MAX_UNFINISHED:
                lines, rest = [*lines, rest], b""
            self._log_noise(lines)
        self._log_noise([rest])

    def _log_noise(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            if line.strip():
                self._said.append(self._shown(line.decode(errors="replace")))
                log.debug("%s: %s", self._server.name, self._said[-1])

    def _shown(self, line: str) -> str:
        """A line as it may be logged; what is secret is cut before it is shortened, else a part of it would be left."""
        shown: str = visible(self._hidden(line.strip()))
        return shown[:_ERROR_LINE]


class _Lines:
    """The lines of a stream, each with whether it is whole: of one that is too long the beginning and the end are kept.

    Attributes:
        skipped: bytes since it was last set to zero.
        noise: lines without a message, counted by whoever reads them.
    """

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self.skipped = self.noise = 0

    async def __aiter__(self) -> AsyncIterator[tuple[bytes, bool]]:
        buffer, is_whole, seen = bytearray(), True, 0
        while chunk := await self._stream.read(_CHUNK):
            self.skipped += len(chunk)
            buffer += chunk
            await asyncio.sleep(0)  # what is there already is read without a pause
            while (end := buffer.find(b"\n", seen)) >= 0:
                yield bytes(buffer[:end]), is_whole and end <= MAX_LINE
                del buffer[: end + 1]
                is_whole, seen = True, 0
            seen = len(buffer)
            if len(buffer) > MAX_LINE:
                del buffer[_EDGE : len(buffer) - _EDGE]
                is_whole, seen = False, len(buffer)
                if self.skipped > MAX_NOISE:
                    yield bytes(buffer), False
        if buffer:
            yield bytes(buffer), is_whole


def _too_long(line: bytes) -> Found:
    why = f"its answer has more than {MAX_LINE} bytes"
    failed = failed_answer(line, why)
    return Found(
        messages=[] if failed is None else [failed], noise=line[:_ERROR_LINE].decode(errors="replace")
    )


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


# --- an address --------------------------------------------------------------------------------------------------


class _Address(_Base):
    def __init__(self, server: McpServer, here: PoolContext, hidden: Callable[[str], str]) -> None:
        super().__init__(server, hidden)
        self._auth = auth_of(server, here.tokens, here.login)
        self._capped: _Capped | None = None

    @property
    def refusal(self) -> str:
        return "" if self._capped is None else self._capped.refusal

    @property
    def tokens(self) -> Sequence[str]:
        return sent_by(self._auth)

    async def __aenter__(self) -> tuple[Any, Any]:
        server = self._server
        assert server.url is not None
        own = httpx2.URL(server.url).host
        self._capped = _Capped(GuardedTransport(hosts_of(server)), self._gone, own, self._noise)
        client = httpx2.AsyncClient(
            headers=dict(server.headers),
            auth=self._auth,
            timeout=httpx2.Timeout(server.connect_seconds, read=server.call_seconds + 5.0),
            # with a transport of its own, no proxy of the environment sees what is sent
            transport=self._capped,
        )
        await self._stack.enter_async_context(client)
        streams = streamable_http_client(server.url, http_client=client, max_sse_event_size=MAX_LINE)
        return await self._stack.enter_async_context(streams)

    def _gone(self, error: BaseException | None = None) -> None:
        """There is no server any more, or another one, which does not know the session that it once gave us."""
        self.reason = "it was ended or restarted"
        if error is not None:  # the SDK tells its type alone
            self.machine_error = machine_error(error, began=False)
        self.over.set()


class _Capped(httpx2.AsyncBaseTransport):
    """Takes from answers what is a message, gives up on one that is too long, and notes why a server refuses."""

    def __init__(
        self,
        transport: httpx2.AsyncBaseTransport,
        gone: Callable[[BaseException | None], None],
        own: str,
        noise: _Noise,
    ) -> None:
        self.refusal = ""
        self._transport = transport
        self._gone = gone
        self._own = own
        self._noise = noise

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["Accept-Encoding"] = "identity"
        try:
            response = await self._transport.handle_async_request(request)
        except AddressRefused as error:
            if request.url.host != self._own or "not public" not in str(error):
                raise
            raise AddressRefused(f"{error} (with `private = true` it is reached)") from None
        except httpx2.ConnectError as error:
            self._refused(request, error)
            raise
        if (
            response.status_code in {400, 404}
            and request.method == "POST"
            and "mcp-session-id" in request.headers
        ):
            self._refused(request)
        if response.status_code >= HTTP_REFUSAL:
            self._note(response)
        if response.headers.pop("content-encoding", "").strip().lower() not in {"", "identity", "none"}:
            await response.aclose()  # a few bytes may unfold to any size
            if request.method != "POST" or (call_id := call_id_of(request.content)) is None:
                raise httpx2.DecodingError(COMPRESSED, request=request)
            return httpx2.Response(HTTP_OK, json=failed_body(call_id, COMPRESSED), request=request)
        if not response.headers.get("content-type", "").startswith(EVENTS):
            response.stream = CappedStream(response.stream, request)
        if request.method == "POST" and response.status_code == HTTP_OK:
            await self._mend(request, response)
        return response

    def _note(self, response: httpx2.Response) -> None:
        refusal, fate = refusal_of(response.status_code, response.headers), FATE.get()
        if fate is not None:
            fate.refusal = refusal
            if response.status_code in BUSY:
                fate.retry_after = retry_after(response.headers, datetime.now(UTC))
        self.refusal = refusal

    async def _mend(self, request: httpx2.Request, response: httpx2.Response) -> None:
        """See to it that the answer to a call holds messages of the protocol and nothing else."""
        call_id = call_id_of(request.content)
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == EVENTS:
            response.stream = EventStream(response.stream, call_id, self._noise.told)
        elif call_id is not None and kind != "text/html":
            body, noise = await body_of(CappedStream(response.stream, request), call_id)
            if noise:
                self._noise.told(noise)
            for name in ("content-length", "transfer-encoding", "content-type"):
                response.headers.pop(name, None)
            response.headers["content-type"] = "application/json"
            response.stream = httpx2.ByteStream(body)

    def _refused(self, request: httpx2.Request, error: BaseException | None = None) -> None:
        fate = FATE.get()
        if fate is not None and request.method == "POST":  # a GET asks for the rest of an answer
            fate.refused = True
        self._gone(error)

    async def aclose(self) -> None:
        await self._transport.aclose()
