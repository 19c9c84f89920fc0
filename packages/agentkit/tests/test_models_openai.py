from __future__ import annotations

import asyncio
import itertools
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentkit.codec import to_json_text
from agentkit.errors import (
    Actor,
    ContextTooLong,
    ModelAuthError,
    ModelBadRequest,
    ModelBadResponse,
    ModelError,
    ModelOverloaded,
    ModelRateLimited,
    ModelTimeout,
    ModelUnreachable,
    UsageError,
)
from agentkit.messages import (
    AssistantMessage,
    Attachment,
    Delta,
    ModelReply,
    ModelRequest,
    Reasoning,
    ReasoningDelta,
    StopReason,
    Text,
    TextDelta,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentkit.models import endpoint as endpoint_module
from agentkit.models.openai import OpenAIModel
from agentkit.models.openai_stream import EventReader, ReplyDraft
from agentkit.models.openai_wire import Dialect, decode_reply, encode_request
from agentkit.models.refusals import retry_after
from agentkit.testing.model_contract import ModelContract
from agentkit.testing.models import as_reply

# pytest's importlib mode knows the folder as a package; mypy, given the folder, does not
from .openai_server import OpenAIProvider, completion, delta, error, events  # type: ignore[import-not-found]
from .wire_server import KEY, STREAM, Answer, WireServer, as_events, as_json  # type: ignore[import-not-found]

HELLO = ModelRequest(messages=(UserMessage(text="Hello"),))
DIALECT = Dialect(provider="test", model="tiny", official=False)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WireServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with WireServer() as running:
        yield running


@pytest.fixture
async def model(server: WireServer) -> AsyncIterator[OpenAIModel]:
    async with OpenAIModel("tiny", api_key=KEY, base_url=server.url, provider="test") as opened:
        yield opened


@pytest.fixture
def provider(server: WireServer, model: OpenAIModel) -> OpenAIProvider:
    return OpenAIProvider(server, model)


class TestWhole(ModelContract):
    counts = frozenset({"cached_tokens", "cache_write_tokens", "reasoning_tokens"})


class TestStreamed(TestWhole):
    streamed = True


def chat(message: dict[str, Any], finish_reason: str | None = "stop", **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}], **more}


def read(message: dict[str, Any], finish_reason: str | None = "stop", **more: Any) -> ModelReply:
    return decode_reply(chat(message, finish_reason, **more), DIALECT)


def stream(*pieces: dict[str, Any], done: bool = True) -> tuple[ModelReply, list[Delta]]:
    """What the events of these bodies come to."""
    draft = ReplyDraft(DIALECT)
    deltas = [found for piece in pieces for found in draft.feed(piece)]
    return draft.finish(done=done), deltas


def calls(*pieces: dict[str, Any]) -> tuple[ToolCall, ...]:
    deltas = [delta({"tool_calls": [piece]}) for piece in pieces]
    return stream(*deltas, delta({}, "tool_calls"))[0].tool_calls


# --- what is sent ------------------------------------------------------------------------------------------------


async def test_the_request_goes_to_the_endpoint_with_the_key(server: WireServer, model: OpenAIModel) -> None:
    server.plan(as_json(completion(as_reply("Yes."))))
    await model.reply(HELLO)
    (asked,) = server.journal
    assert asked.target == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body == {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}


async def test_without_a_key_there_is_no_authorization(server: WireServer) -> None:
    server.plan(as_json(completion(as_reply("Yes."))))
    async with OpenAIModel("tiny", api_key=None, base_url=server.url + "/?version=1") as model:
        await model.reply(HELLO)
    assert "authorization" not in server.journal[0].headers
    assert server.journal[0].target == "/v1/chat/completions?version=1"


@pytest.mark.parametrize(
    "base_url, field",
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://mine.openai.azure.com/openai/v1/", "max_completion_tokens"),
        ("http://localhost:11434/v1", "max_tokens"),
        ("https://notopenai.com/v1", "max_tokens"),
    ],
)
async def test_the_bound_has_the_name_that_the_endpoint_knows(base_url: Any, field: Any) -> None:
    sent = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(json.loads(await request.aread()))
        return httpx2.Response(200, json=completion(as_reply("Yes.")))

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
        model = OpenAIModel("tiny", api_key=KEY, base_url=base_url, client=client)
        await model.reply(ModelRequest(messages=HELLO.messages, max_tokens=9))
        await model.aclose()
        assert not client.is_closed
    assert {name: value for name, value in sent[0].items() if "tokens" in name} == {field: 9}


