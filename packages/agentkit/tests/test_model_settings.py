"""How an agent wants its model to answer."""

from __future__ import annotations

from typing import Any

import pytest

from agentkit import Agent, Completed, Failed, Limits, MemoryJournal, ModelSettings, tool
from agentkit.budget.prices import Price, Prices
from agentkit.errors import UsageError
from agentkit.messages import ToolCall
from agentkit.models.credentials import Extras
from agentkit.testing import ScriptedModel

from .wire_server import KEY  # type: ignore[import-not-found]
from .wires import Call, body, served  # type: ignore[import-not-found]

ALL = ModelSettings(
    max_tokens=100,
    temperature=0.5,
    top_p=0.9,
    seed=7,
    reasoning_effort="low",
    tool_choice="required",
    stop=("END",),
)


@tool(effect="pure")
def weather(city: str) -> str:
    """Weather in a city."""
    return f"{city}: 7 degrees"


@pytest.mark.parametrize(
    "given",
    [
        *[{"max_tokens": each} for each in (0, -1, 1.5, True, "9")],
        *[{"temperature": each} for each in (-0.1, 2.1, float("nan"), True, "1")],
        *[{"top_p": each} for each in (0, 1.1, float("inf"))],
        *[{"seed": each} for each in (1.0, True, 2**70)],
        *[{"reasoning_effort": each} for each in ("much", "", 3)],
        *[{"tool_choice": each} for each in ("", " ", 3)],
        *[{"stop": each} for each in ("END", ("",), (1,), tuple("abcdefghijklmnopqrst"), ["END"])],
    ],
    ids=str,
)
def test_a_value_that_cannot_be_right_is_refused_by_its_name(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"settings: {next(iter(given))} must be"):
        ModelSettings(**given)


async def test_they_are_part_of_each_request_and_a_call_is_forced_once() -> None:
    model = ScriptedModel([ToolCall(id="c", name="weather", arguments={"city": "Oslo"}), "7 degrees"])
    outcome = await Agent(model, tools=[weather], settings=ALL).run("Weather?")
    assert isinstance(outcome, Completed)
    first, then = model.requests
    asked = (first.max_tokens, first.temperature, first.top_p, first.seed, first.reasoning_effort, first.stop)
    assert asked == (100, 0.5, 0.9, 7, "low", ("END",))
    assert (first.tool_choice, then.tool_choice) == ("required", None)


async def test_the_planning_keeps_its_own_stops() -> None:
    model = ScriptedModel(["Thought: ok\nFinal Answer: 7"])
    await Agent(model, planning="react", settings=ModelSettings(stop=("END",))).run("Weather?")
    assert model.requests[0].stop == ("\nObservation:", "END")


@pytest.mark.parametrize("choice", ["auto", "none"])
async def test_a_choice_that_forces_nothing_holds_for_the_whole_run(choice: str) -> None:
    model = ScriptedModel([ToolCall(id="c", name="weather", arguments={"city": "Oslo"}), "7 degrees"])
    await Agent(model, tools=[weather], settings=ModelSettings(tool_choice=choice)).run("Weather?")
    assert [request.tool_choice for request in model.requests] == [choice, choice]


@pytest.mark.parametrize(
    "more, why",
    [
        ({"tools": [weather], "settings": ModelSettings(tool_choice="wether")}, "no such tool, but weather"),
        ({"settings": ModelSettings(tool_choice="required")}, "no such tool, but none"),
        (
            {"tools": [weather], "planning": "react", "settings": ModelSettings(tool_choice="required")},
            "react",
        ),
    ],
)
async def test_a_call_that_cannot_be_made_is_not_forced(more: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=f"settings: tool_choice .*{why}"):
        await Agent(ScriptedModel([]), **more).run("Weather?")


async def test_of_the_setting_and_the_money_that_is_left_the_smaller_bound_counts() -> None:
    price = Prices(own={"test:m": Price(input_usd_per_million=1, output_usd_per_million=1000)})
    for setting, expected in ((300, 300), (100_000, None)):
        model = ScriptedModel(["ok"], name="test:m")
        agent = Agent(model, prices=price, limits=Limits(usd=1.0), settings=ModelSettings(max_tokens=setting))
        assert isinstance(await agent.run("Go"), Completed | Failed)
        sent = model.requests[0].max_tokens
        assert sent is not None
        assert sent == expected if expected is not None else sent < 1000


async def test_settings_of_the_agent_go_before_the_fields_of_the_endpoint() -> None:
    async with served("chat", extras=Extras(body={"temperature": 1, "max_tokens": 50, "top_k": 3})) as one:
        one.answers(body("chat", "7 degrees"))
        await Agent(one.model, settings=ModelSettings(temperature=0, max_tokens=100)).run("Weather?")
        sent = one.sent[0]
        assert (sent["temperature"], sent["max_tokens"], sent["top_k"]) == (0, 50, 3)


