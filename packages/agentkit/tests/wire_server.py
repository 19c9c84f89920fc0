"""A server of HTTP on loopback: scripted answers, real faults, a journal of what was asked. Each wire builds on it."""

from __future__ import annotations

import asyncio
import base64
import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from agentkit.messages import Attachment, ModelReply, ModelRequest, Reasoning
from agentkit.ports import Model
from agentkit.testing.model_contract import Fault

KEY = "sk-test-0123456789abcdef"
JSON = "application/json"
STREAM = "text/event-stream; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as it arrived."""

    target: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One response: its chunks are sent one by one, then it ends as ``end`` says."""

    status: int = 200
    kind: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    chunks: Sequence[bytes] = ()
    end: str = "well"
    """``well``; ``drop``: the connection is closed on an incomplete body; ``hang``: silence until the client goes."""
    before: bool = False
    """Not even a status line is sent."""


Planned = Callable[[Mapping[str, Any]], Answer]


class WireServer:
    """Answers each request with the next planned answer; ``async with`` it."""

    def __init__(self, path: str = "/v1") -> None:
        self.path = path
        self.journal: list[Asked] = []
        self.connections = 0
        self.silent = asyncio.Event()
        self.hung_up = asyncio.Event()
        self._planned: deque[Planned] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=2048)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}{self.path}"

    def plan(self, answer: Answer | Planned) -> None:
        self._planned.append(answer if callable(answer) else lambda _body: answer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while (asked := await self._read(reader)) is not None:
                self.journal.append(asked)
                if not await self._write(self._planned.popleft()(asked.body), reader, writer):
                    break
        except (
            ConnectionError,
            asyncio.CancelledError,
        ):  # the latter is __aexit__; Python 3.11 logs it otherwise
            pass
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Asked | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
        return Asked(target=first.split(" ")[1], headers=headers, body=json.loads(body))

    async def _write(
        self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Whether the connection can be used again."""
        if not answer.before:
            lines = [f"HTTP/1.1 {answer.status} X", "Transfer-Encoding: chunked"]
            lines += [f"Content-Type: {answer.kind}"] if answer.kind else []
            lines += [f"{name}: {value}" for name, value in answer.headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
            for chunk in answer.chunks:
                writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                await writer.drain()
        if answer.end == "hang":
            await writer.drain()
            self.silent.set()
            assert await reader.read() == b""
            self.hung_up.set()
        elif answer.end == "well" and not answer.before:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            return True
        return False


# --- answers -----------------------------------------------------------------------------------------------------


def as_json(value: object, **more: Any) -> Answer:
    return Answer(chunks=[json.dumps(value).encode()], **more)


def as_events(events: Sequence[object], *, done: bool = True, **more: Any) -> Answer:
    chunks = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    return Answer(kind=STREAM, chunks=[*chunks, b"data: [DONE]\n\n"] if done else chunks, **more)


def attached(address: str, media_type: str, name: str = "") -> Attachment:
    """The attachment behind an address, which may hold it."""
    if not address.startswith("data:"):
        return Attachment(media_type=media_type, url=address, name=name)
    head, _, data = address.removeprefix("data:").partition(";base64,")
    return Attachment(media_type=head, data=base64.b64decode(data), name=name)


# --- the stand-in that the contract asks for ---------------------------------------------------------------------


class WireProvider(ABC):
    """The server as :class:`agentkit.testing.model_contract.FaultyProvider`; a wire says how it speaks."""

    secret = KEY

    def __init__(self, server: WireServer, model: Model) -> None:
        self.server = server
        self.model = model
        self._thought: object = None

    @abstractmethod
    def spoken(self, reply: ModelReply, body: Mapping[str, Any]) -> Answer:
        """The answer to the request ``body``."""

    @abstractmethod
    def failing(self, fault: Fault, body: Mapping[str, Any]) -> Answer:
        """The answer that goes wrong in this way."""

    @abstractmethod
    def understood(self, asked: Asked) -> ModelRequest:
        """What was asked."""

    @abstractmethod
    def thought_sent(self, reply: ModelReply) -> object:
        """The reasoning of a reply in the words of the wire."""

    @abstractmethod
    def thought_heard(self, body: Mapping[str, Any]) -> object:
        """All reasoning in a request, in the same form."""

    def answer(self, reply: ModelReply) -> None:
        if any(isinstance(part, Reasoning) for part in reply.parts):
            self._thought = self.thought_sent(reply)
        self.server.plan(lambda body: self.spoken(reply, body))

    @property
    def heard(self) -> list[ModelRequest]:
        return [self.understood(asked) for asked in self.server.journal]

    @property
    def thoughts(self) -> tuple[object, object]:
        return self._thought, self.thought_heard(self.server.journal[-1].body)

    def fail(self, fault: Fault) -> None:
        self.server.silent.clear()
        self.server.hung_up.clear()
        self.server.plan(lambda body: self.failing(fault, body))

    async def asked(self) -> None:
        await self.server.silent.wait()

    async def hung_up(self) -> None:
        await self.server.hung_up.wait()
