"""Replies of providers, written by hand after shapes that were seen: a server sends them, a model of ours reads them.

Each file in ``replies`` holds one response and what is to be read in it. ``events`` makes a stream of server-sent
events, ``body`` a JSON body, ``text`` a body as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agentkit import Agent, Failed, tool
from agentkit.budget.prices import Price, Prices
from agentkit.errors import ModelError, ModelMistaken
from agentkit.messages import ModelReply, ModelRequest, ToolSpec, UserMessage
from agentkit.models.anthropic.client import AnthropicModel
from agentkit.models.google.client import GoogleModel
from agentkit.models.openai.client import OpenAIModel, OpenRouterModel, ResponsesModel
from agentkit.models.resilience.circuit_breaker import CircuitSettings
from agentkit.models.resilience.model import ResilientModel
from agentkit.models.resilience.provider_state import ProviderState
from agentkit.models.resilience.retry import Retries

from .wire_server import JSON, KEY, STREAM, Answer, WireServer  # type: ignore[import-not-found]

FOLDER = Path(__file__).parent / "replies"
WIRES: Mapping[str, tuple[type[Any], str]] = {
    "chat": (OpenAIModel, "/v1"),
    "openrouter": (OpenRouterModel, "/v1"),
    "responses": (ResponsesModel, "/v1"),
    "anthropic": (AnthropicModel, ""),
    "google": (GoogleModel, ""),
}
WEATHER = ToolSpec(
    name="weather",
    description="The weather in a city.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
REQUEST = ModelRequest(messages=(UserMessage(text="What is the weather like in Oslo?"),), tools=(WEATHER,))
PRICE = Price(input_usd_per_million=1, output_usd_per_million=10)


def answer(recorded: Mapping[str, Any]) -> Answer:
    """The response that the file holds."""
    status, headers = recorded.get("status", 200), recorded.get("headers", {})
    if "events" in recorded:
        chunks = [_event(event, named=recorded["wire"] == "anthropic") for event in recorded["events"]]
        return Answer(status=status, kind=STREAM, headers=headers, chunks=chunks)
    text = recorded["text"] if "text" in recorded else json.dumps(recorded["body"])
    return Answer(status=status, kind=recorded.get("kind", JSON), headers=headers, chunks=[text.encode()])


def _event(event: Any, *, named: bool) -> bytes:
    if isinstance(event, str):  # a line as it is
        return event.encode() + b"\n\n"
    name = f"event: {event['type']}\n" if named else ""
    return f"{name}data: {json.dumps(event)}\n\n".encode()


async def read(recorded: Mapping[str, Any]) -> ModelReply | ModelError:
    """What a model makes of it."""
    wire, path = WIRES[recorded["wire"]]
    async with WireServer(path) as server:
        server.plan(answer(recorded))
        base_url = server.url if path else server.url.removesuffix("/")
        async with wire(recorded.get("model", "m"), api_key=KEY, base_url=base_url) as model:
            try:
                reply: ModelReply = await model.reply(
                    REQUEST, (lambda _: None) if "events" in recorded else None
                )
            except ModelError as error:
                return error
    return reply


def described(got: ModelReply | ModelError, asked: Mapping[str, Any]) -> dict[str, Any]:
    """``got`` in the words of the file, as far as it names them."""
    facts: dict[str, Any] = {}
    if isinstance(got, ModelError):
        facts = {
            "error": type(got).__name__,
            "billed": list(got.billed) if got.billed is not None else None,
            "billed_usd": got.billed_usd,
            "reason": getattr(got, "reason", ""),
        }
    got = got.reply if isinstance(got, ModelMistaken) else got
    if isinstance(got, ModelReply):
        name = asked.get("priced_as", "own:m")
        paid = Prices(own={"own:m": PRICE}).billed(got.usage, name)
        facts |= {
            "text": got.text,
            "stop_reason": got.stop_reason.value,
            "calls": [[call.name, call.arguments] for call in got.tool_calls],
            "problem": got.problem,
            "declined_because": got.declined_because,
            "usage": {name: getattr(got.usage, name) for name in asked.get("usage", ())},
            "cost_usd": paid.cost_usd,
        }
    return {name: facts.get(name) for name in asked if name != "priced_as"}


@pytest.mark.filterwarnings("ignore:.* is not a valid FinishReason")  # what Google's SDK says of a new one
@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.json")), ids=lambda file: file.stem)
async def test_it_is_read_as_it_is_meant(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    recorded = json.loads(file.read_text())
    expected = recorded["expected"]
    got = await read(recorded)
    assert described(got, expected) == {
        name: value for name, value in expected.items() if name != "priced_as"
    }
    assert KEY not in repr(got) + str(got)


# --- in a run ----------------------------------------------------------------------------------------------------

MISTAKE = {
    "message": "Tool call validation failed",
    "type": "invalid_request_error",
    "code": "tool_use_failed",
}


@pytest.mark.parametrize("wrote", ['{"name": "weather", "arguments": {"town": "Oslo"}}', "weather(Oslo)", ""])
async def test_a_mistake_of_the_model_is_its_turn(server: WireServer, model: OpenAIModel, wrote: str) -> None:
    asked: list[str] = []

    @tool(effect="pure")
    def weather(city: str) -> str:
        """The weather in a city."""
        asked.append(city)
        return "7 degrees"

    refused = {"error": {**MISTAKE, "failed_generation": wrote}}
    for _ in range(2):
        server.plan(Answer(status=400, chunks=[json.dumps(refused).encode()]))
    usage = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
    last = {"choices": [{"message": {"content": "7 degrees"}, "finish_reason": "stop"}], "usage": usage}
    server.plan(Answer(chunks=[json.dumps(last).encode()]))
    traffic = ProviderState(breaking=CircuitSettings(failures=1))
    chain = ResilientModel([model], traffic=traffic, retries=Retries(tries=1))
    outcome = await Agent(chain, tools=[weather], prices=Prices(own={model.name: PRICE})).run(
        "The weather in Oslo?"
    )
    assert outcome.unwrap() == "7 degrees"
    assert (outcome.usage.model_calls, asked, len(server.journal)) == (3, [], 3)
    assert traffic.circuits()[model.name].value == "closed"
    assert outcome.usage.tokens.partial  # the two mistakes were billed, and not counted
    assert "weather" in json.dumps(server.journal[-1].body["messages"])


async def test_a_call_without_a_name_goes_back_to_the_model(server: WireServer, model: OpenAIModel) -> None:
    @tool(effect="pure")
    def weather(city: str) -> str:
        """The weather in a city."""
        return f"{city}: 7 degrees"

    nameless = json.loads((FOLDER / "chat_call_without_name.json").read_text())["body"]
    missing = json.loads((FOLDER / "chat_announced_calls_missing.json").read_text())["body"]
    last = {
        "choices": [{"message": {"content": "7 degrees"}, "finish_reason": "stop"}],
        "usage": nameless["usage"],
    }
    for body in (missing, nameless, last):
        server.plan(Answer(chunks=[json.dumps(body).encode()]))
    traffic = ProviderState(breaking=CircuitSettings(failures=1))
    outcome = await Agent(ResilientModel([model], traffic=traffic), tools=[weather]).run(
        "The weather in Oslo?"
    )
    assert outcome.unwrap() == "7 degrees"
    assert outcome.usage.model_calls == 3
    told = server.journal[-1].body["messages"]
    assert [call["function"]["name"] for call in told[-3]["tool_calls"]] == ["weather", "unnamed"]
    assert [message["content"] for message in told[-2:]] == [
        "Oslo: 7 degrees",
        "Error: there is no tool ''; there are: weather",
    ]


async def test_what_is_announced_again_and_again_comes_to_an_end(
    server: WireServer, model: OpenAIModel
) -> None:
    missing = json.loads((FOLDER / "chat_announced_calls_missing.json").read_text())["body"]
    for _ in range(3):
        server.plan(Answer(chunks=[json.dumps(missing).encode()]))
    outcome = await Agent(model, patience=2).run("The weather in Oslo?")
    assert isinstance(outcome, Failed)
    assert outcome.error.code == "no_progress"
    assert "announced a tool call" in outcome.error.message


async def test_the_reason_of_a_refusal_is_in_the_error_of_the_run(server: WireServer) -> None:
    body = json.loads((FOLDER / "anthropic_refusal_explained.json").read_text())["body"]
    server.plan(Answer(chunks=[json.dumps(body).encode()]))
    async with AnthropicModel("claude-m", api_key=KEY, base_url=server.url.removesuffix("/v1")) as opened:
        outcome = await Agent(opened).run("How?")
    assert isinstance(outcome, Failed)
    assert outcome.error.code == "content_refused"
    assert outcome.error.message == "the model declined: cyber: This could help an attack."


async def test_a_turn_that_was_paused_goes_on(server: WireServer) -> None:
    usage = {"input_tokens": 12, "output_tokens": 5}
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "Oslo"}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    begun = {"role": "assistant", "content": [{"type": "text", "text": "I will look."}, search]}
    rest = {"role": "assistant", "content": [found, {"type": "text", "text": "7 degrees."}]}
    again = {"role": "assistant", "content": [{"type": "text", "text": "Yes, 7."}]}
    for message, reason in ((begun, "pause_turn"), (rest, "zzz"), (again, "end_turn")):
        body = {"type": "message", "model": "claude-m", "stop_reason": reason, "usage": usage, **message}
        server.plan(Answer(chunks=[json.dumps(body).encode()]))
    async with AnthropicModel("claude-m", api_key=KEY, base_url=server.url.removesuffix("/v1")) as opened:
        outcome = await Agent(opened).run("The weather in Oslo?")
    assert outcome.unwrap() == "Yes, 7."
    _, second, third = (asked.body["messages"] for asked in server.journal)
    assert [(each["role"], [block["type"] for block in each["content"]]) for each in second] == [
        ("user", ["text"]),
        ("assistant", ["text", "server_tool_use"]),
    ]
    assert [(each["role"], [block["type"] for block in each["content"]]) for each in third] == [
        ("user", ["text"]),
        ("assistant", ["text", "server_tool_use", "web_search_tool_result", "text"]),
        ("user", ["text"]),
    ]
