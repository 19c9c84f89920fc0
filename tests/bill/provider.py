"""A provider on loopback that streams Chat Completions, keeps its own books, and says where a call stands."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

NANOS_PER_TOKEN = 1_000
"""One dollar for a million tokens, read or written."""
TURNS = 2
"""A task calls the tool so often before it is done."""
PIECES = 6
MOMENTS = ("asked", "midway", "answered", "resting")
"""A request has arrived; half of its reply is sent; all of it is; or it was told to come again later."""


@dataclass(slots=True, kw_only=True)
class Call:
    """A line of the books.

    Attributes:
        number: from 1.
        task: what the task was to work on.
        max_tokens: the longest reply that was permitted.
        read: tokens of the request.
        written: tokens of the reply, as far as it was begun: it is billed also when nobody reads it to its end.
        answered: it was sent to its end.
    """

    number: int
    task: str
    max_tokens: int
    read: int
    written: int = 0
    answered: bool = False

    @property
    def charged(self) -> int:
        """Nano-dollars; a call that was begun to be answered is paid for."""
        return (self.read + self.written) * NANOS_PER_TOKEN if self.written else 0


class Provider:
    """Answers calls, the faulty ones as planned; ``async with`` it.

    Args:
        faults: what happens to a call, by its number: ``429`` or ``cut``.
        moments: told when the call of a number comes to a moment.

    Attributes:
        calls: all of them.
    """

    def __init__(self, faults: Mapping[int, str], moments: Callable[[int, str], None]) -> None:
        self.calls: list[Call] = []
        self._faults = faults
        self._moments = moments
        self._serving: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = re.search(r"(?i)content-length: (\d+)", head)
                assert length is not None
                if not await self._answer(json.loads(await reader.readexactly(int(length[1]))), writer):
                    break
        writer.close()

    async def _answer(self, body: Mapping[str, Any], writer: asyncio.StreamWriter) -> bool:
        """Whether the connection can be used again."""
        assert (body["stream"], body["stream_options"]["include_usage"]) == (True, True)
        said = body["messages"]
        call = Call(
            number=len(self.calls) + 1,
            task=next(message["content"] for message in said if message["role"] == "user"),
            max_tokens=body["max_tokens"],
            read=len(json.dumps(said)) // 4,
        )
        self.calls.append(call)
        self._moments(call.number, "asked")
        fault = self._faults.get(call.number)
        if fault == "429":
            writer.write(b"HTTP/1.1 429 X\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()
            self._moments(call.number, "resting")
            return True
        call.written = 10 + call.number
        events = list(_events(call, done=sum(message["role"] == "tool" for message in said) >= TURNS))
        writer.write(
            b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for number, event in enumerate(events):
            if number == len(events) // 2:
                self._moments(call.number, "midway")
                await asyncio.sleep(0.01)  # what was killed is dead then
                if fault == "cut":
                    return False
            chunk = f"data: {event}\n\n".encode()
            writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        call.answered = True
        self._moments(call.number, "answered")
        return True


def _events(call: Call, *, done: bool) -> list[str]:
    """The reply, which names the call: its text does, or the id of its call of the tool."""
    pieces: list[dict[str, Any]] = []
    if done:
        pieces += [{"content": piece} for piece in ["done ", *str(call.number)]]
    else:
        function = {"name": "calculator", "arguments": ""}
        pieces.append(
            {
                "tool_calls": [
                    {"index": 0, "id": f"call_{call.number}", "type": "function", "function": function}
                ]
            }
        )
        arguments = json.dumps({"expression": f"{call.number} + 1"})
        pieces += [
            {"tool_calls": [{"index": 0, "function": {"arguments": arguments[at : at + 5]}}]}
            for at in range(0, len(arguments), 5)
        ]
    events = [_chunk([{"index": 0, "delta": piece, "finish_reason": None}]) for piece in pieces]
    events.append(_chunk([{"index": 0, "delta": {}, "finish_reason": "stop" if done else "tool_calls"}]))
    used = {
        "prompt_tokens": call.read,
        "completion_tokens": call.written,
        "total_tokens": call.read + call.written,
    }
    return [*events, _chunk([], used), "[DONE]"]


def _chunk(choices: list[dict[str, Any]], usage: Mapping[str, int] | None = None) -> str:
    return json.dumps(
        {"id": "x", "object": "chat.completion.chunk", "model": "tiny-1", "choices": choices, "usage": usage}
    )