def test_a_stream_is_asked_for_its_usage() -> None:
    body = json.loads(encode_request(HELLO, DIALECT, stream=True))
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}


def test_the_schema_is_not_sent_as_strict() -> None:
    request = ModelRequest(messages=(), output_schema={"type": "object"})
    body = json.loads(encode_request(request, DIALECT, stream=False))
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "output", "schema": {"type": "object"}, "strict": False},
    }


def test_bad_calls_of_the_past_are_sent_in_a_form_that_no_server_refuses() -> None:
    call = ToolCall(id="call_1", name="functions.add two", invalid='{"a": ')
    said = AssistantMessage(parts=(call,))
    result = ToolMessage(call_id="call_1", name="add", content="not JSON", is_error=True)
    body = json.loads(encode_request(ModelRequest(messages=(said, result)), DIALECT, stream=False))
    function = body["messages"][0]["tool_calls"][0]["function"]
    assert function == {"name": "functions_add_two", "arguments": '{"invalid_json":"{\\"a\\": "}'}
    assert body["messages"][1]["content"] == "Error: not JSON"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_goes_back_in_the_field_it_came_in(field: Any) -> None:
    call = {"id": "call_1", "function": {"name": "add", "arguments": "{}"}}
    for thought in ("Hm.", ""):  # DeepSeek wants even an empty one back
        reply = read({field: thought, "content": None, "tool_calls": [call]}, "tool_calls")
        streamed, _ = stream(delta({field: thought}), delta({"tool_calls": [call]}), delta({}, "tool_calls"))
        assert reply.parts == streamed.parts
        request = ModelRequest(messages=(AssistantMessage(parts=reply.parts),))
        assert json.loads(encode_request(request, DIALECT, stream=False))["messages"][0][field] == thought


DETAILS = [
    {
        "type": "reasoning.text",
        "text": "Hm.",
        "signature": "sig",
        "index": 0,
        "format": "anthropic-claude-v1",
    },
    {"type": "reasoning.encrypted", "data": "gAAA", "index": 1},
]


def test_the_details_of_reasoning_go_back_as_they_came() -> None:
    pieces = [
        {"type": "reasoning.text", "text": "H", "index": 0, "format": "anthropic-claude-v1"},
        {"type": "reasoning.text", "text": "m.", "index": 0, "signature": None},
        {"type": "reasoning.text", "text": "", "index": 0, "signature": "sig"},
        {"type": "reasoning.encrypted", "data": "gA", "index": 1},
        {"type": "reasoning.encrypted", "data": "AA", "index": 1},
    ]
    whole = read({"reasoning": "Hm.", "reasoning_details": DETAILS, "content": "Yes."})
    told = [
        delta({"reasoning": text, "reasoning_details": [piece]})
        for text, piece in zip(["H", "m.", "", "", ""], pieces, strict=True)
    ]
    streamed, _ = stream(*told, delta({"content": "Yes."}), delta({}, "stop"))
    silent, _ = stream(delta({"reasoning_details": DETAILS, "content": "Yes."}), delta({}, "stop"))
    for reply in (whole, streamed, silent):
        request = ModelRequest(messages=(AssistantMessage(parts=reply.parts),))
        (said,) = json.loads(encode_request(request, DIALECT, stream=False))["messages"]
        assert said == {"role": "assistant", "content": "Yes.", "reasoning_details": DETAILS}


def test_a_linked_document_is_taken_by_openrouter_only() -> None:
    linked = Attachment(media_type="application/pdf", url="https://example.com/a.pdf")
    request = ModelRequest(messages=(UserMessage(text="Sum up.", attachments=(linked,)),))
    with pytest.raises(ModelBadRequest, match="application/pdf are not taken by address"):
        encode_request(request, DIALECT, stream=False)
    router = Dialect(provider="openrouter", model="any", official=False, routed=True)
    (said,) = json.loads(encode_request(request, router, stream=False))["messages"]
    assert said["content"][0]["file"]["file_data"] == linked.url


def test_further_fields_are_sent_as_they_are() -> None:
    more = Dialect(provider="test", model="tiny", official=False, more={"service_tier": "flex"})
    assert json.loads(encode_request(HELLO, more, stream=False))["service_tier"] == "flex"


