"""HTTP responses of a server: their messages, their events, and the meaning of a status.

This module imports the SDK's types; it is imported when a connection is opened.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, cast

import httpx2
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCResponse

from agentkit.mcp.framing import MALFORMED, Found, failed_answer, failure, is_answer_to, read_messages
from agentkit.mcp.processes import MAX_LINE
from agentkit.untrusted.text import visible

COMPRESSED = "the answer is compressed, which was not asked for"
EVENTS = "text/event-stream"
HTTP_OK = 200
HTTP_REFUSAL = 400
BUSY = frozenset({429, 503})
"""With these a server may say when it will take the same call."""

_MAX_RETRY_AFTER = 40
_EDGE = 4096
_ABOUT = {
    401: "the server wants other credentials",
    403: "the server does not allow it with these credentials",
    404: "there is no server of this protocol at the address, or the session is over",
    429: "the server is asked too often",
}


def refusal_of(status: int, headers: Mapping[str, str]) -> str:
    """Return a status of 400 and above in words."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "unknown status"
    words = f"HTTP status {status} ({phrase})"
    if about := _ABOUT.get(status):
        words += f": {about}"
    if later := headers.get("retry-after"):
        words += f"; Retry-After: {visible(later)[:_MAX_RETRY_AFTER]}"
    return words


def call_id_of(request: bytes) -> int | str | None:
    """Return the id of the call in the body of a request; ``None`` where it is none."""
    try:
        sent: Any = json.loads(request)
    except ValueError:
        return None
    if not isinstance(sent, dict) or "method" not in sent:
        return None
    found = cast("dict[str, Any]", sent).get("id")
    return found if isinstance(found, int | str) else None


def mended_body(found: Found, call_id: int | str) -> tuple[bytes, str]:
    """Return the answer to a call among what a body holds, and what stands beside it that is no message."""
    answer = next((each for each in found.messages if is_answer_to(each, call_id)), None)
    if answer is None:
        answer = failure(call_id, "it answered another call" if found.messages else MALFORMED)
    return _encoded(answer, call_id), found.noise


def _encoded(message: JSONRPCMessage, call_id: int | str | None) -> bytes:
    if call_id is not None and isinstance(message, JSONRPCResponse | JSONRPCError):
        message = message.model_copy(update={"id": call_id})
    return message.model_dump_json(by_alias=True, exclude_unset=True).encode()


def failed_body(call_id: int | str, why: str) -> Any:
    """Return the body of an answer that says why there is none."""
    return json.loads(_encoded(failure(call_id, why), call_id))


async def body_of(stream: CappedStream, call_id: int | str) -> tuple[bytes, str]:
    """Return the answer to a call in a body that arrives, and what stands beside it that is no message."""
    try:
        body = b"".join([chunk async for chunk in stream])
    except TooLong as error:
        return _encoded(failure(call_id, str(error)), call_id), ""
    return mended_body(await read_messages(body), call_id)


def _with_line_feeds(events: bytes) -> bytes:
    """A line of events may end with a line feed, a carriage return, or both."""
    return events.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


class TooLong(httpx2.ReadError):
    """A body has more bytes than are read."""


class CappedStream(httpx2.AsyncByteStream):
    """Gives up on a body of more than :data:`~agentkit.mcp.processes.MAX_LINE` bytes."""

    def __init__(self, stream: Any, request: httpx2.Request) -> None:
        self._stream = stream
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > MAX_LINE:
                raise TooLong(f"its answer has more than {MAX_LINE} bytes", request=self._request)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


class EventStream(httpx2.AsyncByteStream):
    """The events of an answer that hold messages; answers to other calls and what is no message are left out.

    Args:
        stream: of bytes.
        call_id: of the call that it answers; ``None`` where it answers none.
        report: is told what is no message.
    """

    def __init__(self, stream: Any, call_id: int | str | None, report: Callable[[str], object]) -> None:
        self._stream = stream
        self._call_id = call_id
        self._report = report

    async def __aiter__(self) -> AsyncIterator[bytes]:
        rest, event, is_first = bytearray(), bytearray(), True
        async for chunk in self._stream:
            if is_first and chunk:
                chunk, is_first = chunk.removeprefix(b"\xef\xbb\xbf"), False  # noqa: PLW2901
            if b"\n" not in chunk and b"\r" not in chunk and len(rest) + len(event) + len(chunk) <= MAX_LINE:
                rest += chunk  # looked at once: a long line must not cost quadratic time
                continue
            rest += chunk
            # a carriage return at the end may be the first half of the end of a line
            whole = len(rest) - rest.endswith(b"\r")
            *lines, last = _with_line_feeds(bytes(rest[:whole])).split(b"\n")
            rest = bytearray(last + rest[whole:])
            for line in lines:
                if line:
                    event += line + b"\n"
                    continue
                async for mended in self._mended(bytes(event)):
                    yield mended
                event.clear()
            if len(rest) + len(event) > MAX_LINE:
                for mended in self._too_long(bytes(event + rest)):
                    yield mended
                return
        async for mended in self._mended(_with_line_feeds(bytes(event + rest))):
            yield mended

    async def _mended(self, event: bytes) -> AsyncIterator[bytes]:
        lines = event.split(b"\n")
        data = [line.removeprefix(b"data:").removeprefix(b" ") for line in lines if line.startswith(b"data:")]
        others = b"".join(line + b"\n" for line in lines if line and not line.startswith(b"data:"))
        if not any(data):
            if event.strip():
                yield event + b"\n"
            return
        found = await read_messages(b"\n".join(data))
        if found.noise:
            self._report(found.noise)
        for message in found.messages:
            is_answer = isinstance(message, JSONRPCResponse | JSONRPCError)
            if is_answer and self._call_id is not None and not is_answer_to(message, self._call_id):
                continue
            yield others + b"data: " + _encoded(message, self._call_id) + b"\n\n"

    def _too_long(self, event: bytes) -> Iterator[bytes]:
        why = f"its answer has more than {MAX_LINE} bytes"
        begin = event[event.find(b"data:") + 5 :]
        failed = failed_answer(begin[:_EDGE], why)
        if failed is not None:
            yield b"data: " + _encoded(failed, self._call_id) + b"\n\n"

    async def aclose(self) -> None:
        await self._stream.aclose()