@pytest.mark.parametrize(
    "model, settings",
    [
        ("anthropic:claude-opus-4-7", {"temperature": 0}),
        ("anthropic:claude-sonnet-5-5", {"top_p": 0.9}),
        ("anthropic:claude-fable-5", {"temperature": 0.3}),
        ("anthropic:claude-sonnet-4-6", {"seed": 1}),
        ("anthropic:claude-sonnet-4-6", {"temperature": 1.5}),
        ("anthropic:claude-opus-4-6", {"reasoning_effort": "minimal"}),
        ("anthropic:claude-opus-5-5", {"tool_choice": "required"}),
        ("google:gemini-2.5-pro", {"reasoning_effort": "low"}),
        ("google:gemini-3-pro", {"reasoning_effort": "max"}),
    ],
    ids=str,
)
def test_a_setting_that_the_model_does_not_take_is_refused_when_the_agent_is_declared(
    model: str, settings: dict[str, Any]
) -> None:
    (setting,) = settings
    with pytest.raises(UsageError, match=f"settings: {setting}: {model} does not take the setting {setting}"):
        Agent(model, settings=ModelSettings(**settings))


@pytest.mark.parametrize(
    "model, settings",
    [
        ("anthropic:claude-sonnet-4-20250514", {"temperature": 0, "top_p": 0.5}),
        ("anthropic:claude-3-5-sonnet-20241022", {"temperature": 0.5}),
        ("anthropic:claude-opus-4-6", {"temperature": 1.0, "reasoning_effort": "max"}),
        ("anthropic:claude-opus-5", {"temperature": 1, "top_p": 1.0}),
        ("google:gemini-3-pro", {"seed": 3, "reasoning_effort": "high"}),
        ("openrouter:anthropic/claude-opus-5", {"temperature": 0}),
        ("offline:planner", {"temperature": 0, "seed": 1}),
    ],
    ids=str,
)
def test_a_setting_that_the_model_takes_is_not(model: str, settings: dict[str, Any]) -> None:
    Agent(model, settings=ModelSettings(**settings))


@pytest.mark.parametrize(
    "kind, name, settings, sent",
    [
        (
            "anthropic",
            "claude-sonnet-4-6",
            {"temperature": 0.5, "top_p": 0.9},
            {"temperature": 0.5, "top_p": 0.9},
        ),
        ("anthropic", "claude-opus-5", {"temperature": 1.0, "top_p": 1}, {}),
        ("chat", "o3-of-our-own", {"temperature": 0.5, "seed": 3}, {"temperature": 0.5, "seed": 3}),
        ("responses", "m", {"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
    ],
)
async def test_what_the_model_takes_is_sent(
    kind: str, name: str, settings: dict[str, Any], sent: dict[str, Any]
) -> None:
    async with served(kind, name) as one:
        one.answers(body(kind, "7 degrees"))
        outcome = await Agent(one.model, settings=ModelSettings(**settings)).run("Weather?")
        assert outcome.unwrap() == "7 degrees"
        assert {
            each: one.sent[0][each] for each in ("temperature", "top_p", "seed") if each in one.sent[0]
        } == sent


@pytest.mark.parametrize("kind", ["anthropic", "responses"])
async def test_an_open_model_is_asked_as_well(kind: str) -> None:
    async with served(kind) as one:
        with pytest.raises(UsageError, match=r"settings: seed: .*:m does not take the setting seed"):
            Agent(one.model, settings=ModelSettings(seed=1))


async def test_where_the_address_is_in_the_environment_it_is_refused_before_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    given: dict[str, dict[str, Any]] = {"o4-mini": {"temperature": 0}, "gpt-4.1": {"reasoning_effort": "low"}}
    for model, settings in given.items():
        journal = MemoryJournal()
        with pytest.raises(UsageError, match=next(iter(settings))):
            await Agent(f"openai:{model}", settings=ModelSettings(**settings)).run("Hi", journal=journal)
        assert await journal.load() == ()


async def test_a_tool_is_named_on_the_wire() -> None:
    async with served("chat") as one:
        one.answers(body("chat", calls=[Call("c")]), body("chat", "7 degrees"))
        await Agent(one.model, tools=[weather], settings=ModelSettings(tool_choice="weather")).run("Weather?")
        assert [sent.get("tool_choice") for sent in one.sent] == [
            {"type": "function", "function": {"name": "weather"}},
            None,
        ]