def test_reasoning_of_another_provider_is_left_out() -> None:
    said = AssistantMessage(parts=(Reasoning(text="Hm.", data={"signature": "x"}), Text(text="Yes.")))
    body = json.loads(encode_request(ModelRequest(messages=(said,)), DIALECT, stream=False))
    assert body["messages"] == [{"role": "assistant", "content": "Yes."}]


def test_what_json_cannot_hold_is_the_developers_error() -> None:
    with pytest.raises(UsageError):
        encode_request(ModelRequest(messages=(), temperature=float("nan")), DIALECT, stream=False)


# --- what comes back, whole --------------------------------------------------------------------------------------


def test_content_in_parts() -> None:
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
        {"type": "text", "text": "It is "},
        {"type": "text", "text": "21 °C."},
        {"type": "refusal", "refusal": " Sorry."},
        {"type": "image_url", "image_url": {}},
    ]
    assert read({"content": content}).parts == (Reasoning(text="Hm."), Text(text="It is 21 °C. Sorry."))


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (None, {}),
        ("", {}),
        (" \n", {}),
        ("{}", {}),
        ('{"a": 1}', {"a": 1}),
        ({"a": 1}, {"a": 1}),
        ('"\\ud83d\\ude00"', None),
        ('{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        ('{"a": "\\ud83d"}', None),
        ('{"a": NaN}', None),
        ("[1]", None),
        ("null", None),
        ('{"a": 1', None),
        ("add(1, 2)", None),
        ("[" * 100_000, None),
    ],
)
def test_arguments(arguments: Any, expected: Any) -> None:
    reply = read({"tool_calls": [{"id": "call_1", "function": {"name": "add", "arguments": arguments}}]})
    (call,) = reply.tool_calls
    assert (call.arguments, call.invalid) == ((expected, None) if expected is not None else ({}, arguments))


def test_ids_are_made_where_they_are_missing_or_doubled() -> None:
    ids = [None, "", "a", "a", 7, "b"]
    found = read(
        {"tool_calls": [{"id": each, "function": {"name": "add", "arguments": "{}"}} for each in ids]}
    )
    made = [call.id for call in found.tool_calls]
    assert len(set(made)) == len(ids)
    assert all(made)
    assert (made[2], made[4], made[5]) == ("a", "7", "b")


def test_the_older_function_call() -> None:
    reply = read(
        {"content": None, "function_call": {"name": "add", "arguments": '{"a": 1}'}}, "function_call"
    )
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [("add", {"a": 1})]
    assert reply.stop_reason is StopReason.TOOL_CALLS


def test_a_call_without_a_name_is_a_bad_response() -> None:
    with pytest.raises(ModelBadResponse, match="without a name"):
        read({"tool_calls": [{"id": "a", "function": {"arguments": "{}"}}]})


CALL = {"id": "a", "function": {"name": "add", "arguments": "{}"}}


@pytest.mark.parametrize(
    "message, finish_reason, expected",
    [
        ({"content": "x"}, "stop", StopReason.END),
        ({"content": "x"}, None, StopReason.END),
        ({"content": "x"}, "eos_token", StopReason.END),
        ({"content": "x"}, "tool_calls", StopReason.END),
        ({"content": "x"}, "length", StopReason.LENGTH),
        ({"content": "x"}, "content_filter", StopReason.FILTERED),
        ({"content": None, "refusal": "No."}, "stop", StopReason.REFUSED),
        ({"tool_calls": [CALL]}, "stop", StopReason.TOOL_CALLS),
        ({"tool_calls": [CALL]}, "function_call", StopReason.TOOL_CALLS),
        ({"tool_calls": [CALL]}, "length", StopReason.LENGTH),
    ],
)
def test_stop_reasons(message: Any, finish_reason: Any, expected: Any) -> None:
    whole = read(message, finish_reason)
    assert whole.stop_reason is expected
    assert replace(stream(delta(message, finish_reason))[0], model=whole.model) == whole


def test_a_refusal_is_told_with_its_text() -> None:
    reply, deltas = stream(delta({"refusal": "I "}), delta({"refusal": "won't."}), delta({}, "stop"))
    assert (reply.parts, reply.stop_reason) == ((Text(text="I won't."),), StopReason.REFUSED)
    assert deltas == [TextDelta(text="I "), TextDelta(text="won't.")]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        {"choices": "none"},
        chat({"content": None}, "tool_calls"),
        chat({"content": "half"}, "error"),
    ],
)
def test_what_is_no_completion_is_a_bad_response(body: Any) -> None:
    with pytest.raises(ModelBadResponse):
        decode_reply(body, DIALECT)


