"""The true providers, for whoever has a key: `make test ARGS="-m live"`. Each test costs a cent or less.

A provider without its key in the environment is skipped. Another model than the one below is named with
``LIVE_OPENAI_MODEL`` and so on.
"""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel

from agentkit import Agent, Attachment, tool
from agentkit.errors import ModelAuthError, ModelBadRequest
from agentkit.messages import Delta, ModelRequest, StopReason, TextDelta, UserMessage
from agentkit.models import open_model
from agentkit.models.endpoints import PROVIDERS
from agentkit.ports import Model

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

MODELS = {
    "openai": "gpt-6-luna",
    "anthropic": "claude-haiku-4-5",
    "google": "gemini-3.5-flash-lite",
    "openrouter": "openai/gpt-6-luna",
}
RED_DOT = base64.b64decode(  # 8 × 8 pixels of plain red
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC"
)


@pytest.fixture(params=MODELS)
async def model(request: pytest.FixtureRequest) -> AsyncIterator[Model]:
    provider = request.param
    if not any(os.environ.get(name) for name in PROVIDERS[provider].key_variables):
        pytest.skip(f"no key: {' or '.join(PROVIDERS[provider].key_variables)}")
    name = os.environ.get(f"LIVE_{provider.upper()}_MODEL", MODELS[provider])
    opened: Any = open_model(f"{provider}:{name}")
    async with opened:
        yield opened


async def test_a_text_whole_and_streamed(model: Model) -> None:
    request = ModelRequest(messages=(UserMessage(text="Reply with the word OK."),), instructions="Be brief.")
    whole = await model.reply(request)
    assert "OK" in whole.text.upper()
    assert whole.stop_reason is StopReason.END
    assert whole.usage.input_tokens > 0
    assert whole.usage.output_tokens > 0
    seen: list[Delta] = []
    streamed = await model.reply(request, seen.append)
    assert streamed.usage.input_tokens > 0
    assert "".join(delta.text for delta in seen if isinstance(delta, TextDelta)) == streamed.text != ""


@pytest.mark.parametrize("streamed", [False, True])
async def test_tools_in_parallel_and_in_turn(model: Model, streamed: bool) -> None:
    asked: list[str] = []

    @tool(effect="pure")
    def population(city: str) -> int:
        """How many people live in a city."""
        asked.append(city)
        return {"oslo": 700_000, "bergen": 290_000}[city.lower()]

    @tool(effect="pure")
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    options: Any = {"on_event": lambda _event: None} if streamed else {}
    agent = Agent(model, tools=[population, add], instructions="Use the tools for every fact and every sum.")
    outcome = await agent.run("How many people live in Oslo and Bergen together?", **options)
    assert "990" in outcome.unwrap()
    assert sorted(city.lower() for city in asked) == ["bergen", "oslo"]


class City(BaseModel):
    name: str
    country: str
    bridges: list[str] = []


@pytest.mark.parametrize("output", [City, list[str], dict[str, int]])
async def test_typed_output(model: Model, output: Any) -> None:
    outcome = await Agent(model, output=output).run("Oslo, or facts about it, in the form that is asked for.")
    outcome.unwrap()


async def test_an_image(model: Model) -> None:
    dot = Attachment(media_type="image/png", data=RED_DOT, name="dot.png")
    outcome = await Agent(model).run(["Which colour is this? One word.", dot])
    assert "red" in outcome.unwrap().lower()


async def test_a_reply_that_is_cut(model: Model) -> None:
    asked = UserMessage(text="Write a poem of a hundred lines about the sea.")
    reply = await model.reply(ModelRequest(messages=(asked,), max_tokens=32))
    assert reply.stop_reason is StopReason.LENGTH


async def test_a_model_that_does_not_exist_and_a_wrong_key(model: Model) -> None:
    provider = model.name.partition(":")[0]
    request = ModelRequest(messages=(UserMessage(text="Hello"),))
    async with open_model(f"{provider}:no-such-model-{os.getpid()}") as missing:  # type: ignore[attr-defined]
        with pytest.raises(ModelBadRequest):
            await missing.reply(request)
    async with open_model(model.name, api_key="sk-wrong-0123456789abcdef") as locked:  # type: ignore[attr-defined]
        with pytest.raises(ModelAuthError):
            await locked.reply(request)
