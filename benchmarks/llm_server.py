"""A Chat Completions server that thinks for no time: replies are encoded in advance.

python benchmarks/llm_server.py     prints its port; ends with SIGTERM

POST /plain/v1/chat/completions     one call of the tool ``add``; where its result is in the request, the answer
POST /text/N/v1/chat/completions    a text of N words, streamed word by word
GET  /stats                         the number of requests since the last time
"""

import asyncio
import json
import signal

USAGE = {"prompt_tokens": 50, "completion_tokens": 10, "total_tokens": 60}
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 20, "b": 22}'}}


def response(body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def completion(message: dict, reason: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    found = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "mock",
        "choices": [choice],
        "usage": USAGE,
    }
    return response(json.dumps(found).encode())


def streamed(words: int) -> bytes:
    def event(choices: list, usage: dict | None = None) -> str:
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "mock"}
        return json.dumps({**chunk, "choices": choices, "usage": usage})

    pieces = [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}] * words
    events = [event([piece]) for piece in pieces]
    events += [event([{"index": 0, "delta": {}, "finish_reason": "stop"}]), event([], USAGE), "[DONE]"]
    parts = [f"data: {data}\n\n".encode() for data in events]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


CALLING = completion({"content": None, "tool_calls": [CALL]}, "tool_calls")
ANSWER = completion({"content": "The answer is 42."}, "stop")


class Server(asyncio.Protocol):
    requests = 0
    texts: dict[str, bytes] = {}  # noqa: RUF012  (one server, one process)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, rest = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", 0))
        if len(rest) >= length:
            self.received = rest[length:]
            self.transport.write(self.answer(head.split(b" ", 2)[1].decode(), rest[:length]))

    @classmethod
    def answer(cls, path: str, body: bytes) -> bytes:
        if path == "/stats":
            seen, cls.requests = cls.requests, 0
            return response(json.dumps({"calls": seen}).encode())
        cls.requests += 1
        kind, _, rest = path[1:].partition("/")
        if kind == "text":
            words = rest.partition("/")[0]
            return cls.texts.setdefault(words, streamed(int(words)))
        return ANSWER if b"call_1" in body else CALLING


async def main() -> None:
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    server = await loop.create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop.add_signal_handler(signal.SIGTERM, done.set)
    await done.wait()


if __name__ == "__main__":
    asyncio.run(main())