@pytest.mark.parametrize(
    "usage, expected",
    [
        (None, Usage()),
        ({"prompt_tokens": None, "completion_tokens": -1, "cost": 3}, Usage()),
        ({"prompt_tokens": 10**400, "completion_tokens": True}, Usage()),
        (
            {"prompt_tokens": 9.0, "completion_tokens": 2, "prompt_cache_hit_tokens": 4},
            Usage(input_tokens=9, output_tokens=2, cached_tokens=4),
        ),
    ],
)
def test_usage_is_zero_where_nobody_says(usage: Any, expected: Any) -> None:
    assert read({"content": "x"}, usage=usage).usage == expected


def test_openrouter_tells_the_cost() -> None:
    router = Dialect(provider="openrouter", model="any", official=False, routed=True)
    body = chat({"content": "x"}, usage={"prompt_tokens": 9, "completion_tokens": 2, "cost": 0.25})
    assert decode_reply(body, router).usage == Usage(input_tokens=9, output_tokens=2, cost_usd=0.25)


def test_halves_of_surrogate_pairs_do_not_get_through() -> None:
    assert read({"content": "a\ud83d\ude00b\ud83d"}).text == "a😀b\ufffd"
    reply, deltas = stream(
        delta({"content": "a\ud83d"}), delta({"content": "\ude00b\ud83d"}), delta({}, "stop")
    )
    assert reply.text == "".join(found.text for found in deltas) == "a😀b"


# --- what comes back, streamed -----------------------------------------------------------------------------------


def function(name: str | None, arguments: str | None, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}, **more}


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(
            [
                function("add", "", index=0, id="x"),
                function("mul", "", index=1, id="y"),
                function(None, '{"b"', index=1),
                function(None, '{"a"', index=0),
                function(None, ": 2}", index=1),
                function(None, ": 1}", index=0),
            ],
            id="interleaved by index",
        ),
        pytest.param(
            [function("add", '{"a": 1}', index=0, id="x"), function("mul", '{"b": 2}', index=0, id="y")],
            id="whole, every index 0",
        ),
        pytest.param(
            [function("add", '{"a": 1}', id="x"), function("mul", '{"b": 2}', id="y")], id="whole, no index"
        ),
        pytest.param(
            [function("add", '{"a": 1}'), function("mul", '{"b": 2}')], id="whole, neither index nor id"
        ),
        pytest.param(
            [
                function("add", '{"a"', id="x"),
                function(None, ": 1}", id="x"),
                function("mul", None, id="y"),
                function(None, '{"b": 2}'),
            ],
            id="in pieces, no index",
        ),
        pytest.param(
            [
                function("add", '{"a"', index=0, id="x"),
                function("add", ": 1}", index=0, id="x"),
                function("m", "", index=1, id=""),
                function("ul", '{"b": 2}', index=1),
            ],
            id="name repeated, name in pieces",
        ),
        pytest.param(
            [
                function("add", '{"a"', index=3, id="x"),
                function(None, ": 1}", index=3, id="other"),
                function("mul", '{"b": 2}', index=5, id="x"),
            ],
            id="a new id for each piece, gaps in the index",
        ),
    ],
)
def test_tool_calls_in_pieces(pieces: Any) -> None:
    found = calls(*pieces)
    assert [(call.name, call.arguments) for call in found] == [("add", {"a": 1}), ("mul", {"b": 2})]
    assert len({call.id for call in found}) == 2


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_streamed_beside_the_text(field: Any) -> None:
    pieces = [delta({field: "Let "}), delta({field: "me."}), delta({"content": "Yes."}), delta({}, "stop")]
    reply, deltas = stream(*pieces)
    assert [type(part) for part in reply.parts] == [Reasoning, Text]
    assert [part.text for part in reply.parts if not isinstance(part, ToolCall)] == ["Let me.", "Yes."]
    assert deltas == [ReasoningDelta(text="Let "), ReasoningDelta(text="me."), TextDelta(text="Yes.")]


def test_usage_comes_after_the_last_choice() -> None:
    reply, _ = stream(
        *events(ModelReply(parts=(Text(text="x"),), usage=Usage(input_tokens=3, output_tokens=1)))
    )
    assert (reply.usage, reply.model) == (Usage(input_tokens=3, output_tokens=1), "test:tiny-1")


