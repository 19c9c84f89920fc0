from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import pytest

from agentkit.errors import Actor, ModelAuthError, UsageError
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
from agentkit.models import NamedEndpoint, open_model, opened
from agentkit.models.credentials import OPENAI_URL, OPENROUTER_URL
from agentkit.models.openai.client import OpenAIModel
from agentkit.testing.model_contract import ConversationContract
from agentkit.testing.models import ScriptedModel, UnplannedRequest

HELLO = ModelRequest(messages=(UserMessage(text="Hello"),))
KEY = "sk-test-0123456789abcdef"


def address(model: object) -> tuple[str, str | None]:
    assert isinstance(model, OpenAIModel)
    return model._base_url, model._secret


# --- open_model --------------------------------------------------------------------------------------------------


def test_a_model_of_openai_takes_its_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    model = open_model("openai:gpt-5.5")
    assert model.name == "openai:gpt-5.5"
    assert address(model) == (OPENAI_URL, KEY)


@pytest.mark.parametrize("environ", [{}, {"OPENAI_API_KEY": " "}, {"OPENAI_BASE_URL": ""}])
def test_without_a_key_the_variable_is_named(environ: Any) -> None:
    with pytest.raises(ModelAuthError, match="OPENAI_API_KEY") as caught:
        open_model("openai:gpt-5.5", environ=environ)
    assert caught.value.actor is Actor.OPERATOR


@pytest.mark.parametrize(
    "environ, given, expected",
    [
        ({"OPENAI_API_KEY": KEY}, {}, (OPENAI_URL, KEY)),
        ({"OPENAI_API_KEY": KEY}, {"api_key": "other-key"}, (OPENAI_URL, "other-key")),
        ({"OPENAI_BASE_URL": "http://a/v1"}, {}, ("http://a/v1", None)),
        ({"OPENAI_BASE_URL": "http://a/v1", "OPENAI_API_KEY": KEY}, {}, ("http://a/v1", KEY)),
        ({"OPENAI_API_KEY": KEY}, {"base_url": "http://b/v1"}, ("http://b/v1", None)),
        ({"OPENAI_API_KEY": KEY}, {"base_url": OPENAI_URL}, (OPENAI_URL, KEY)),
        ({}, {"base_url": "http://b/v1", "api_key": "other-key"}, ("http://b/v1", "other-key")),
    ],
)
def test_a_key_of_the_environment_goes_to_no_other_address(environ: Any, given: Any, expected: Any) -> None:
    assert address(open_model("openai:tiny", environ=environ, **given)) == expected


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, ("http://a/v1", KEY)),
        ({"api_key": "other-key"}, ("http://a/v1", "other-key")),
        ({"base_url": "http://b/v1"}, ("http://b/v1", None)),
        ({"base_url": "http://b/v1", "api_key": "other-key"}, ("http://b/v1", "other-key")),
    ],
)
def test_an_endpoint_has_a_name_and_its_key_goes_to_no_other_address(given: Any, expected: Any) -> None:
    endpoints = {"local": NamedEndpoint(base_url="http://a/v1", api_key_env="LOCAL_KEY")}
    model = open_model("local:tiny:3b", environ={"LOCAL_KEY": KEY}, endpoints=endpoints, **given)
    assert model.name == "local:tiny:3b"
    assert address(model) == expected


def test_an_endpoint_without_its_key_names_the_variable() -> None:
    endpoints = {"local": NamedEndpoint(api_key_env="LOCAL_KEY")}
    with pytest.raises(ModelAuthError, match="set LOCAL_KEY"):
        open_model("local:tiny", environ={"OPENAI_API_KEY": KEY}, endpoints=endpoints)
    with pytest.raises(UsageError, match="google:NAME, local:NAME, offline:NAME"):
        open_model("remote:tiny", endpoints=endpoints)


def test_openrouter_is_a_provider_of_its_own() -> None:
    model = open_model("openrouter:vendor/tiny", environ={"OPENROUTER_API_KEY": KEY})
    assert model.name == "openrouter:vendor/tiny"
    assert address(model) == (OPENROUTER_URL, KEY)
    with pytest.raises(ModelAuthError, match="OPENROUTER_API_KEY"):
        open_model("openrouter:vendor/tiny", environ={"OPENAI_API_KEY": KEY})


def test_a_name_may_hold_colons() -> None:
    environ = {"OPENAI_BASE_URL": "http://localhost:11434/v1"}
    assert open_model("openai:llama3.2:3b", environ=environ).name == "openai:llama3.2:3b"


@pytest.mark.parametrize("name", ["gpt-5.5", "", ":x", "closedai:gpt", "OpenAI:gpt"])
def test_an_unknown_provider_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(
        UsageError, match="anthropic:NAME, google:NAME, offline:NAME, openai:NAME, openrouter:NAME"
    ):
        open_model(name)


@pytest.mark.parametrize("name", ["openai:", "offline:"])
def test_a_name_is_needed(name: str) -> None:
    with pytest.raises(UsageError, match="lacks the model's name"):
        open_model(name, environ={"OPENAI_API_KEY": KEY})


