"""A server that speaks Chat Completions on loopback: scripted answers, real faults, a journal of what was asked."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from agentkit.messages import (
    AssistantMessage,
    Message,
    ModelReply,
    ModelRequest,
    Part,
    Reasoning,
    StopReason,
    Text,
    ToolCall,
    ToolMessage,
    ToolSpec,
    UserMessage,
)
from agentkit.models.openai import OpenAIModel
from agentkit.testing.models import Fault

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


class OpenAIServer:
    """Answers each request with the next planned answer; ``async with`` it."""

    def __init__(self) -> None:
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
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

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


# --- the wire, from the server's side ----------------------------------------------------------------------------


def as_json(value: object, **more: Any) -> Answer:
    return Answer(chunks=[json.dumps(value).encode()], **more)


def as_events(events: Sequence[object], *, done: bool = True, **more: Any) -> Answer:
    chunks = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    return Answer(kind=STREAM, chunks=[*chunks, b"data: [DONE]\n\n"] if done else chunks, **more)


FINISH = {
    StopReason.END: "stop",
    StopReason.TOOL_CALLS: "tool_calls",
    StopReason.LENGTH: "length",
    StopReason.REFUSED: "content_filter",
}


def completion(reply: ModelReply) -> dict[str, Any]:
    """``reply`` as OpenAI would send it."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if reply.tool_calls:
        message["tool_calls"] = [_call(call) for call in reply.tool_calls]
    if thought := "".join(part.text for part in reply.parts if isinstance(part, Reasoning)):
        message["reasoning_content"] = thought
    choice = {"index": 0, "message": message, "finish_reason": FINISH[reply.stop_reason]}
    return {
        "id": "x",
        "object": "chat.completion",
        "model": "tiny-1",
        "choices": [choice],
        "usage": _usage(reply),
    }


def events(reply: ModelReply) -> list[dict[str, Any]]:
    """``reply`` as OpenAI would stream it."""
    found = [delta({"role": "assistant", "content": ""})]
    for part in reply.parts:
        if isinstance(part, Text | Reasoning):
            name = "content" if isinstance(part, Text) else "reasoning_content"
            found += [delta({name: part.text[at : at + 3]}) for at in range(0, len(part.text), 3)]
    for index, call in enumerate(reply.tool_calls):
        whole = _call(call)
        arguments = whole["function"]["arguments"]
        first = {**whole, "index": index, "function": {"name": call.name, "arguments": ""}}
        found.append(delta({"tool_calls": [first]}))
        for at in range(0, len(arguments), 5):
            piece = {"index": index, "function": {"arguments": arguments[at : at + 5]}}
            found.append(delta({"tool_calls": [piece]}))
    found.append(delta({}, FINISH[reply.stop_reason]))
    return [*found, {"model": "tiny-1", "choices": [], "usage": _usage(reply)}]