def test_other_choices_are_not_ours() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "stop"}]}
    assert stream(delta({"content": "yes"}), other, delta({}, "stop"))[0].text == "yes"


def test_done_ends_a_reply_without_a_reason_only_where_there_is_one() -> None:
    assert stream(delta({"content": "x"}))[0].text == "x"
    for pieces, done in [([], True), ([delta({"content": "x"})], False), ([delta({"content": ""})], True)]:
        with pytest.raises(ModelBadResponse, match="in the middle"):
            stream(*pieces, done=done)


async def streamed(
    server: WireServer, model: OpenAIModel, *chunks: bytes, kind: str = STREAM, end: str = "well"
) -> ModelReply:
    server.plan(Answer(kind=kind, chunks=chunks, end=end))
    reply: ModelReply = await model.reply(HELLO, lambda _delta: None)
    return reply


def line(piece: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(piece, ensure_ascii=False).encode()


TEXT, STOP, DONE = line(delta({"content": "Grüße 🌤️"})), line(delta({}, "stop")), b"data: [DONE]"


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([TEXT + b"\n\n" + STOP + b"\n\n" + DONE + b"\n\n"], id="at once"),
        pytest.param([bytes([byte]) for byte in TEXT + b"\n\n" + STOP + b"\n\n"], id="byte by byte"),
        pytest.param([TEXT + b"\r\n\r\n", STOP + b"\r\n\r\n", DONE + b"\r\n\r\n"], id="CRLF"),
        pytest.param(
            [b"\xef\xbb\xbf: hi\n\n", TEXT + b"\n\n", b": ping\n\n", STOP + b"\n\n"], id="BOM, comments"
        ),
        pytest.param([b"event: x\nid: 1\nretry: 5\n" + TEXT + b"\n\n", STOP + b"\n\n"], id="other fields"),
        pytest.param([TEXT + b"\n\n", STOP + b"\n\n", DONE], id="no line end after the last"),
        pytest.param([TEXT + b"\n\n", STOP], id="neither line end nor DONE"),
        pytest.param([TEXT.replace(b"data: ", b"data:") + b"\n\n" + STOP + b"\n\n"], id="no space"),
        pytest.param(
            [TEXT.replace(b', "', b',\ndata: "') + b"\n\n" + STOP + b"\n\n"], id="data on many lines"
        ),
        pytest.param([TEXT[6:] + b"\n", STOP[6:] + b"\n"], id="JSON lines"),
    ],
)
async def test_the_ways_to_write_a_stream(server: WireServer, model: OpenAIModel, chunks: Any) -> None:
    assert (await streamed(server, model, *chunks)).text == "Grüße 🌤️"


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([], id="nothing"),
        pytest.param([b"\n\n"], id="empty lines"),
        pytest.param([DONE + b"\n\n"], id="DONE alone"),
        pytest.param([TEXT + b"\n\n"], id="no end"),
        pytest.param([TEXT + b"\n\n" + STOP[:-5] + b"\n\n", DONE + b"\n\n"], id="cut event"),
        pytest.param([TEXT + b"\n\n", b"<html>oops</html>\n"], id="a web page inside"),
        pytest.param([TEXT + b"\n\n", b"data: [1]\n\n", STOP + b"\n\n"], id="no object"),
        pytest.param([TEXT.replace(b"\xc3", b"\xff") + b"\n\n", STOP + b"\n\n"], id="no UTF-8"),
        pytest.param([(TEXT + STOP).replace(b"data", b"\rdata")], id="lines that end with CR alone"),
    ],
)
async def test_a_broken_stream_is_an_error(server: WireServer, model: OpenAIModel, chunks: Any) -> None:
    with pytest.raises(ModelBadResponse):
        await streamed(server, model, *chunks)


@pytest.mark.parametrize(
    "inside, kind",
    [
        (b'data: {"error": {"message": "x", "code": 429}}\n\n', ModelRateLimited),
        (b'data: {"error": {"message": "x", "type": "server_error"}}\n\n', ModelOverloaded),
        (b'data: {"error": {"message": "x", "code": "502"}}\n\n', ModelOverloaded),
        (b'event: error\ndata: {"error": "boom"}\n\n', ModelBadResponse),
        (b'{"error": {"message": "x", "type": "BadRequestError", "code": 400}}\n', ModelBadRequest),
        (b'data: {"object": "error", "message": "maximum context length", "code": 400}\n\n', ContextTooLong),
    ],
)
async def test_an_error_inside_a_stream(
    server: WireServer, model: OpenAIModel, inside: Any, kind: Any
) -> None:
    with pytest.raises(ModelError) as caught:
        await streamed(server, model, TEXT + b"\n\n", inside)
    assert type(caught.value) is kind