async def test_an_offline_model_needs_nothing() -> None:
    async with opened("offline:planner") as model:
        assert model.name == "offline:planner"
        seen: list[Delta] = []
        request = ModelRequest(messages=(UserMessage(text="What is 2 + 3?"),))
        reply = await model.reply(request, seen.append)
        assert reply == await open_model("offline:planner", environ={}).reply(request)
        assert "".join(delta.text for delta in seen) == reply.text


def test_an_offline_model_has_no_address() -> None:
    with pytest.raises(UsageError):
        open_model("offline:any", base_url="http://b/v1")


# --- opened ------------------------------------------------------------------------------------------------------


class Closing(ScriptedModel):
    """Knows whether it was opened and closed."""

    def __init__(self) -> None:
        super().__init__(["Yes."])
        self.seen: list[str] = []

    async def __aenter__(self) -> Self:
        self.seen.append("opened")
        return self

    async def __aexit__(self, *args: object) -> None:
        self.seen.append("closed")


async def test_what_is_given_is_left_as_it_is() -> None:
    given = Closing()
    async with opened(given) as model:
        assert model is given
    assert given.seen == []


async def test_what_is_opened_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    made = Closing()
    monkeypatch.setattr("agentkit.models.openai.client.OpenAIModel", lambda *_args, **_kwargs: made)
    with pytest.raises(RuntimeError):
        async with opened("openai:tiny") as model:
            assert model is made
            raise RuntimeError
    assert made.seen == ["opened", "closed"]


# --- ScriptedModel -----------------------------------------------------------------------------------------------


def without_reasoning(request: ModelRequest) -> ModelRequest:
    told = [
        AssistantMessage(parts=tuple(part for part in message.parts if not isinstance(part, Reasoning)))
        if isinstance(message, AssistantMessage)
        else message
        for message in request.messages
    ]
    return replace(request, messages=tuple(told))


class ScriptedStandIn:
    """A scripted model is its own provider."""

    def __init__(self) -> None:
        self.replies: list[ModelReply] = []
        self.model = ScriptedModel([lambda _request: self.replies.pop(0)] * 50)

    def answer(self, reply: ModelReply) -> None:
        self.replies.append(reply)

    @property
    def heard(self) -> list[ModelRequest]:
        return [without_reasoning(request) for request in self.model.requests]

    @property
    def thoughts(self) -> tuple[object, object]:
        parts = [
            part for message in self.model.requests[-1].messages for part in getattr(message, "parts", ())
        ]
        returned = [part for part in parts if isinstance(part, Reasoning)]
        return returned, returned


@pytest.fixture
def provider() -> ScriptedStandIn:
    return ScriptedStandIn()


class TestScripted(ConversationContract):
    pass


class TestScriptedStreamed(ConversationContract):
    streamed = True


ADD = ToolCall(id="call_1", name="add", arguments={"a": 1})


async def test_the_short_forms_of_a_reply() -> None:
    async def later(request: ModelRequest) -> str:
        return f"async {len(request.messages)}"

    whole = ModelReply(parts=(Text(text="Cut"),), stop_reason=StopReason.LENGTH, model="other:one")
    model = ScriptedModel(["Hi", ADD, [ADD, ADD], whole, lambda _: "sync", later, ValueError("boom")])
    replies = [await model.reply(HELLO) for _ in range(6)]
    assert replies[0] == ModelReply(parts=(Text(text="Hi"),), model="scripted:model")
    assert (replies[1].tool_calls, replies[1].stop_reason) == ((ADD,), StopReason.TOOL_CALLS)
    assert replies[2].tool_calls == (ADD, ADD)
    assert replies[3] == whole
    assert [reply.text for reply in replies[4:]] == ["sync", "async 1"]
    with pytest.raises(ValueError, match="boom"):
        await model.reply(HELLO)
    assert model.requests == [HELLO] * 7
    model.assert_complete()


async def test_a_request_too_many_is_an_error_and_so_is_one_too_few() -> None:
    model = ScriptedModel(["Hi"])
    with pytest.raises(UnplannedRequest, match=r"never asked for its replies \[0\]"):
        model.assert_complete()
    await model.reply(HELLO)
    with pytest.raises(UsageError, match="request 1 "):
        await model.reply(HELLO)


async def test_a_reply_by_turn_depends_on_the_request_alone() -> None:
    model = ScriptedModel.by_turn({0: ADD, 2: "Done."})
    said = (await model.reply(HELLO)).tool_calls
    assert (await model.reply(HELLO)).tool_calls == said
    with pytest.raises(UnplannedRequest, match=r"turn 1 \(counted from 0\) of scripted:model"):
        await model.reply(ModelRequest(messages=(*HELLO.messages, assistant())))
    assert (await model.reply(ModelRequest(messages=(assistant(), assistant())))).text == "Done."
    model.assert_complete()


def assistant() -> AssistantMessage:
    return AssistantMessage(parts=(ADD,))


async def test_a_scripted_text_is_streamed_word_by_word() -> None:
    seen: list[object] = []
    await ScriptedModel([" One two\n"]).reply(HELLO, seen.append)
    assert seen == [TextDelta(text=" One "), TextDelta(text="two\n")]