def delta(piece: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": piece, "finish_reason": finish_reason}
    return {
        "id": "x",
        "object": "chat.completion.chunk",
        "model": "tiny-1",
        "choices": [choice],
        "usage": None,
    }


def _call(call: ToolCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
    }


def _usage(reply: ModelReply) -> dict[str, Any]:
    usage = reply.usage
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


# --- the stand-in that the contract asks for ---------------------------------------------------------------------


class OpenAIProvider:
    """The server as :class:`agentkit.testing.models.FaultyProvider`."""

    def __init__(self, server: OpenAIServer, model: OpenAIModel) -> None:
        self.server = server
        self.model = model
        self.secret = KEY

    def answer(self, reply: ModelReply) -> None:
        self.server.plan(
            lambda body: as_events(events(reply)) if body.get("stream") else as_json(completion(reply))
        )

    @property
    def heard(self) -> list[ModelRequest]:
        return [_read_request(asked.body) for asked in self.server.journal]

    def fail(self, fault: Fault) -> None:
        self.server.silent.clear()
        self.server.hung_up.clear()
        self.server.plan(lambda body: _fault(fault, body))

    async def asked(self) -> None:
        await self.server.silent.wait()

    async def hung_up(self) -> None:
        await self.server.hung_up.wait()


ERRORS: Mapping[Fault, tuple[int, str | None, str]] = {
    Fault.BAD_REQUEST: (400, None, "invalid_request_error"),
    Fault.CONTEXT_TOO_LONG: (400, "context_length_exceeded", "invalid_request_error"),
    Fault.BAD_KEY: (401, "invalid_api_key", "invalid_request_error"),
    Fault.FORBIDDEN: (403, None, "permission_error"),
    Fault.NO_CREDIT: (429, "insufficient_quota", "insufficient_quota"),
    Fault.UNKNOWN_MODEL: (404, "model_not_found", "invalid_request_error"),
    Fault.TOO_LARGE: (413, None, "invalid_request_error"),
    Fault.FILTERED: (400, "content_filter", "invalid_request_error"),
    Fault.RATE_LIMITED: (429, "rate_limit_exceeded", "tokens"),
    Fault.OVERLOADED: (503, None, "overloaded_error"),
    Fault.SERVER_ERROR: (500, None, "server_error"),
    Fault.GATEWAY_TIMEOUT: (504, None, "timeout"),
}


def error(code: object, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """An error object that, like some providers', quotes what it got."""
    text = f"Bad key {KEY} for {json.dumps(body)}"
    return {"error": {"message": text, "type": kind, "code": code, "param": f"key={KEY}"}}


def _fault(fault: Fault, body: Mapping[str, Any]) -> Answer:
    stream = bool(body.get("stream"))
    begun = as_events([delta({"content": "The answer"})], done=False).chunks
    whole = begun if stream else [b'{"choices": [{"message": {"content": "The ans']
    kind = STREAM if stream else JSON
    if fault in ERRORS:
        status, code, word = ERRORS[fault]
        headers = {"Retry-After": "7"} if status == 429 else {}
        return as_json(error(code, word, body), status=status, headers=headers)
    match fault:
        case Fault.DISCONNECT:
            return Answer(before=True)
        case Fault.DISCONNECT_MIDWAY:
            return Answer(kind=kind, chunks=whole, end="drop")
        case Fault.TRUNCATED:
            return Answer(kind=kind, chunks=whole)
        case Fault.GARBLED:
            garbled = b"data: {\xff\xfe not json\n\n" if stream else b"\xff\xfe not json"
            return Answer(kind=kind, chunks=[garbled])
        case Fault.WEB_PAGE:
            return Answer(kind="text/html", chunks=[b"<!doctype html>\n<h1>Welcome</h1>\n"])
        case Fault.ERROR_INSIDE:
            inside = error(503, "overloaded_error", body)
            return as_events([delta({"content": "The"}), inside]) if stream else as_json(inside)
        case _:
            return Answer(end="hang", before=True)


def _read_request(body: Mapping[str, Any]) -> ModelRequest:
    said = body["messages"]
    system = said[0]["content"] if said[0]["role"] == "system" else ""
    names = {
        call["id"]: call["function"]["name"] for message in said for call in message.get("tool_calls", [])
    }
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
    functions = [tool["function"] for tool in body.get("tools", [])]
    return ModelRequest(
        messages=tuple(_read_message(message, names) for message in said[bool(system) :]),
        instructions=system,
        tools=tuple(ToolSpec(**function) for function in functions),
        output_schema=schema,
        stop=tuple(body.get("stop", ())),
        max_tokens=body.get("max_tokens", body.get("max_completion_tokens")),
        temperature=body.get("temperature"),
    )


def _read_message(message: Mapping[str, Any], names: Mapping[str, str]) -> Message:
    match message["role"]:
        case "user":
            return UserMessage(text=message["content"])
        case "tool":
            content, call_id = message["content"], message["tool_call_id"]
            return ToolMessage(
                call_id=call_id,
                name=names[call_id],
                content=content.removeprefix("Error: "),
                is_error=content.startswith("Error: "),
            )
        case _:
            return AssistantMessage(parts=tuple(_read_parts(message)))


def _read_parts(message: Mapping[str, Any]) -> Iterator[Part]:
    if message.get("content"):
        yield Text(text=message["content"])
    for call in message.get("tool_calls", []):
        function = call["function"]
        yield ToolCall(id=call["id"], name=function["name"], arguments=json.loads(function["arguments"]))