async def test_a_server_that_cannot_stream_is_understood(server: WireServer, model: OpenAIModel) -> None:
    server.plan(as_json(completion(ModelReply(parts=(Reasoning(text="Hm."), Text(text="Yes."))))))
    deltas: list[Delta] = []
    reply = await model.reply(HELLO, deltas.append)
    assert reply.text == "Yes."
    assert deltas == [ReasoningDelta(text="Hm."), TextDelta(text="Yes.")]


async def test_a_server_that_streams_unasked_is_understood(server: WireServer, model: OpenAIModel) -> None:
    server.plan(as_events(events(as_reply("Yes."))))
    assert (await model.reply(HELLO)).text == "Yes."


async def test_an_error_of_the_watcher_is_not_the_models(server: WireServer, model: OpenAIModel) -> None:
    def watch(_delta: Delta) -> None:
        raise OSError("disk full")

    server.plan(as_events(events(as_reply("Yes."))))
    with pytest.raises(OSError, match="disk full"):
        await model.reply(HELLO, watch)


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, body, kind",
    [
        (400, {"error": {"message": "prompt is too long: 9 > 8", "type": "x"}}, ContextTooLong),
        (400, {"error": {"type": "exceed_context_size_error"}}, ContextTooLong),
        (400, {"detail": "nope"}, ModelBadRequest),
        (402, {}, ModelAuthError),
        (408, {}, ModelTimeout),
        (409, {}, ModelBadRequest),
        (422, [], ModelBadRequest),
        (429, "slow down", ModelRateLimited),
        (500, None, ModelOverloaded),
        (502, {}, ModelOverloaded),
        (524, {}, ModelTimeout),
        (529, {}, ModelOverloaded),
        (204, {}, ModelBadResponse),
    ],
)
async def test_statuses(server: WireServer, model: OpenAIModel, status: Any, body: Any, kind: Any) -> None:
    server.plan(as_json(body, status=status) if status != 204 else Answer(status=201))
    with pytest.raises(ModelError) as caught:
        await model.reply(HELLO)
    assert type(caught.value) is kind
    assert str(caught.value).startswith("test:tiny: ")


async def test_an_error_text_holds_the_providers_words_and_the_request(
    server: WireServer, model: OpenAIModel
) -> None:
    body = {
        "error": {
            "message": "secret",
            "code": "bad_thing",
            "type": "invalid_request_error",
            "param": "n[0].x",
        }
    }
    server.plan(as_json(body, status=400, headers={"x-request-id": "req_7"}))
    with pytest.raises(ModelBadRequest) as caught:
        await model.reply(HELLO)
    assert str(caught.value) == (
        "test:tiny: the provider refuses the request "
        "(status 400, code bad_thing, type invalid_request_error, param n[0].x, request req_7)"
    )


async def test_a_key_that_comes_back_as_a_word_is_not_passed_on(
    server: WireServer, model: OpenAIModel
) -> None:
    headers = {"x-request-id": f"req-{KEY}"}
    server.plan(as_json({"error": {"code": KEY, "type": f"x.{KEY}"}}, status=401, headers=headers))
    with pytest.raises(ModelAuthError) as caught:
        await model.reply(HELLO)
    assert str(caught.value) == "test:tiny: the provider does not accept the key (status 401)"


async def test_no_credit_is_the_operators(server: WireServer, model: OpenAIModel) -> None:
    server.plan(as_json(error("insufficient_quota", "insufficient_quota", {}), status=429))
    with pytest.raises(ModelAuthError, match="no credit") as caught:
        await model.reply(HELLO)
    assert caught.value.actor is Actor.OPERATOR
    assert not caught.value.transient


async def test_a_redirect_is_not_followed(server: WireServer, model: OpenAIModel) -> None:
    server.plan(Answer(status=307, headers={"Location": server.url + "/elsewhere"}))
    with pytest.raises(ModelBadRequest, match="redirect"):
        await model.reply(HELLO)
    assert len(server.journal) == 1


async def test_an_overload_says_how_long_to_wait(server: WireServer, model: OpenAIModel) -> None:
    server.plan(Answer(status=503, kind="text/html", headers={"Retry-After": "2.5"}, chunks=[b"<h1>busy"]))
    with pytest.raises(ModelOverloaded) as caught:
        await model.reply(HELLO)
    assert caught.value.retry_after == 2.5


