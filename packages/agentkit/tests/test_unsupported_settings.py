"""Settings that a model does not take: refused by name at the first model of a chain, left out at the others."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from agentkit import Agent, Completed, Failed, Limits, MemoryJournal, ModelSettings
from agentkit.budget.prices import Price, Prices
from agentkit.errors import ModelOverloaded, UnsupportedSetting
from agentkit.messages import ModelRequest, UserMessage
from agentkit.models.provider_errors.classification import Refusal, to_model_error
from agentkit.models.resilience.model import ResilientModel
from agentkit.models.resilience.provider_state import ProviderState
from agentkit.models.resilience.retry import Retries
from agentkit.testing import ScriptedModel
from agentkit.transcript.steps import ModelFailed, ModelReplied

from .wire_server import Answer  # type: ignore[import-not-found]
from .wires import body, served  # type: ignore[import-not-found]

REFUSALS: list[tuple[str, int, dict[str, Any]]] = [
    # OpenAI
    (
        "temperature",
        400,
        {
            "message": "Unsupported parameter: 'temperature' is not supported with this model.",
            "param": "temperature",
        },
    ),
    (
        "temperature",
        400,
        {
            "message": "Unsupported value: 'temperature' does not support 0.1 with this model. Only the default (1) "
            "value is supported.",
            "param": "temperature",
            "code": "unsupported_value",
        },
    ),
    (
        "reasoning_effort",
        400,
        {
            "message": "Unsupported value: 'xhigh' is not supported with the 'gpt-5' model. Supported values are: "
            "'low', 'medium' and 'high'.",
            "param": "reasoning.effort",
        },
    ),
    (
        "reasoning_effort",
        400,
        {"message": "Unrecognized request argument supplied: reasoning_effort", "param": None},
    ),
    (
        "stop",
        400,
        {"message": "Unsupported parameter: 'stop' is not supported with this model.", "param": "stop"},
    ),
    ("tool_choice", 400, {"message": "Invalid value: 'required'.", "param": "tool_choice"}),
    (
        "max_tokens",
        400,
        {
            "message": "max_tokens is too large: 64000. This model supports at most 16384 completion tokens, whereas "
            "you provided 64000.",
            "param": "max_tokens",
        },
    ),
    # Anthropic, and Claude behind Bedrock
    ("temperature", 400, {"message": "`temperature` is deprecated for this model."}),
    ("temperature", 400, {"message": "temperature: range: 0..1"}),
    ("temperature", 400, {"message": "`temperature` may only be set to 1 when thinking is enabled."}),
    ("temperature", 400, {"message": "`temperature` and `top_p` cannot both be specified for this model."}),
    (
        "temperature",
        400,
        {"message": "The model returned the following errors: temperature is not supported."},
    ),
    ("seed", 400, {"message": "seed: Extra inputs are not permitted"}),
    ("reasoning_effort", 400, {"message": "This model does not support the effort parameter."}),
    ("tool_choice", 400, {"message": 'tool_choice: type "tool" and "any" are not supported for this model'}),
    (
        "max_tokens",
        400,
        {
            "message": "max_tokens: 64000 > 8192, which is the maximum allowed number of output tokens for claude-3"
        },
    ),
    # Google
    (
        "seed",
        400,
        {
            "message": "Invalid JSON payload received. Unknown name \"seed\" at 'generation_config': Cannot find field."
        },
    ),
    ("reasoning_effort", 400, {"message": "Thinking level is not supported for this model."}),
    (
        "temperature",
        400,
        {"message": "Unable to submit request because temperature must be in the range [0.0, 2.0]"},
    ),
    # xAI, Groq, Mistral, Cohere, DeepSeek, Ollama, vLLM, Bedrock, z.ai
    ("reasoning_effort", 400, {"message": "Model grok-4-latest does not support parameter reasoningEffort."}),
    ("stop", 400, {"message": "Argument not supported on this model: stop"}),
    ("reasoning_effort", 400, {"message": "`reasoning_effort` is not supported with this model"}),
    ("seed", 400, {"message": "property 'seed' is unsupported"}),
    ("seed", 422, {"message": "body.random_seed: Extra inputs are not permitted", "type": "extra_forbidden"}),
    ("temperature", 422, {"message": "body.temperature: Input should be less than or equal to 1.5"}),
    ("top_p", 422, {"message": "p: unknown field: parameter 'top_p' is not allowed"}),
    ("tool_choice", 400, {"message": "deepseek-reasoner does not support this tool_choice"}),
    ("reasoning_effort", 400, {"message": '"llama3.2" does not support thinking'}),
    (
        "temperature",
        400,
        {"message": "This model doesn't support the temperature field. Remove temperature and try again."},
    ),
    ("stop", 400, {"message": "This model doesn't support the stopSequences field."}),
    ("top_p", 400, {"message": "topP is not supported by this model"}),
    ("temperature", 400, {"message": "temperature 参数无效"}),
]


@pytest.mark.parametrize("setting, status, error", REFUSALS, ids=lambda value: str(value)[:60])
def test_a_providers_refusal_is_read_by_the_setting_that_it_names(
    setting: str, status: int, error: dict[str, Any]
) -> None:
    sent = json.dumps({"messages": [], "max_tokens": 64000}).encode()
    found = to_model_error(
        Refusal(model="p:m", status=status, error=error, headers={}, secret=None, sent=sent)
    )
    assert isinstance(found, UnsupportedSetting)
    assert found.setting == setting
    assert found.most == ({"max_tokens": 16384 if "16384" in error["message"] else 8192}.get(setting))
    assert setting in str(found)


@pytest.mark.parametrize(
    "status, error",
    [
        (400, {"message": "Invalid schema for function 'heat': properties.temperature is not supported"}),
        (400, {"message": "tools.0.input_schema.properties.seed: invalid", "type": "invalid_request_error"}),
        (400, {"message": "messages.3.content: temperature", "param": "messages[3].content"}),
        (400, {"message": "The model 'temperature-1' does not exist", "param": "model"}),
        (400, {"message": "Unknown parameter: 'top_k'. Supported parameters: temperature, top_p, seed"}),
        (400, {"message": "m does not support tools"}),
        (429, {"message": "Rate limit: max_tokens per minute exceeded"}),
        (500, {"message": "temperature is not supported"}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_another_refusal_is_none_of_a_setting(status: int, error: dict[str, Any]) -> None:
    found = to_model_error(
        Refusal(model="p:m", status=status, error=error, headers={}, secret=None, sent=b"{}")
    )
    assert not isinstance(found, UnsupportedSetting)


# --- in a chain --------------------------------------------------------------------------------------------------

SETTINGS = ModelSettings(temperature=0, top_p=0.5, seed=7, max_tokens=64000)


def refusing(message: str, **more: Any) -> Answer:
    error = {"message": message, "type": "invalid_request_error", **more}
    return Answer(status=400, chunks=[json.dumps({"type": "error", "error": error}).encode()])


async def test_a_fallback_is_asked_without_the_settings_that_it_does_not_take(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "agentkit.models")
    traffic = ProviderState()
    async with served("anthropic", "claude-opus-5") as one:
        outcomes, journals = [], [MemoryJournal(), MemoryJournal()]
        for journal in journals:
            first = ScriptedModel([ModelOverloaded()], name="first:m")
            chain = ResilientModel([first, one.model], retries=Retries(tries=1), traffic=traffic)
            one.answers(body("anthropic", "7 degrees"))
            outcomes.append(await Agent(chain, settings=SETTINGS).run("Weather?", journal=journal))
        assert [outcome.unwrap() for outcome in outcomes] == ["7 degrees"] * 2
        for sent in one.sent:
            assert not {"temperature", "top_p", "seed"} & set(sent)
            assert sent["max_tokens"] == 64000
    replied = [
        step.step for journal in journals for step in journal.steps if isinstance(step.step, ModelReplied)
    ]
    assert [sorted(reply.left_out) for reply in replied] == [["seed", "temperature", "top_p"]] * 2
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3  # once each, though two runs were carried
    assert all("as a fallback it is left out" in line for line in said)


async def test_the_providers_own_refusal_is_answered_in_the_same_way() -> None:
    async with served("chat") as one:
        one.server.plan(
            refusing("Unsupported parameter: 'temperature' is not supported.", param="temperature")
        )
        one.server.plan(refusing("property 'seed' is unsupported"))
        one.server.plan(
            refusing("max_tokens: 64000 > 8192, which is the maximum allowed number of output tokens")
        )
        one.answers(body("chat", "7 degrees"))
        first, journal = ScriptedModel([ModelOverloaded()], name="first:m"), MemoryJournal()
        agent = Agent(first, fallback=[one.model], retries=Retries(tries=1), settings=SETTINGS)
        assert (await agent.run("Weather?", journal=journal)).unwrap() == "7 degrees"
        last = one.sent[-1]
        assert (last["max_tokens"], last["top_p"]) == (8192, 0.5)
        assert not {"temperature", "seed"} & set(last)
    steps = [recorded.step for recorded in journal.steps]
    failed = [step for step in steps if isinstance(step, ModelFailed)]
    assert [step.error.code for step in failed] == ["model_overloaded", *["unsupported_setting"] * 3]
    assert [step.left_out for step in steps if isinstance(step, ModelReplied)] == [
        ["temperature", "seed", "max_tokens"]
    ]


async def test_within_a_limit_of_money_the_bound_of_a_fallback_holds_as_well() -> None:
    async with served("chat") as one:
        one.server.plan(
            refusing("max_tokens: 64000 > 8192, which is the maximum allowed number of output tokens")
        )
        one.answers(body("chat", "7 degrees"))
        price = Price(input_usd_per_million=1, output_usd_per_million=1)
        prices = Prices(own={"first:m": price, one.model.name: price})
        first = ScriptedModel([ModelOverloaded()], name="first:m")
        agent = Agent(
            first,
            fallback=[one.model],
            retries=Retries(tries=1),
            settings=SETTINGS,
            prices=prices,
            limits=Limits(usd=1.0),
        )
        assert isinstance(await agent.run("Weather?"), Completed)
        assert [sent["max_tokens"] for sent in one.sent] == [64000, 8192]


async def test_a_first_model_that_refuses_a_setting_ends_the_run_by_its_name() -> None:
    second = ScriptedModel(["never"], name="second:m")
    async with served("chat") as one:
        one.server.plan(refusing("Unsupported parameter: 'temperature'", param="temperature"))
        outcome = await Agent(one.model, fallback=[second], settings=SETTINGS).run("Weather?")
        assert isinstance(outcome, Failed)
        assert outcome.error.code == "unsupported_setting"
        assert f"{one.model.name}: the model does not take the setting temperature" in outcome.error.message
    assert second.requests == []


@pytest.mark.parametrize(
    "message", ["Unsupported parameter: 'temperature'", "`reasoning_effort` is not supported with this model"]
)
async def test_a_refusal_that_does_not_end_is_an_end(message: str) -> None:
    """What is refused was left out already, or was never asked for."""
    request = ModelRequest(messages=(UserMessage(text="Hi"),), temperature=0.5)
    async with served("chat") as one:
        for _ in range(2):
            one.server.plan(refusing(message))
        chain = ResilientModel([ScriptedModel([ModelOverloaded()]), one.model], retries=Retries(tries=1))
        with pytest.raises(ModelOverloaded):  # of the two errors the one after which it helps to try again
            await chain.reply(request)
        assert len(one.sent) == (2 if "temperature" in message else 1)
