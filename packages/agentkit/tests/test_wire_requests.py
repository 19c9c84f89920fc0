"""What a request holds beside the conversation: the endpoint's own fields, settings, outputs, marks for caches."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentkit import Agent, Completed, tool
from agentkit.errors import UnsupportedSetting, UsageError
from agentkit.messages import ModelReply, ModelRequest, TextDelta, ToolSpec, UserMessage
from agentkit.models.adapter.dialect import Dialect
from agentkit.models.credentials import Extras
from agentkit.models.endpoints import NamedEndpoint
from agentkit.models.openai.chat import encode_request
from agentkit.models.openai.responses import encode_request as encode_response

from .wire_server import as_events  # type: ignore[import-not-found]
from .wires import Call, anthropic, body, served  # type: ignore[import-not-found]

HELLO = (UserMessage(text="Hello"),)
WEATHER = ToolSpec(name="weather", description="Weather.", parameters={"type": "object"})
KINDS = ["chat", "openrouter", "responses", "anthropic", "google"]
OPEN: dict[str, Any] = {"type": "object", "additionalProperties": True}


async def sent(kind: str, request: ModelRequest, name: str = "m", **fields: Any) -> Any:
    """The body of a request to an endpoint with these fields."""
    async with served(kind, name, extras=Extras(body=fields)) as one:
        one.answers(body(kind, "Yes."))
        await one.model.reply(request)
        return one.sent[-1]


# --- the endpoint's own fields -----------------------------------------------------------------------------------

REFUSED = [
    *[("chat", name) for name in ("model", "messages", "stream", "response_format", "n", "functions")],
    *[("openrouter", name) for name in ("model", "messages", "stream")],
    *[("responses", name) for name in ("model", "input", "instructions", "stream", "previous_response_id")],
    *[("anthropic", name) for name in ("model", "messages", "system", "stream")],
    *[("google", name) for name in ("contents", "systemInstruction", "system_instruction", "model")],
]


@pytest.mark.parametrize("kind, name", REFUSED)
async def test_a_field_that_the_adapter_writes_is_refused_by_name(kind: str, name: str) -> None:
    with pytest.raises(UsageError, match=rf"body: {name.split('_', maxsplit=1)[0]}.*adapter"):
        async with served(kind, extras=Extras(body={name: "x"})):
            pass
    endpoint = {"chat": "openai", "responses": "openai-responses"}.get(kind, kind)
    given = NamedEndpoint(kind=endpoint, base_url="http://127.0.0.1:1/v1", body={name: "x"})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="body"):
        given.checked("mine")


@pytest.mark.parametrize(
    "kind, fields",
    [
        ("responses", {"text": {"format": {"type": "text"}}}),
        ("anthropic", {"output_config": {"format": {}}}),
        ("google", {"generation_config": {"response_mime_type": "text/plain"}}),
        ("chat", {"tools": [{"type": "function", "function": {"name": "mine"}}]}),
        ("responses", {"tools": [{"type": "computer_use_preview"}]}),
        ("anthropic", {"tools": [{"type": "bash_20250124", "name": "bash"}]}),
        ("anthropic", {"tools": [{"name": "mine", "input_schema": {}}]}),
        ("google", {"tools": [{"functionDeclarations": []}]}),
        ("chat", {"tools": "web_search"}),
    ],
)
async def test_so_are_fields_within_and_tools_that_nobody_would_answer(kind: str, fields: Any) -> None:
    with pytest.raises(UsageError, match="body: "):
        async with served(kind, extras=Extras(body=fields)):
            pass


SERVER_TOOLS = {
    "chat": {"type": "web_search"},
    "openrouter": {"type": "openrouter:web_search"},
    "responses": {"type": "web_search"},
    "anthropic": {"type": "web_search_20250305", "name": "web_search"},
    "google": {"googleSearch": {}},
}


@pytest.mark.parametrize("kind", KINDS)
async def test_tools_of_the_provider_stand_beside_those_of_the_agent(kind: str) -> None:
    request = ModelRequest(messages=HELLO, tools=(WEATHER,))
    tools = (await sent(kind, request, tools=[SERVER_TOOLS[kind]]))["tools"]
    assert tools[-1] == SERVER_TOOLS[kind]
    assert "weather" in json.dumps(tools[0])
    assert (await sent(kind, ModelRequest(messages=HELLO), tools=[SERVER_TOOLS[kind]]))["tools"] == [
        SERVER_TOOLS[kind]
    ]


async def test_objects_are_merged_and_the_request_goes_before_the_endpoint() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    request = ModelRequest(messages=HELLO, output_schema=schema, temperature=0.5, max_tokens=500)
    bounded = ModelRequest(messages=HELLO, output_schema=schema, max_tokens=500)
    text = await sent("responses", request, text={"verbosity": "low"}, temperature=1, store=True)
    assert text["text"]["verbosity"] == "low"
    assert text["text"]["format"]["type"] == "json_schema"
    assert (text["temperature"], text["store"]) == (0.5, True)
    told = await sent("anthropic", bounded, output_config={"effort": "low"}, max_tokens=100)
    assert told["output_config"]["effort"] == "low"
    assert "format" in told["output_config"]
    assert told["max_tokens"] == 100  # of two bounds the smaller one
    told = await sent(
        "google", request, generationConfig={"temperature": 1, "topK": 3, "maxOutputTokens": 100}
    )
    found = told["generationConfig"]
    assert (found["temperature"], found["topK"], found["maxOutputTokens"]) == (0.5, 3, 100)
    assert "responseJsonSchema" in found
    told = await sent("chat", request, max_completion_tokens=9000, include=["x"])
    assert told["max_completion_tokens"] == 500  # the endpoint says which field bounds its replies
    assert "max_tokens" not in told


# --- settings ----------------------------------------------------------------------------------------------------

ALL = ModelRequest(
    messages=HELLO,
    tools=(WEATHER,),
    temperature=0.5,
    top_p=0.9,
    seed=7,
    reasoning_effort="low",
    max_tokens=50,
)
WITHOUT_SEED = ModelRequest(
    messages=HELLO, tools=(WEATHER,), temperature=0.5, top_p=0.9, reasoning_effort="low", max_tokens=50
)
TOLD: dict[str, tuple[ModelRequest, dict[str, Any]]] = {
    "chat": (
        ALL,
        {"temperature": 0.5, "top_p": 0.9, "seed": 7, "reasoning_effort": "low", "max_tokens": 50},
    ),
    "openrouter": (
        ALL,
        {"temperature": 0.5, "top_p": 0.9, "seed": 7, "reasoning": {"effort": "low"}, "max_tokens": 50},
    ),
    "responses": (
        WITHOUT_SEED,
        {"temperature": 0.5, "top_p": 0.9, "reasoning": {"effort": "low"}, "max_output_tokens": 50},
    ),
    "anthropic": (
        ModelRequest(messages=HELLO, reasoning_effort="low", max_tokens=50),
        {"output_config": {"effort": "low"}, "max_tokens": 50},
    ),
    "google": (
        ALL,
        {
            "temperature": 0.5,
            "topP": 0.9,
            "seed": 7,
            "thinkingConfig": {"thinkingLevel": "LOW"},
            "maxOutputTokens": 50,
        },
    ),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_each_wire_has_its_word_for_a_setting(kind: str) -> None:
    request, expected = TOLD[kind]
    found = await sent(kind, request)
    found = found["generationConfig"] if kind == "google" else found
    if kind == "google":  # the SDK writes some names as Python does, which Google takes as well
        found["thinkingConfig"] = {"thinkingLevel": found["thinkingConfig"]["thinking_level"]}
    assert {name: found.get(name) for name in expected} == expected


CHOICES: dict[str, list[Any]] = {
    "chat": ["auto", "required", "none", {"type": "function", "function": {"name": "weather"}}],
    "responses": ["auto", "required", "none", {"type": "function", "name": "weather"}],
    "anthropic": [{"type": "auto"}, {"type": "any"}, {"type": "none"}, {"type": "tool", "name": "weather"}],
    "google": [
        {"mode": "AUTO"},
        {"mode": "ANY"},
        {"mode": "NONE"},
        {"mode": "ANY", "allowedFunctionNames": ["weather"]},
    ],
}


@pytest.mark.parametrize("kind", CHOICES)
async def test_the_choice_of_a_tool_in_the_words_of_each_wire(kind: str) -> None:
    for choice, expected in zip(("auto", "required", "none", "weather"), CHOICES[kind], strict=True):
        found = await sent(kind, ModelRequest(messages=HELLO, tools=(WEATHER,), tool_choice=choice))
        told = found["toolConfig"]["functionCallingConfig"] if kind == "google" else found["tool_choice"]
        assert told == expected


@pytest.mark.parametrize(
    "kind, name, request_, what",
    [
        ("responses", "m", ModelRequest(messages=HELLO, seed=1), "seed"),
        ("anthropic", "m", ModelRequest(messages=HELLO, seed=1), "seed"),
        ("anthropic", "claude-opus-5", ModelRequest(messages=HELLO, temperature=0), "temperature"),
        ("anthropic", "claude-opus-4.7", ModelRequest(messages=HELLO, top_p=0.5), "top_p"),
        (
            "google",
            "gemini-2.5-flash",
            ModelRequest(messages=HELLO, reasoning_effort="low"),
            "reasoning_effort",
        ),
        (
            "anthropic",
            "claude-opus-5-5",
            ModelRequest(messages=HELLO, tools=(WEATHER,), tool_choice="required"),
            "tool_choice",
        ),
    ],
)
async def test_a_setting_that_a_wire_has_no_word_for_is_refused(
    kind: str, name: str, request_: ModelRequest, what: str
) -> None:
    with pytest.raises(UnsupportedSetting, match=what):
        await sent(kind, request_, name)


# --- outputs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, choice",
    [
        ("claude-opus-5-5", "auto"),
        ("claude-fable-5", "auto"),
        ("claude-mythos-1", "auto"),
        ("claude-opus-4-5", "any"),
    ],
)
async def test_only_models_that_take_it_are_forced_to_give_the_output(name: str, choice: str) -> None:
    found = await sent("anthropic", ModelRequest(messages=HELLO, output_schema=OPEN), name)
    assert found["tool_choice"] == {"type": choice}


ROOTS: list[tuple[Any, Any]] = [
    (list[str], ["a", "b"]),
    (int, 7),
    (int | str, "seven"),
    (list[int] | None, None),
]


@pytest.mark.parametrize("kind", ["chat", "responses"])
@pytest.mark.parametrize("output, value", ROOTS, ids=lambda each: str(each)[:20])
async def test_an_output_that_is_no_object_travels_in_one(kind: str, output: Any, value: Any) -> None:
    async with served(kind) as one:
        one.answers(body(kind, json.dumps({"output": value})))
        outcome = await Agent(one.model, output=output).run("Go")
        assert isinstance(outcome, Completed)
        assert outcome.output == value
        where = "response_format" if kind == "chat" else "text"
        schema = one.sent[-1][where]["json_schema" if kind == "chat" else "format"]["schema"]
        assert (schema["type"], list(schema["properties"])) == ("object", ["output"])


async def test_a_server_that_does_not_wrap_is_understood_as_well() -> None:
    async with served("chat") as one:
        one.answers(body("chat", '["a"]'))
        outcome = await Agent(one.model, output=list[str]).run("Go")
        assert isinstance(outcome, Completed)
        assert outcome.output == ["a"]


async def test_what_is_shown_of_a_wrapped_output_is_the_output() -> None:
    def piece(text: str, end: str | None = None) -> dict[str, Any]:
        return {
            "id": "c",
            "model": "m",
            "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": end}],
        }

    shown: list[str] = []
    schema: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
    async with served("chat") as one:
        one.server.plan(as_events([piece('{"output": ["a"'), piece("]}", "stop")]))
        reply: ModelReply = await one.model.reply(
            ModelRequest(messages=HELLO, output_schema=schema),
            lambda delta: shown.append(delta.text) if isinstance(delta, TextDelta) else None,
        )
    assert "".join(shown) == reply.text == '["a"]'


@pytest.mark.parametrize("kind, name", [("anthropic", "m"), ("google", "gemini-2.5-flash")])
async def test_a_tool_of_the_agent_that_is_called_final_output_is_that_tool(kind: str, name: str) -> None:
    called: list[str] = []

    @tool(name="final_output", effect="pure")
    def mine(city: str) -> str:
        """Of the agent."""
        called.append(city)
        return "noted"

    answer = (
        anthropic({"type": "tool_use", "id": "t2", "name": "final_output_2", "input": {"a": 1}})
        if kind == "anthropic"
        else {**body(kind), "candidates": [_google_output()]}
    )
    async with served(kind, name) as one:
        one.answers(body(kind, calls=[Call("t1", name="final_output")]), answer)
        outcome = await Agent(one.model, tools=[mine], output=dict[str, Any]).run("Go")
        assert isinstance(outcome, Completed)
        assert (outcome.output, called) == ({"a": 1}, ["Oslo"])
        tools = (
            one.sent[0]["tools"] if kind == "anthropic" else one.sent[0]["tools"][0]["functionDeclarations"]
        )
        assert [each["name"] for each in tools] == ["final_output", "final_output_2"]


def _google_output() -> dict[str, Any]:
    part = {"functionCall": {"name": "final_output_2", "args": {"a": 1}}}
    return {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}


# --- caches ------------------------------------------------------------------------------------------------------


async def test_claude_behind_openrouter_is_told_what_to_cache_and_others_are_not() -> None:
    request = ModelRequest(messages=HELLO, instructions="Be brief.", tools=(WEATHER,))
    told = (await sent("openrouter", request, "anthropic/claude-sonnet-5"))["messages"]
    assert [message["content"][-1]["cache_control"] for message in told] == [{"type": "ephemeral"}] * 2
    assert "cache_control" not in json.dumps(await sent("openrouter", request, "google/gemini-3-flash"))
    assert "cache_control" not in json.dumps(await sent("chat", request, "claude"))


def test_openai_gets_a_key_for_its_cache_and_compatible_servers_do_not() -> None:
    def keys(base_url: str, instructions: str) -> list[str | None]:
        request = ModelRequest(messages=HELLO, instructions=instructions, tools=(WEATHER,))
        dialect = Dialect(provider="p", model="m", official=True, base_url=base_url)
        told = (
            encode_request(request, dialect, stream=False),
            encode_response(request, dialect, stream=False),
        )
        return [json.loads(each).get("prompt_cache_key") for each in told]

    own = keys("https://api.openai.com/v1", "Be brief.")
    assert own[0] is not None
    assert own == keys("https://api.openai.com/v1", "Be brief.")
    assert own != keys("https://api.openai.com/v1", "Be kind.")
    assert keys("http://127.0.0.1:1/v1", "Be brief.") == [None, None]