@pytest.mark.parametrize(
    "headers, expected",
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sunday, 22-Nov-26 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 -0000"}, 30.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "Sun, 99 Nov 2026 12:00:30 GMT"}, None),
    ],
)
def test_retry_after(headers: Any, expected: Any) -> None:
    assert retry_after(headers, datetime(2026, 11, 22, 12, tzinfo=UTC)) == expected


async def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with WireServer() as gone:
        url = gone.url
    async with OpenAIModel("tiny", api_key=KEY, base_url=url) as model:
        with pytest.raises(ModelUnreachable, match=r"cannot connect to 127\.0\.0\.1"):
            await model.reply(HELLO)


async def test_silence_is_a_timeout(server: WireServer) -> None:
    server.plan(Answer(before=True, end="hang"))
    async with OpenAIModel("tiny", api_key=KEY, base_url=server.url, timeout=0.5) as model:
        with pytest.raises(ModelTimeout):
            await model.reply(HELLO)
    await server.hung_up.wait()


async def test_silence_in_a_stream_is_a_timeout(server: WireServer) -> None:
    server.plan(as_events([delta({"content": "x"})], done=False, end="hang"))
    async with OpenAIModel("tiny", api_key=KEY, base_url=server.url, timeout=0.5) as model:
        with pytest.raises(ModelTimeout):
            await model.reply(HELLO, lambda _delta: None)
    await server.hung_up.wait()


@pytest.mark.parametrize("on_delta", [None, lambda _delta: None])
async def test_an_endless_reply_is_cut(
    server: WireServer, model: OpenAIModel, monkeypatch: pytest.MonkeyPatch, on_delta: Any
) -> None:
    monkeypatch.setattr(endpoint_module, "MAX_BYTES", 100_000)
    server.plan(Answer(kind=STREAM if on_delta else "application/json", chunks=[b": x" * 1000 + b"\n"] * 40))
    with pytest.raises(ModelBadResponse, match="more than 100000 bytes"):
        await model.reply(HELLO, on_delta)


async def test_a_reply_that_cannot_be_decompressed_is_refused(server: WireServer, model: OpenAIModel) -> None:
    server.plan(Answer(headers={"Content-Encoding": "gzip"}, chunks=[b"this is no gzip"]))
    with pytest.raises(ModelBadResponse, match="decompressed"):
        await model.reply(HELLO)


# --- connections -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_delta", [None, lambda _delta: None])
async def test_a_connection_is_used_again(
    server: WireServer, model: OpenAIModel, provider: OpenAIProvider, on_delta: Any
) -> None:
    for _ in range(3):
        provider.answer(as_reply("Yes."))
        await model.reply(HELLO, on_delta)
    assert (len(server.journal), server.connections) == (3, 1)


async def test_a_server_that_stays_silent_after_the_end_does_not_hold_the_reply(
    server: WireServer, model: OpenAIModel
) -> None:
    server.plan(as_events(events(as_reply("Yes.")), end="hang"))
    assert (await model.reply(HELLO, lambda _delta: None)).text == "Yes."
    await server.hung_up.wait()


async def test_cancelling_in_the_middle_of_a_stream_closes_the_connection(
    server: WireServer, model: OpenAIModel
) -> None:
    server.plan(as_events([delta({"content": "x"})], done=False, end="hang"))
    seen = asyncio.Event()
    waiting = asyncio.create_task(model.reply(HELLO, lambda _delta: seen.set()))
    await seen.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await server.hung_up.wait()


async def test_closing_closes_the_connections_and_the_model_can_be_used_again(
    server: WireServer, model: OpenAIModel, provider: OpenAIProvider
) -> None:
    for _ in range(2):
        provider.answer(as_reply("Yes."))
        await model.reply(HELLO)
        await model.aclose()
        await model.aclose()
    assert server.connections == 2


def test_one_model_serves_one_loop_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    model = OpenAIModel("tiny", api_key=None, base_url="http://127.0.0.1:9/v1")

    async def once() -> str:
        async with WireServer() as server, model:
            model._endpoint._url, model._endpoint._parsed = server.url + "/chat/completions", None
            server.plan(as_json(completion(as_reply("Yes."))))
            return (await model.reply(HELLO)).text

    assert [asyncio.run(once()) for _ in range(3)] == ["Yes."] * 3


