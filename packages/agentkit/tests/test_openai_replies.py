"""What comes back over the OpenAI wire, whole and streamed, and whatever else comes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentkit.errors import (
    ContextTooLong,
    ModelBadRequest,
    ModelBadResponse,
    ModelError,
    ModelOverloaded,
    ModelRateLimited,
)
from agentkit.messages import (
    Delta,
    ModelReply,
    Reasoning,
    ReasoningDelta,
    StopReason,
    Text,
    TextDelta,
    ToolCall,
    Usage,
)
from agentkit.models.adapter.dialect import Dialect
from agentkit.models.adapter.sse import EventReader
from agentkit.models.openai.chat import decode_reply
from agentkit.models.openai.client import OpenAIModel
from agentkit.testing.models import as_reply
from agentkit.transcript.codec import to_json_text

from .openai_pieces import DIALECT, HELLO, chat, function, read, stream, streamed  # type: ignore[import-not-found]
from .openai_server import completion, delta, events  # type: ignore[import-not-found]
from .wire_server import WireServer, as_events, as_json  # type: ignore[import-not-found]


def calls(*pieces: dict[str, Any]) -> tuple[ToolCall, ...]:
    deltas = [delta({"tool_calls": [piece]}) for piece in pieces]
    return stream(*deltas, delta({}, "tool_calls"))[0].tool_calls


# --- what comes back, whole ---------------------------------------------------------------------------------------


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


def test_a_call_without_a_name_is_a_call_of_no_tool() -> None:
    reply = read({"tool_calls": [{"id": "a", "function": {"arguments": '{"a": 1}'}}]})
    assert reply.parts == (ToolCall(id="a", name="", arguments={"a": 1}),)


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
        chat({"content": "half"}, "error"),
    ],
)
def test_what_is_no_completion_is_a_bad_response(body: Any) -> None:
    with pytest.raises(ModelBadResponse):
        decode_reply(body, DIALECT)


@pytest.mark.parametrize(
    "usage, expected",
    [
        (None, Usage(partial=True)),
        ({"prompt_tokens": None, "completion_tokens": -1, "cost": 3}, Usage(partial=True)),
        ({"prompt_tokens": 10**400, "completion_tokens": True}, Usage(partial=True)),
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


# --- what comes back, streamed ------------------------------------------------------------------------------------


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


# --- anything at all ----------------------------------------------------------------------------------------------


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
