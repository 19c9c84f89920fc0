"""Anthropic, through its SDK."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from agentkit import Agent
from agentkit.errors import ModelAuthError, ModelBadRequest, ModelBadResponse, UsageError
from agentkit.messages import (
    AssistantMessage,
    Attachment,
    Delta,
    ModelReply,
    ModelRequest,
    Reasoning,
    StopReason,
    Text,
    TextDelta,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentkit.models import open_model
from agentkit.models.adapter.dialect import Dialect
from agentkit.models.adapter.output_tool import OUTPUT_TOOL
from agentkit.models.anthropic.client import AnthropicModel
from agentkit.models.anthropic.messages import (
    MAX_TOKENS,
    MessageDraft,
    decode_reply,
    encode_request,
    output_for,
)
from agentkit.models.anthropic.output import native_schema
from agentkit.models.credentials import Extras
from agentkit.testing.model_contract import ADD, ModelContract
from agentkit.transcript.codec import to_json_text

from .anthropic_server import AnthropicProvider, events, message  # type: ignore[import-not-found]
from .wire_server import KEY, WireServer, as_json  # type: ignore[import-not-found]

DIALECT = Dialect(provider="test", model="tiny", official=False)
HELLO = ModelRequest(messages=(UserMessage(text="Hello"),))


def asking(schema: Any) -> ModelRequest:
    return replace(HELLO, output_schema=schema)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WireServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with WireServer(path="") as running:
        yield running


@pytest.fixture
async def provider(server: WireServer) -> AsyncIterator[AnthropicProvider]:
    async with AnthropicModel("tiny", api_key=KEY, base_url=server.url, provider="test") as opened:
        yield AnthropicProvider(server, opened)


class TestWhole(ModelContract):
    stop_reasons = ModelContract.stop_reasons - {
        StopReason.PAUSED,
        StopReason.FILTERED,
    }  # its one word for both is "refusal"
    takes = frozenset({"stop", "max_tokens"})
    counts = frozenset({"cached_tokens", "cache_write_tokens", "reasoning_tokens"})


class TestStreamed(TestWhole):
    streamed = True


def stream(*pieces: dict[str, Any], schema: Any = None) -> tuple[ModelReply, list[Delta]]:
    draft = MessageDraft(DIALECT, None if schema is None else asking(schema))
    deltas = [found for piece in pieces for found in draft.feed(piece)]
    return draft.finish(), deltas


# --- what is sent ------------------------------------------------------------------------------------------------


def test_a_bound_is_always_sent() -> None:
    assert encode_request(HELLO, DIALECT)["max_tokens"] == MAX_TOKENS


def test_what_does_not_change_and_what_was_said_is_cached_where_it_goes_on() -> None:
    fixed: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}
    alone = encode_request(ModelRequest(messages=HELLO.messages, instructions="Be brief."), DIALECT)
    assert "cache_control" not in json.dumps(alone)
    body = encode_request(
        ModelRequest(messages=HELLO.messages, instructions="Be brief.", tools=(ADD,)), DIALECT
    )
    assert body["system"] == [{"type": "text", "text": "Be brief.", **fixed}]
    assert body["messages"][-1]["content"] == [{"type": "text", "text": "Hello", **fixed}]
    assert "cache_control" not in json.dumps(body["tools"])
    untold = encode_request(ModelRequest(messages=HELLO.messages, tools=(ADD,)), DIALECT)
    assert untold["tools"][-1]["cache_control"] == fixed["cache_control"]


def test_results_of_tools_and_what_is_said_after_them_are_one_message() -> None:
    calls = tuple(ToolCall(id=f"c{n}", name="add") for n in range(2))
    results = tuple(ToolMessage(call_id=f"c{n}", name="add", content="1") for n in range(2))
    turns = (
        *HELLO.messages,
        AssistantMessage(parts=(Text(text=" "), *calls)),
        *results,
        UserMessage(text="So?"),
    )
    body = encode_request(ModelRequest(messages=turns), DIALECT)
    said = [(each["role"], [block["type"] for block in each["content"]]) for each in body["messages"]]
    assert said == [
        ("user", ["text"]),
        ("assistant", ["tool_use", "tool_use"]),
        ("user", ["tool_result", "tool_result", "text"]),
    ]


def test_what_is_blank_is_not_sent_as_such() -> None:
    turns = (UserMessage(text=" "), AssistantMessage(parts=()), UserMessage(text="So?"))
    body = encode_request(ModelRequest(messages=turns), DIALECT)
    (said,) = body["messages"]
    assert [block["text"] for block in said["content"][:2]] == ["(no text)", "So?"]


def test_a_document_of_another_kind_is_refused_by_name() -> None:
    sheet = Attachment(media_type="application/vnd.ms-excel", data=b"x")
    with pytest.raises(ModelBadRequest, match=r"application/vnd\.ms-excel are not taken as data"):
        encode_request(ModelRequest(messages=(UserMessage(text="?", attachments=(sheet,)),)), DIALECT)


async def test_headers_and_fields_are_sent_and_nothing_of_the_environment(
    server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-of-the-environment")
    server.plan(as_json(message(ModelReply(parts=(Text(text="Yes."),)))))
    extras = Extras(headers={"X-Team": "search"}, body={"thinking": {"type": "adaptive"}})
    async with AnthropicModel("tiny", api_key=None, base_url=server.url, extras=extras) as model:
        await model.reply(HELLO)
    (asked,) = server.journal
    assert asked.headers["x-team"] == "search"
    assert asked.body["thinking"] == {"type": "adaptive"}
    assert "of-the-environment" not in str(asked)


# --- typed output ------------------------------------------------------------------------------------------------


class Point(BaseModel):
    x: int = Field(ge=0)
    kind: Literal["a", "b"] = "a"


class Path(BaseModel):
    points: list[Point]
    name: str | None = None


class Tree(BaseModel):
    children: list[Tree] = []


def test_a_closed_schema_is_sent_as_such_with_its_constraints_in_words() -> None:
    found: Any = native_schema(TypeAdapter(Path).json_schema())
    assert output_for(asking(TypeAdapter(Path).json_schema())) is None
    point = found["$defs"]["Point"]
    assert point["additionalProperties"] is found["additionalProperties"] is False
    assert point["properties"]["x"]["description"] == '{"minimum": 0}'
    assert "minimum" not in point["properties"]["x"]


@pytest.mark.parametrize("kind", [dict[str, int], Tree, int, list[Point], dict[str, Any]])
def test_any_other_schema_becomes_a_tool(kind: Any) -> None:
    found = output_for(asking(TypeAdapter(kind).json_schema()))
    assert found is not None
    assert found.schema["type"] == "object"


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_output_by_tool_is_the_text_of_the_reply(
    provider: AnthropicProvider, streamed: bool
) -> None:
    call = ToolCall(id="c", name=OUTPUT_TOOL, arguments={"output": [1, 2]})
    said = (Text(text="Here you are:"), call)
    provider.answer(ModelReply(parts=said, stop_reason=StopReason.TOOL_CALLS))
    seen: list[Any] = []
    options: Any = {"on_event": seen.append} if streamed else {}
    outcome = await Agent(provider.model, output=list[int]).run("Count.", **options)
    assert outcome.unwrap() == [1, 2]
    assert provider.server.journal[0].body["tool_choice"] == {"type": "any"}
    shown = "".join(event.text for event in seen if isinstance(event, TextDelta))
    assert shown == ("[1,2]" if streamed else "")


def test_true_calls_come_before_the_output() -> None:
    both = (ToolCall(id="c", name="add"), ToolCall(id="d", name=OUTPUT_TOOL, arguments={"output": 1}))
    body = message(ModelReply(parts=both, stop_reason=StopReason.TOOL_CALLS))
    assert decode_reply(body, DIALECT, asking({"type": "integer"})).parts == both[:1]


# --- what comes back ---------------------------------------------------------------------------------------------


def test_hidden_reasoning_goes_back_as_it_came() -> None:
    hidden = {"type": "redacted_thinking", "data": "gAAA"}
    body = {
        **message(ModelReply(parts=(Text(text="Yes."),))),
        "content": [hidden, {"type": "text", "text": "Yes."}],
    }
    reply = decode_reply(body, DIALECT)
    assert isinstance(reply.parts[0], Reasoning)
    again = encode_request(ModelRequest(messages=(AssistantMessage(parts=reply.parts),)), DIALECT)
    assert again["messages"][0]["content"][0] == hidden


@pytest.mark.parametrize(
    "word, reason",
    [
        ("stop_sequence", StopReason.END),
        ("pause_turn", StopReason.PAUSED),
        ("model_context_window_exceeded", StopReason.LENGTH),
        ("tool_use", StopReason.END),  # without a call
        ("of_the_future", StopReason.UNFINISHED),
    ],
)
def test_other_stop_reasons(word: str, reason: StopReason) -> None:
    body = {**message(ModelReply(parts=(Text(text="Yes."),))), "stop_reason": word}
    assert decode_reply(body, DIALECT).stop_reason is reason


def test_an_emoji_that_was_cut_in_two_is_joined() -> None:
    pieces = list(events(ModelReply(parts=(Text(text="abc"), Text(text="d")))))
    texts = [piece["delta"] for piece in pieces if piece["type"] == "content_block_delta"]
    texts[0]["text"] = "a\ud83d"
    texts[1]["text"] = "d\ud83d"
    (split, *rest) = [place for place, piece in enumerate(pieces) if piece.get("delta") is texts[0]]
    pieces.insert(split + 1, {**pieces[split], "delta": {"type": "text_delta", "text": "\ude00b"}})
    reply, deltas = stream(*pieces)
    assert not rest
    assert reply.text == "".join(delta.text for delta in deltas) == "a😀bd\ufffd"


def test_a_stream_without_its_last_event_is_no_reply() -> None:
    with pytest.raises(ModelBadResponse, match="in the middle"):
        stream(*list(events(ModelReply(parts=(Text(text="Yes."),))))[:-1])


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 2)
    | st.sampled_from(["text", "tool_use", "thinking", "\ud800", "{}"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "thinking", "id", "name", "input"]), inner, max_size=5
        )
    ),
    max_leaves=20,
)
KINDS = st.sampled_from(["message_start", "content_block_start", "content_block_delta", "message_delta"])
EVENTS = st.fixed_dictionaries(
    {"type": KINDS, "index": st.integers(0, 2), "content_block": VALUES, "delta": VALUES, "message": VALUES}
)
LAST: list[dict[str, Any]] = [
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
    {"type": "message_stop"},
]


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a machine that is busy with other tests
@given(st.lists(EVENTS, max_size=5))
def test_anything_is_a_reply_that_can_be_stored_or_a_bad_response(pieces: Any) -> None:
    try:
        reply, _ = stream(*pieces, *LAST)
    except ModelBadResponse:
        return
    for part in reply.parts:
        text = [part.id, part.name, part.invalid] if isinstance(part, ToolCall) else getattr(part, "text", "")
        to_json_text([text, part.data])


# --- construction ------------------------------------------------------------------------------------------------


def test_it_is_opened_by_name_with_the_key_of_the_environment() -> None:
    assert open_model("anthropic:claude", environ={"ANTHROPIC_API_KEY": KEY}).name == "anthropic:claude"
    with pytest.raises(ModelAuthError, match="ANTHROPIC_API_KEY"):
        open_model("anthropic:claude", environ={"OPENAI_API_KEY": KEY})


def test_without_the_sdk_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anthropic", None)
    with pytest.raises(UsageError, match=r"agentkit\[anthropic\]"):
        AnthropicModel("tiny", api_key=KEY)


def test_the_sdk_is_loaded_when_a_model_is_constructed() -> None:
    program = "import sys, agentkit.models.anthropic.client; sys.exit('anthropic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