# --- construction ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {"api_key": ""},
        {"api_key": " \n"},
        {"api_key": "sk-a\nX-Evil: 1"},
        {"api_key": "sk-ä"},
        {"base_url": "api.openai.com/v1"},
        {"base_url": "ftp://host/v1"},
        {"base_url": "http:///v1"},
        {"base_url": "http://user:secret@host/v1"},
        {"base_url": "http://host/v1#top"},
        {"base_url": "http://host:99999/v1"},
        {"base_url": "http://[::1/v1"},
        {"timeout": 0},
        {"timeout": float("inf")},
        {"name": ""},
    ],
)
def test_what_cannot_be_right_is_said_at_once(more: Any) -> None:
    arguments: dict[str, Any] = {"name": "tiny", "api_key": KEY, **more}
    with pytest.raises(UsageError) as caught:
        OpenAIModel(**arguments)
    assert "secret" not in str(caught.value)
    assert "Evil" not in str(caught.value)


async def test_white_space_around_a_key_is_no_part_of_it(server: WireServer) -> None:
    server.plan(as_json(completion(as_reply("Yes."))))
    async with OpenAIModel("tiny", api_key=f" {KEY}\r\n", base_url=server.url) as model:
        await model.reply(HELLO)
    assert server.journal[0].headers["authorization"] == f"Bearer {KEY}"


async def test_the_key_is_not_logged(
    server: WireServer, model: OpenAIModel, provider: OpenAIProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    provider.answer(as_reply("Yes."))
    await model.reply(HELLO)
    assert KEY not in caplog.text
    assert KEY not in repr(model)


def test_the_library_is_light_until_a_model_is_constructed() -> None:
    program = "import sys, agentkit.models.openai; sys.exit('httpx2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_httpx2_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "agentkit.models.endpoint")
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(UsageError, match=r"agentkit\[openai\]"):
        OpenAIModel("tiny", api_key=KEY)


# --- anything at all ---------------------------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = [
    "choices",
    "message",
    "delta",
    "content",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "id",
    "index",
]
KEYS += [
    "finish_reason",
    "usage",
    "prompt_tokens",
    "prompt_tokens_details",
    "reasoning",
    "type",
    "thinking",
    "text",
    "reasoning_details",
]
WIRE_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 2)
    | st.sampled_from(["", "x", "{}", "\ud800", "stop", "thinking"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=30,
)
BODIES = st.dictionaries(st.sampled_from(KEYS), WIRE_VALUES | JSON_VALUES, max_size=6)
CHOICES = st.fixed_dictionaries({"message": BODIES, "delta": BODIES, "finish_reason": WIRE_VALUES})


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a machine that is busy with other tests
@given(BODIES | st.fixed_dictionaries({"choices": st.lists(CHOICES, max_size=2)}))
def test_any_body_is_a_reply_that_can_be_stored_or_a_bad_response(body: Any) -> None:
    try:
        reply = decode_reply(body, DIALECT)
    except ModelBadResponse:
        return
    assert_storable(reply)


@given(
    st.lists(st.fixed_dictionaries({"choices": st.lists(CHOICES, max_size=2)}) | BODIES, max_size=5),
    st.booleans(),
)
def test_any_events_are_a_reply_that_can_be_stored_or_a_bad_response(pieces: Any, done: Any) -> None:
    try:
        reply, deltas = stream(*pieces, done=done)
    except ModelBadResponse:
        return
    assert_storable(reply)
    assert "".join(found.text for found in deltas if isinstance(found, TextDelta)) == reply.text


def assert_storable(reply: ModelReply) -> None:
    for part in reply.parts:
        held = (part.id, part.name, part.invalid) if isinstance(part, ToolCall) else (part.text,)
        for text in held:
            (text or "").encode()
        if isinstance(part, Reasoning):
            to_json_text(part.data)
    assert len({call.id for call in reply.tool_calls}) == len(reply.tool_calls)


@given(st.binary(), st.lists(st.integers(0, 60), max_size=5))
def test_any_bytes_are_read_the_same_however_they_are_cut(data: Any, cuts: Any) -> None:
    def found(chunks: Sequence[bytes]) -> list[bytes] | str:
        reader = EventReader()
        try:
            return [event for chunk in chunks for event in reader.feed(chunk)] + list(reader.close())
        except ModelBadResponse as refused:
            return str(refused)

    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert found([data]) == found([data[start:end] for start, end in itertools.pairwise(places)])
