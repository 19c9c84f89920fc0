"""Google Gemini, through its SDK."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentkit import Agent, tool
from agentkit.errors import ModelAuthError, ModelBadResponse, ModelError, ModelTimeout, UsageError
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
    ToolMessage,
    UserMessage,
)
from agentkit.models import open_model
from agentkit.models.adapter.dialect import Dialect
from agentkit.models.adapter.output_tool import OUTPUT_TOOL
from agentkit.models.credentials import Extras
from agentkit.models.google.client import GoogleModel
from agentkit.models.google.contents import ContentDraft, encode_request
from agentkit.testing.model_contract import ADD, EXPECTED, Fault, ModelContract
from agentkit.transcript.codec import to_json_text

from .google_server import GoogleProvider, content  # type: ignore[import-not-found]
from .wire_server import KEY, WireServer, as_json  # type: ignore[import-not-found]

DIALECT = Dialect(provider="test", model="tiny", official=False)
HELLO = ModelRequest(messages=(UserMessage(text="Hello"),))


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WireServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with WireServer(path="") as running:
        yield running


@pytest.fixture
async def provider(server: WireServer, request: pytest.FixtureRequest) -> AsyncIterator[GoogleProvider]:
    async with GoogleModel("tiny", api_key=KEY, base_url=server.url, provider="test") as opened:
        found = GoogleProvider(server, opened)
        found.streaming = getattr(request.instance, "streamed", False)
        yield found


Expected: TypeAlias = "Mapping[Fault, tuple[type[ModelError], ...]]"


# it drops an error in a whole reply with status 200, which Google does not send
AS_THE_SDK_TELLS_IT: Expected = {**EXPECTED, Fault.ERROR_INSIDE: (ModelBadResponse,)}


class TestWhole(ModelContract):
    stop_reasons = ModelContract.stop_reasons - {StopReason.REFUSED}
    expected: Expected = AS_THE_SDK_TELLS_IT


class TestStreamed(TestWhole):
    streamed = True
    expected: Expected = EXPECTED


def read(*bodies: dict[str, Any]) -> tuple[ModelReply, list[Delta]]:
    draft = ContentDraft(DIALECT)
    deltas = [delta for body in bodies for delta in draft.feed(body)]
    return draft.finish(), deltas


def body(*parts: dict[str, Any], reason: Any = "STOP") -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": list(parts)}, "finish_reason": reason}]}


# --- what is sent ------------------------------------------------------------------------------------------------


def test_calls_and_results_are_told_apart_by_their_ids_whoever_made_them() -> None:
    calls = (ToolCall(id="call_0_1", name="add"), ToolCall(id="fc-7", name="add"))
    results = tuple(ToolMessage(call_id=call.id, name="add", content="1") for call in calls)
    request = ModelRequest(
        messages=(*HELLO.messages, AssistantMessage(parts=calls), *results, UserMessage(text="So?"))
    )
    contents = encode_request(request, DIALECT).contents
    assert [said["role"] for said in contents] == ["user", "model", "user", "user"]
    assert [part["function_call"].get("id") for part in contents[1]["parts"]] == ["call_0_1", "fc-7"]
    assert [part["function_response"].get("id") for part in contents[2]["parts"]] == ["call_0_1", "fc-7"]


async def test_headers_and_fields_are_sent_and_nothing_of_the_environment(
    server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"GOOGLE_API_KEY": "of-the-environment", "GOOGLE_GENAI_USE_VERTEXAI": "true"}.items():
        monkeypatch.setenv(name, value)
    server.plan(as_json(content(ModelReply(parts=(Text(text="Yes."),)))))
    more = {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}}
    extras = Extras(headers={"X-Team": "search"}, body=more)
    async with GoogleModel("tiny", api_key=None, base_url=server.url, extras=extras) as model:
        await model.reply(ModelRequest(messages=HELLO.messages, max_tokens=9))
    (asked,) = server.journal
    assert asked.headers["x-team"] == "search"
    assert asked.body["generationConfig"] == {"maxOutputTokens": 9, **more["generationConfig"]}
    assert "of-the-environment" not in str(asked)


async def test_silence_is_not_waited_for_longer_than_was_said(server: WireServer) -> None:
    async with GoogleModel("tiny", api_key=KEY, base_url=server.url, timeout=0.5) as model:
        provider = GoogleProvider(server, model)
        provider.fail(Fault.SILENCE)
        with pytest.raises(ModelTimeout):
            await model.reply(HELLO)
        await provider.hung_up()


# --- typed output ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, by_tool", [("gemini-2.5-pro", True), ("gemini-3-pro", False), ("gemini-20", False)]
)
def test_an_output_beside_tools_is_asked_for_as_the_model_knows_it(name: str, by_tool: bool) -> None:
    dialect = Dialect(provider="google", model=name, official=False)
    request = ModelRequest(messages=HELLO.messages, tools=(ADD,), output_schema={"type": "integer"})
    asked = encode_request(request, dialect)
    assert ("response_json_schema" in asked.config) is not by_tool
    assert (asked.output is not None) is by_tool
    alone = encode_request(ModelRequest(messages=HELLO.messages, output_schema={"type": "integer"}), dialect)
    assert alone.config["response_json_schema"] == {"type": "integer"}


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_output_by_tool_is_the_text_of_the_reply(server: WireServer, streamed: bool) -> None:
    @tool(effect="pure")
    def now() -> str:
        """The time."""
        return "noon"

    async with GoogleModel("gemini-2.5-pro", api_key=KEY, base_url=server.url) as model:
        provider = GoogleProvider(server, model)
        provider.streaming = streamed
        call = ToolCall(id="c", name=OUTPUT_TOOL, arguments={"output": [1, 2]})
        provider.answer(ModelReply(parts=(Text(text="Here:"), call), stop_reason=StopReason.TOOL_CALLS))
        seen: list[Any] = []
        options: Any = {"on_event": seen.append} if streamed else {}
        outcome = await Agent(model, output=list[int], tools=[now]).run("Count.", **options)
    assert outcome.unwrap() == [1, 2]
    shown = "".join(event.text for event in seen if isinstance(event, TextDelta))
    assert shown == ("[1,2]" if streamed else "")


# --- what comes back ---------------------------------------------------------------------------------------------


def test_a_signature_goes_back_with_the_part_it_came_with() -> None:
    pieces: list[dict[str, Any]] = [
        {"text": "One ", "thought_signature": b"a"},
        {"text": "two."},
        {"function_call": {"name": "add", "args": {"a": 1}}, "thought_signature": b"b"},
        {"text": "", "thought_signature": b"c"},
    ]
    reply, deltas = read(*(body(piece, reason=None) for piece in pieces), body())
    assert reply.text == "One two." == "".join(delta.text for delta in deltas)
    again = encode_request(ModelRequest(messages=(AssistantMessage(parts=reply.parts),)), DIALECT)
    signed = [(part.get("thought_signature"), "function_call" in part) for part in again.contents[0]["parts"]]
    assert signed == [(b"a", False), (None, False), (b"b", True), (b"c", False)]


@pytest.mark.parametrize(
    "word, reason",
    [
        ("SAFETY", StopReason.FILTERED),
        ("PROHIBITED_CONTENT", StopReason.FILTERED),
        ("OF_THE_FUTURE", StopReason.UNFINISHED),
        ("MALFORMED_FUNCTION_CALL", StopReason.UNFINISHED),
        ("OTHER", None),
        (None, None),
    ],
)
def test_other_stop_reasons(word: Any, reason: StopReason | None) -> None:
    if reason is None:
        with pytest.raises(ModelBadResponse):
            read(body({"text": "Yes."}, reason=word))
    else:
        assert read(body({"text": "Yes."}, reason=word))[0].stop_reason is reason


NAMES = ["text", "thought", "thought_signature", "function_call", "name", "args", "id", "parts", "content"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from(["x", "\ud800", b"s", "STOP"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=20,
)
PARTS = st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5), max_size=4)


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a machine that is busy with other tests
@given(st.lists(PARTS, max_size=4), VALUES)
def test_anything_is_a_reply_that_can_be_stored_or_a_bad_response(several: Any, odd: Any) -> None:
    try:
        reply, deltas = read(*(body(*parts, reason=None) for parts in several), body(reason=odd), body())
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
    encode_request(ModelRequest(messages=(AssistantMessage(parts=reply.parts),)), DIALECT)
    assert not any(isinstance(part, Reasoning) and part.data is None for part in reply.parts)


# --- construction ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["GEMINI_API_KEY", "GOOGLE_API_KEY"])
def test_it_is_opened_by_name_with_the_key_of_the_environment(variable: str) -> None:
    assert open_model("google:gemini", environ={variable: KEY}).name == "google:gemini"
    with pytest.raises(ModelAuthError, match="GEMINI_API_KEY or GOOGLE_API_KEY"):
        open_model("google:gemini", environ={"OPENAI_API_KEY": KEY})


def test_without_the_sdk_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.genai", None)
    monkeypatch.delattr("google.genai", raising=False)
    with pytest.raises(UsageError, match=r"agentkit\[google\]"):
        GoogleModel("tiny", api_key=KEY)


def test_the_sdk_is_loaded_when_a_model_is_constructed() -> None:
    program = "import sys, agentkit.models.google.client; sys.exit('google.genai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
