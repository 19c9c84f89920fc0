"""Every adapter against aimock, an independent fake of the providers: whole and streamed, and what goes wrong there."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest
from pydantic import BaseModel

from agentkit import Agent, Completed, tool
from agentkit.errors import (
    ModelBadResponse,
    ModelError,
    ModelOverloaded,
    ModelRateLimited,
    ModelUnreachable,
)
from agentkit.messages import (
    Attachment,
    Delta,
    ModelReply,
    ModelRequest,
    Reasoning,
    StopReason,
    TextDelta,
    UserMessage,
)
from agentkit.models import NamedEndpoint, open_model
from agentkit.ports import Model

# pytest's importlib mode knows the folder as a package; mypy, given the folder, does not
from .aimock_server import AIMock, running_aimock  # type: ignore[import-not-found]

KEY = "sk-test-0123456789abcdef"
HELLO = ModelRequest(messages=(UserMessage(text="hello"),))
DOT = Attachment(media_type="image/png", data=b"\x89PNG", name="dot.png")


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """How one provider is reached at aimock."""

    kind: Any
    path: str
    model: str = "tiny-1"


SPEAKERS = {
    "openai": Speaker(kind="openai", path="/v1"),
    "responses": Speaker(kind="openai-responses", path="/v1"),
    "anthropic": Speaker(kind="anthropic", path=""),
    "google": Speaker(kind="google", path=""),
    "openrouter": Speaker(kind="openrouter", path="/api/v1", model="vendor/tiny-1"),
}


@pytest.fixture(scope="module")
def aimock() -> Iterator[AIMock]:
    with running_aimock() as running:
        yield running


@pytest.fixture(params=SPEAKERS)
def speaker(request: pytest.FixtureRequest) -> Speaker:
    return SPEAKERS[request.param]


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streamed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def test_id() -> str:
    return uuid.uuid4().hex


Connect = Callable[..., Model]


@pytest.fixture
async def connect(
    aimock: AIMock, speaker: Speaker, test_id: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Connect]:
    """Opens a model at aimock; its keywords are faults that are asked for by header."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with AsyncExitStack() as stack:
        opened: list[Any] = []

        def open_it(
            model: str = speaker.model, body: dict[str, Any] | None = None, **faults: object
        ) -> Model:
            headers = {"X-Test-Id": test_id}
            headers.update({f"x-aimock-chaos-{name}": str(value) for name, value in faults.items()})
            endpoint = NamedEndpoint(
                kind=speaker.kind,
                base_url=aimock.url + speaker.path,
                api_key_env="MOCK_KEY",
                headers=headers,
                body=body or {},
                timeout_seconds=5,
            )
            made = open_model(f"mock:{model}", endpoints={"mock": endpoint}, environ={"MOCK_KEY": KEY})
            stack.push_async_callback(made.aclose)  # type: ignore[attr-defined]
            opened.append(made)
            return made

        yield open_it


async def ask(model: Model, text: str, *, streamed: bool, **more: Any) -> tuple[ModelReply, list[Delta]]:
    deltas: list[Delta] = []
    request = replace(HELLO, messages=(UserMessage(text=text),), **more)
    return await model.reply(request, deltas.append if streamed else None), deltas


# --- what is said ------------------------------------------------------------------------------------------------


async def test_a_text(connect: Connect, speaker: Speaker, streamed: bool) -> None:
    model = connect()
    reply, deltas = await ask(model, "hello", streamed=streamed, instructions="Be brief.")
    assert reply.text == "Good day to you, whoever you are."
    assert reply.stop_reason is StopReason.END
    assert reply.model == model.name
    if speaker.kind not in {"openai-responses", "anthropic", "google"}:  # where aimock counts nothing
        assert reply.usage.input_tokens > 0
        assert reply.usage.output_tokens > 0
    seen = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    assert seen == (reply.text if streamed else "")
    assert not streamed or len(deltas) > 1


@pytest.mark.filterwarnings("ignore:FUNCTION_CALL is not a valid:UserWarning")  # aimock's word, not Google's
async def test_an_agent_with_a_tool(connect: Connect, streamed: bool, aimock: AIMock, test_id: str) -> None:
    asked: list[str] = []

    @tool(effect="pure")
    def get_weather(city: str) -> str:
        """The weather."""
        asked.append(city)
        return f"21 degrees in {city}"

    options: Any = {"on_event": lambda _event: None} if streamed else {}
    agent = Agent(connect(), tools=[get_weather])
    assert (await agent.run("What is the weather?", **options)).unwrap() == "It is 21 degrees in Oslo."
    assert (await agent.run("And both?", **options)).unwrap() == "Oslo is warmer."
    assert asked[0] == "Oslo"
    assert sorted(asked[1:]) == ["Bergen", "Oslo"]
    heard = aimock.heard(test_id)
    assert len(heard) == 4
    results = [message for message in heard[3]["body"]["messages"] if message["role"] == "tool"]
    assert sorted("Bergen" in str(message["content"]) for message in results) == [False, True]


