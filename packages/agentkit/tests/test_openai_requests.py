"""What is sent over the OpenAI wire."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
import pytest

from agentkit.errors import (
    ModelBadRequest,
    ModelBadResponse,
    UsageError,
)
from agentkit.messages import (
    AssistantMessage,
    Attachment,
    ModelRequest,
    Reasoning,
    Text,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentkit.models import NamedEndpoint, open_model
from agentkit.models.adapter.dialect import Dialect
from agentkit.models.credentials import Extras
from agentkit.models.openai.chat import encode_request
from agentkit.models.openai.client import OpenAIModel, OpenRouterModel
from agentkit.testing.models import as_reply

from .openai_pieces import DIALECT, HELLO, read, stream  # type: ignore[import-not-found]
from .openai_server import completion, delta  # type: ignore[import-not-found]
from .wire_server import KEY, WireServer, as_json  # type: ignore[import-not-found]


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
        ("https://mine.services.ai.azure.com/openai/v1/", "max_completion_tokens"),
        ("https://mine.cognitiveservices.azure.com/openai/v1", "max_completion_tokens"),
        ("https://mine.services.ai.azure.com/models", "max_tokens"),
        ("https://acme.snowflakecomputing.com/api/v2/cortex/v1", "max_completion_tokens"),
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


@dataclass
class Tapped:
    """What a client of httpx2 is asked, which answers all alike."""

    sent: list[tuple[httpx2.Request, dict[str, Any]]] = field(default_factory=list)

    def client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.MockTransport(self.answer))

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.sent.append((request, json.loads(await request.aread())))
        return httpx2.Response(200, json=completion(as_reply("Yes.")))


@pytest.mark.parametrize(
    "base_url, extras, bound, asks",
    [
        ("https://api.mistral.ai/v1", Extras(), "max_tokens", False),
        ("https://llm.example.com/v1", Extras(), "max_tokens", True),
        (
            "https://llm.example.com/v1",
            Extras(max_tokens_field="max_completion_tokens"),
            "max_completion_tokens",
            True,
        ),
        ("https://api.openai.com/v1", Extras(max_tokens_field="max_tokens"), "max_tokens", True),
        ("https://llm.example.com/v1", Extras(stream_options=False), "max_tokens", False),
        ("https://api.mistral.ai/v1", Extras(stream_options=True), "max_tokens", True),
    ],
)
async def test_a_setting_comes_before_the_address(
    base_url: str, extras: Extras, bound: str, asks: bool
) -> None:
    tapped = Tapped()
    async with tapped.client() as client:
        for wire in (OpenAIModel, OpenRouterModel):
            model = wire("tiny", api_key=KEY, base_url=base_url, client=client, extras=extras)
            await model.reply(ModelRequest(messages=HELLO.messages, max_tokens=9), lambda _: None)
    for _, body in tapped.sent:
        assert body[bound] == 9
        assert ("stream_options" in body) is asks


DEPLOYMENT = "https://mine.openai.azure.com/openai/deployments/tiny?api-version=2024-10-21"


@pytest.mark.parametrize(
    "endpoint, url, header",
    [
        (NamedEndpoint(base_url=DEPLOYMENT), "/openai/deployments/tiny/chat/completions", "api-key"),
        (
            NamedEndpoint(kind="openai-chat", base_url="https://mine.openai.azure.com/openai/v1"),
            "/openai/v1/chat/completions",
            "authorization",
        ),
        (NamedEndpoint(kind="openai-chat"), "/v1/chat/completions", "authorization"),
        (
            NamedEndpoint(base_url="https://mine.openai.azure.com/openai/v1"),
            "/openai/v1/responses",
            "authorization",
        ),
    ],
)
async def test_azure_by_chat_completions_and_by_the_older_address(
    monkeypatch: pytest.MonkeyPatch, endpoint: NamedEndpoint, url: str, header: str
) -> None:
    tapped = Tapped()
    async with tapped.client() as client:
        monkeypatch.setattr("agentkit.models.adapter.http.Endpoint._new_client", lambda _: client)
        given = replace(endpoint, api_key_env="AZURE_KEY")
        model = open_model("azure:tiny", endpoints={"azure": given}, environ={"AZURE_KEY": KEY})
        with suppress(ModelBadResponse):  # the answer is one of Chat Completions
            await model.reply(ModelRequest(messages=HELLO.messages, max_tokens=9))
    request, body = tapped.sent[0]
    assert request.url.path == url
    assert ("api-version" in str(request.url)) is ("deployments" in url)
    assert {name for name in ("api-key", "authorization") if name in request.headers} == {header}
    assert KEY in request.headers[header]
    assert {name for name in body if "tokens" in name} <= {"max_completion_tokens", "max_output_tokens"}


def test_a_field_that_no_server_knows_is_refused() -> None:
    with pytest.raises(UsageError, match="max_tokens_field: one of max_tokens, max_completion_tokens"):
        Extras(max_tokens_field="length").checked()  # type: ignore[arg-type]


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
