"""Ids of calls: they go back as they came, and a provider that has a rule gets only ids that keep it."""

from __future__ import annotations

import asyncio
import re

import pytest

from agentkit import Agent, Completed, ToolContext, tool
from agentkit.messages import AssistantMessage, ModelRequest, ToolCall, ToolMessage, ToolSpec, UserMessage
from agentkit.models.adapter.call_ids import ANTHROPIC, MISTRAL, CallIds
from agentkit.models.resilience.retry import Retries

from .wire_server import as_json  # type: ignore[import-not-found]
from .wires import Call, body, ids_in, served  # type: ignore[import-not-found]

KINDS = ["chat", "openrouter", "responses", "anthropic", "google"]
HELLO = UserMessage(text="Weather in Oslo?")
STRANGE = [
    "functions.weather:0",
    "9aB3dEf7H",
    "call_4162774",
    "call_0123456789abcdef0123456789abcdef",
    "call_1_0",
    "chatcmpl-tool-0123456789abcdef0123456789abcdef",
    "a|b/c+d==",
    "größe",
    "x" * 300,
]


@tool(effect="pure")
async def weather(city: str) -> str:
    """Weather in a city."""
    await asyncio.sleep(0.05 if city == "Oslo" else 0)
    return f"{city}: {len(city)} degrees"


def conversation(*ids: str) -> ModelRequest:
    calls = tuple(ToolCall(id=each, name="weather", arguments={"city": "Oslo"}) for each in ids)
    results = tuple(ToolMessage(call_id=each, name="weather", content="7") for each in ids)
    spec = ToolSpec(name="weather", description="Weather.", parameters={"type": "object"})
    return ModelRequest(messages=(HELLO, AssistantMessage(parts=calls), *results), tools=(spec,))


@pytest.mark.parametrize("given", STRANGE)
@pytest.mark.parametrize("kind", ["chat", "google"])
async def test_an_id_goes_back_as_it_came(kind: str, given: str) -> None:
    async with served(kind) as one:
        one.answers(body(kind, calls=[Call(given)]), body(kind, "7 degrees"))
        outcome = await Agent(one.model, tools=[weather]).run("Weather in Oslo?")
        assert isinstance(outcome, Completed)
        assert one.ids == ([given], [given])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", ["toolu_01A", "call_4162774", "9aB3dEf7H"])
async def test_an_ordinary_id_goes_back_as_it_came_on_every_wire(kind: str, given: str) -> None:
    async with served(kind) as one:
        one.answers(body(kind, calls=[Call(given), Call(f"{given}x", "Cairo")]), body(kind, "done"))
        await Agent(one.model, tools=[weather]).run("Weather?")
        assert one.ids[0] == [given, f"{given}x"]
        assert one.ids[0] == one.ids[1]  # also the slower result stands in its call's place


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ids", [(None, None), ("c", "c"), ("c", None), ("", "c"), ("c\nd", "c\x00d")])
async def test_missing_doubled_and_unprintable_ids_are_replaced(
    kind: str, ids: tuple[str | None, ...]
) -> None:
    async with served(kind) as one:
        one.answers(
            body(kind, calls=[Call(ids[0]), Call(ids[1], "Cairo")]),
            body(kind, calls=[Call("c", "Rome")]),
            body(kind, "done"),
        )
        outcome = await Agent(one.model, tools=[weather]).run("Weather?")
        assert isinstance(outcome, Completed)
        called, answered = one.ids
        assert called == answered
        assert len(set(called)) == 3
        assert all(each and each.isprintable() for each in called)


RULES = [
    ("chat", "mistral-large-latest", r"[A-Za-z0-9]{9}"),
    ("openrouter", "mistralai/devstral-medium", r"[A-Za-z0-9]{9}"),
    ("openrouter", "openai/gpt-5.5", r"(?s).{1,40}"),
    ("anthropic", "claude-opus-5-5", r"[A-Za-z0-9_-]{1,64}"),
    ("responses", "gpt-5.5", r"(?s).{1,64}"),
]


@pytest.mark.parametrize("kind, name, rule", RULES)
async def test_ids_of_other_providers_keep_the_rule_and_stay_apart(kind: str, name: str, rule: str) -> None:
    ids = [*STRANGE, *(f"{each}!" for each in STRANGE), "a.b", "a:b", "a_b", "abcdefghi", "y" * 41, "y" * 65]
    async with served(kind, name) as one:
        for _ in range(2):
            one.answers(body(kind, "done"))
            await one.model.reply(conversation(*ids))
        called, answered = one.ids
        assert called == answered
        assert len(set(called)) == len(ids)
        assert all(re.fullmatch(rule, each) for each in called)
        assert [sent for sent, given in zip(called, ids, strict=True) if re.fullmatch(rule, given)] == [
            given for given in ids if re.fullmatch(rule, given)
        ]
        assert ids_in(kind, one.sent[0]) == one.ids  # the same each time: what a provider has cached stays so


async def test_the_endpoint_called_mistral_and_its_own_address_keep_its_rule() -> None:
    for more in ({"provider": "mistral"}, {}):
        async with served("chat", "some-model", **more) as one:
            one.answers(body("chat", "done"))
            await one.model.reply(conversation("toolu_01AbCdEf"))
            assert (len(one.ids[0][0]) == 9) is bool(more)


async def test_a_fallback_to_mistral_gets_ids_that_it_takes() -> None:
    broken = {"error": {"message": "overloaded"}}
    async with served("anthropic") as one, served("chat", "mistral-large-latest") as two:
        one.answers(body("anthropic", calls=[Call("toolu_01AbCdEf")]))
        one.server.plan(as_json(broken, status=503))
        two.answers(body("chat", "done"))
        agent = Agent(one.model, fallback=[two.model], tools=[weather], retries=Retries(tries=1))
        assert isinstance(await agent.run("Weather?"), Completed)
        assert re.fullmatch("[A-Za-z0-9]{9}", two.ids[0][0])
        assert two.ids[0] == two.ids[1]


def test_a_made_id_that_the_conversation_has_already_is_made_anew() -> None:
    for rule in (MISTRAL, ANTHROPIC):
        made = rule.made("a.b")
        ids = CallIds(rule)
        assert ids.of(made) == made
        assert ids.of("a.b") != made
        other = CallIds(rule)
        assert other.of("a.b") == made
        assert other.of(made) != made
        assert rule.fits(other.of(made))


async def test_a_key_for_other_systems_is_plain_whatever_the_id_is() -> None:
    keys: list[str] = []

    @tool(effect="idempotent")
    def book(city: str, context: ToolContext[None]) -> str:
        """Book a city."""
        keys.append(context.idempotency_key)
        return "booked"

    async with served("chat") as one:
        one.answers(
            body("chat", calls=[Call("functions.book:0", name="book"), Call("call_1", name="book")]),
            body("chat", calls=[Call("größe " * 100 + "!", name="book")]),
            body("chat", "done"),
        )
        await Agent(one.model, tools=[book]).run("Book", run_id="run")
    assert "run:call_1" in keys
    assert len(set(keys)) == 3
    assert all(re.fullmatch(r"run:[A-Za-z0-9_-]{1,64}", key) for key in keys)
