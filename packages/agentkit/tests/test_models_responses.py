"""OpenAI's Responses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentkit.errors import ModelBadResponse, ModelError
from agentkit.messages import (
    AssistantMessage,
    Delta,
    ModelReply,
    ModelRequest,
    Reasoning,
    StopReason,
    Text,
    TextDelta,
    ToolCall,
    UserMessage,
)
from agentkit.models import open_model
from agentkit.models.adapter.dialect import Dialect
from agentkit.models.adapter.stop_sequences import Cutter
from agentkit.models.openai.client import OpenAIModel, ResponsesModel
from agentkit.models.openai.responses import ResponseDraft, decode_response, encode_request
from agentkit.testing.model_contract import ModelContract
from agentkit.transcript.codec import to_json_text

from .responses_server import ResponsesProvider, events, response  # type: ignore[import-not-found]
from .wire_server import KEY, WireServer, as_events, as_json  # type: ignore[import-not-found]

DIALECT = Dialect(provider="test", model="o9", official=True)
HELLO = ModelRequest(messages=(UserMessage(text="Hello"),))


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WireServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with WireServer() as running:
        yield running


@pytest.fixture
async def provider(server: WireServer) -> AsyncIterator[ResponsesProvider]:
    async with ResponsesModel("tiny", api_key=KEY, base_url=server.url, provider="test") as opened:
        yield ResponsesProvider(server, opened)


class TestWhole(ModelContract):
    takes = frozenset({"max_tokens", "temperature"})  # stop texts are not known here: see below


class TestStreamed(TestWhole):
    streamed = True


def stream(*pieces: dict[str, Any], stops: Sequence[str] = ()) -> tuple[ModelReply, list[Delta]]:
    draft = ResponseDraft(DIALECT, stops)
    deltas = [found for piece in pieces for found in draft.feed(piece)]
    return draft.finish(done=False), deltas


# --- which wire --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "base_url, kind",
    [
        (None, ResponsesModel),
        ("https://eu.api.openai.com/v1", ResponsesModel),
        ("http://localhost:11434/v1", OpenAIModel),
    ],
)
def test_openai_itself_is_spoken_to_through_responses(base_url: Any, kind: Any) -> None:
    model = open_model("openai:o9", environ={}, base_url=base_url, api_key=KEY)
    assert type(model) is kind


# --- what is sent ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, reasons", [("o9", True), ("gpt-5.5", True), ("gpt-4o", False), ("gpt-5-chat", False)]
)
def test_reasoning_is_asked_for_where_there_is_any(name: str, reasons: bool) -> None:
    dialect = Dialect(provider="openai", model=name, official=True)
    body = json.loads(encode_request(HELLO, dialect, stream=False))
    assert (body.get("include") == ["reasoning.encrypted_content"]) is reasons


def test_reasoning_that_cannot_be_sent_back_is_left_out() -> None:
    def thought(**more: Any) -> Reasoning:
        item = {"type": "reasoning", "id": "rs_1", "summary": [], **more}
        return Reasoning(text="", data={"openai_item": item})

    stored, last = thought(), thought(encrypted_content="gB")
    kept = thought(encrypted_content="gA")
    said = AssistantMessage(parts=(stored, kept, Text(text="Yes."), last))
    body = json.loads(encode_request(ModelRequest(messages=(said,)), DIALECT, stream=False))
    assert [item.get("encrypted_content", item.get("content")) for item in body["input"]] == ["gA", "Yes."]


# --- what comes back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [("\nObservation:",), ("zzz", "\nObs")])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_reply_is_cut_where_it_should_have_stopped(
    provider: ResponsesProvider, stop: Any, streamed: bool
) -> None:
    written = "Action: look\nOb, no.\nObservation: made up"
    call = ToolCall(id="call_1", name="add", arguments={})
    provider.answer(ModelReply(parts=(Text(text=written), call)))
    seen: list[Delta] = []
    request = ModelRequest(messages=HELLO.messages, stop=stop)
    reply = await provider.model.reply(request, seen.append if streamed else None)
    assert reply.parts == (Text(text="Action: look\nOb, no."),)
    assert reply.stop_reason is StopReason.END
    assert not streamed or "".join(delta.text for delta in seen) == reply.text


@given(
    st.text("ab\n"),
    st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 9)),
)
def test_a_text_is_cut_alike_however_it_arrives(text: str, stops: list[str], sizes: list[int]) -> None:
    cutter, shown, rest = Cutter(stops), "", text
    for size in sizes:
        shown, rest = shown + cutter.feed(rest[:size]), rest[size:]
    shown += cutter.feed(rest) + cutter.close()
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    if not places:
        assert shown == text
    else:
        assert text.startswith(shown)
        assert not any(stop in shown for stop in stops)


def test_a_stream_without_its_last_event_is_no_reply() -> None:
    pieces = list(events(ModelReply(parts=(Text(text="The whole answer."),))))
    with pytest.raises(ModelBadResponse, match="in the middle"):
        stream(*pieces[:-1])


def test_an_emoji_that_was_cut_in_two_is_joined() -> None:
    def piece(text: str) -> dict[str, Any]:
        return {"type": "response.output_text.delta", "output_index": 0, "delta": text}

    last = list(events(ModelReply(parts=(Text(text="a😀b\ud83d"),))))[-1]
    reply, deltas = stream(piece("a\ud83d"), piece("\ude00b\ud83d"), last)
    assert reply.text == "".join(delta.text for delta in deltas) == "a😀b\ufffd"


def test_pieces_that_are_not_those_of_the_reply_are_refused() -> None:
    pieces = list(events(ModelReply(parts=(Text(text="Yes."),))))
    other = {"type": "response.output_text.delta", "output_index": 0, "delta": "No!"}
    with pytest.raises(ModelBadResponse, match="not those"):
        stream(other, *pieces)


def test_a_text_that_was_not_streamed_is_told_at_the_end() -> None:
    last = list(events(ModelReply(parts=(Text(text="Yes."),))))[-1]
    reply, deltas = stream(last)
    assert (reply.text, deltas) == ("Yes.", [TextDelta(text="Yes.")])


def test_items_count_where_the_last_event_has_none() -> None:
    *pieces, last = events(ModelReply(parts=(Text(text="Yes."), ToolCall(id="c", name="add"))))
    last["response"]["output"] = []
    assert stream(*pieces, last)[0].tool_calls == (ToolCall(id="c", name="add"),)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "rate_limit_exceeded", "message": "not so fast", "param": None},
        {"type": "error", "error": {"code": "rate_limit_exceeded", "message": "not so fast"}},
        {
            "type": "response.failed",
            "response": {"error": {"code": "rate_limit_exceeded", "message": "not so fast"}},
        },
    ],
)
async def test_an_error_in_the_stream_is_told_in_our_words(
    server: WireServer, provider: ResponsesProvider, event: Any
) -> None:
    server.plan(as_events([event], done=False))
    with pytest.raises(ModelError) as caught:
        await provider.model.reply(HELLO, lambda _delta: None)
    assert caught.value.code == "model_rate_limited"
    assert caught.value.reason == "not so fast"


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled", None])
async def test_a_response_that_is_not_finished_is_no_reply(
    server: WireServer, provider: ResponsesProvider, status: Any
) -> None:
    server.plan(as_json({**response(ModelReply(parts=(Text(text="Yes."),))), "status": status}))
    with pytest.raises(ModelBadResponse):
        await provider.model.reply(HELLO)


NAMES = [
    "type",
    "output",
    "content",
    "text",
    "refusal",
    "summary",
    "call_id",
    "name",
    "arguments",
    "usage",
    "delta",
]
TYPES = [
    "message",
    "reasoning",
    "function_call",
    "output_text",
    "response.output_text.delta",
    "",
    "\ud800",
    "{}",
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from(TYPES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=20,
)
BODIES = st.fixed_dictionaries(
    {"status": st.sampled_from(["completed", "incomplete"]), "output": VALUES, "usage": VALUES}
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a machine that is busy with other tests
@given(BODIES, st.lists(VALUES.map(lambda value: value if isinstance(value, dict) else {}), max_size=4))
def test_anything_is_a_reply_that_can_be_stored_or_a_bad_response(body: Any, pieces: Any) -> None:
    try:
        reply, deltas = stream(*pieces, {"type": "response.completed", "response": body})
        assert decode_response(body, DIALECT) == reply or not body["output"]
    except ModelBadResponse:
        return
    for part in reply.parts:
        held = (part.id, part.name, part.invalid) if isinstance(part, ToolCall) else (part.text,)
        for text in held:
            (text or "").encode()
        if isinstance(part, Reasoning):
            to_json_text(part.data)
    assert len({call.id for call in reply.tool_calls}) == len(reply.tool_calls)
    assert "".join(found.text for found in deltas if isinstance(found, TextDelta)) == reply.text