class Weather(BaseModel):
    city: str
    degrees: int


async def test_typed_output(connect: Connect) -> None:
    outcome = await Agent(connect(), output=Weather).run("Oslo as JSON")
    assert isinstance(outcome, Completed)
    assert outcome.output == Weather(city="Oslo", degrees=21)


async def test_an_image(connect: Connect, speaker: Speaker, aimock: AIMock, test_id: str) -> None:
    reply = await Agent(connect()).run(["What is this?", DOT])
    assert isinstance(reply, Completed)
    (heard,) = aimock.heard(test_id)
    assert "What is this?" in str(heard["body"])
    if speaker.kind in {"openai", "openrouter"}:  # what it keeps of the others is their text
        assert "iVBORw==" in str(heard["body"])


async def test_reasoning_is_apart_from_the_text(connect: Connect, streamed: bool, speaker: Speaker) -> None:
    reply, _ = await ask(connect(), "ponder", streamed=streamed)
    thoughts = [part.text for part in reply.parts if isinstance(part, Reasoning)]
    assert reply.text == "Forty-two."
    assert "".join(thoughts) == "Six times seven, of course."


@pytest.mark.parametrize(
    "text, reason", [("at length", StopReason.LENGTH), ("forbidden", StopReason.FILTERED)]
)
async def test_stop_reasons(
    connect: Connect, speaker: Speaker, streamed: bool, text: str, reason: StopReason
) -> None:
    if speaker.kind == "openai-responses" and reason is StopReason.FILTERED:
        with pytest.raises(ModelBadResponse):  # aimock calls it failed, and does not say why
            await ask(connect(), text, streamed=streamed)
        return
    reply, _ = await ask(connect(), text, streamed=streamed)
    assert reply.stop_reason is reason


async def test_usage(connect: Connect, speaker: Speaker, streamed: bool) -> None:
    usage = (await ask(connect(), "priced", streamed=streamed))[0].usage
    assert (usage.input_tokens, usage.output_tokens) == (120, 30)
    if speaker.kind == "openrouter":
        assert (usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (64, 16, 10)
        assert usage.cost_usd == 0.0125


# --- what goes wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault, kinds",
    [
        ({"drop": 1}, (ModelOverloaded,)),
        ({"ratelimit": 1}, (ModelRateLimited,)),
        ({"malformed": 1}, (ModelBadResponse,)),
        ({"disconnect": 1}, (ModelUnreachable,)),
    ],
    ids=["500", "429", "malformed", "disconnect"],
)
async def test_faults(
    connect: Connect, streamed: bool, aimock: AIMock, test_id: str, fault: Any, kinds: Any
) -> None:
    with pytest.raises(ModelError) as caught:
        await ask(connect(**fault), "hello, secretly", streamed=streamed)
    assert type(caught.value) in kinds, caught.value
    assert KEY not in str(caught.value)
    assert "secretly" not in str(caught.value)
    if isinstance(caught.value, ModelRateLimited):
        assert caught.value.retry_after is not None
    assert len(aimock.heard(test_id)) == 1, "asked again"
    assert (await ask(connect(), "hello", streamed=streamed))[0].text.startswith("Good day")


async def test_a_stream_that_breaks_off_is_no_answer(connect: Connect) -> None:
    with pytest.raises((ModelBadResponse, ModelUnreachable)):
        await ask(connect(), "breaks off", streamed=True)


async def test_a_slow_answer_is_waited_for_and_can_be_cancelled(connect: Connect, streamed: bool) -> None:
    reply, _ = await ask(connect(latency=100), "hello", streamed=streamed)
    assert reply.text.startswith("Good day")
    waiting = asyncio.create_task(ask(connect(latency=30_000), "hello", streamed=streamed))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await waiting
    assert waiting.cancelled()


# --- OpenRouter --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("speaker", ["openrouter"], indirect=True)
async def test_openrouter_tells_which_model_took_over(
    connect: Connect, streamed: bool, aimock: AIMock, test_id: str
) -> None:
    body = {"models": ["vendor/spare"], "provider": {"order": ["near"], "require_parameters": True}}
    reply, _ = await ask(connect("vendor/broken", body), "hello", streamed=streamed)
    assert reply.model == "mock:vendor/spare"
    (heard,) = aimock.heard(test_id)
    assert heard["headers"]["x-openrouter-title"] == "agentkit"
    assert heard["body"]["provider"] == body["provider"]
    without = {**body, "provider": {"allow_fallbacks": False}}
    with pytest.raises(ModelOverloaded):
        await ask(connect("vendor/broken", without), "hello", streamed=streamed)
