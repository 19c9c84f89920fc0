"""What the offline model replies with: forms, pieces, limits, and that it always does."""

import asyncio
import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit.messages import (
    AssistantMessage,
    ModelReply,
    ModelRequest,
    StopReason,
    TextDelta,
    ToolCall,
    ToolMessage,
    ToolSpec,
    UserMessage,
)
from agentkit.models.offline import OfflineModel
from agentkit.tools.builtin.everyday import everyday_tools
from agentkit.tools.functions import Tool

from .offline_support import converse, tools_below  # type: ignore[import-not-found]


@pytest.fixture
def tools(tmp_path: Path) -> list[Tool]:
    return tools_below(tmp_path)


NUMBER = {"type": "integer"}


@pytest.mark.parametrize(
    "goal, schema, output",
    [
        ("What is 6 times 7?", {"type": "integer"}, 42),
        ("What is 7 / 2?", {"type": "number"}, 3.5),
        ("What weekday is 2024-02-28?", {"type": "string"}, "Wednesday"),
        ("What is 6 times 7?", {"type": "string"}, "6 * 7 = 42. (offline model)"),
        (
            "Count the words in README.md and CHANGELOG.md",
            {
                "type": "object",
                "properties": {"first": NUMBER, "second": NUMBER},
                "required": ["first", "second"],
            },
            {"first": 7, "second": 5},
        ),
        (
            "Count the words in README.md and CHANGELOG.md, then multiply them",
            {"type": "object", "properties": {"a": NUMBER, "b": NUMBER, "product": NUMBER}},
            {"a": 7, "b": 5, "product": 35},
        ),
        (
            "Count the words in README.md and CHANGELOG.md, then multiply them",
            {"type": "object", "properties": {"product": {"anyOf": [NUMBER, {"type": "null"}]}}},
            {"product": 35},
        ),
        (
            "What weekday is it 1 day after 2024-02-28?",
            {"type": "object", "properties": {"day": {"type": "string"}}, "required": ["day"]},
            {"day": "Thursday"},
        ),
        ("Count the words and lines in README.md", {"type": "array", "items": NUMBER}, [7, 2]),
    ],
)
def test_an_output_schema_is_satisfied(goal, schema, output, tools):
    assert json.loads(converse(goal, tools, output_schema=schema).text) == output


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "boolean"},
        {"type": "integer"},
        {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "required": ["a", "b"]},
        {"type": "object"},
        {"enum": ["a"], "type": "string"},
        {"$ref": "#/$defs/x"},
        {"type": "array", "items": {"type": "object"}},
    ],
)
def test_a_schema_that_does_not_fit_is_told_in_words(schema, tools):
    text = converse("What is 7 / 2?", tools, output_schema=schema).text
    assert text.startswith("The offline model cannot put its answer into the form")
    assert "7 / 2 = 3.5" in text


def ask(request: ModelRequest, **options: Any) -> ModelReply:
    return asyncio.run(OfflineModel().reply(request, **options))


def specs(tools: Sequence[Tool]) -> tuple[ToolSpec, ...]:
    return tuple(made.spec for made in tools)


def test_the_text_is_streamed_in_pieces_that_add_up(tools):
    pieces: list[str] = []

    def show(delta: object) -> None:
        assert isinstance(delta, TextDelta)
        pieces.append(delta.text)

    reply = ask(ModelRequest(messages=(UserMessage(text="Write a poem"),)), on_delta=show)
    assert "".join(pieces) == reply.text
    assert len(pieces) > 10
    pieces.clear()
    assert ask(
        ModelRequest(messages=(UserMessage(text="2+2"),), tools=specs(tools)), on_delta=show
    ).tool_calls
    assert pieces == []


def test_names_ids_and_usage(tools):
    assert OfflineModel().name == "offline:planner"
    assert OfflineModel("demo").name == "offline:demo"
    request = ModelRequest(
        messages=(UserMessage(text="Count the words in a.md and b.md"),), tools=specs(tools)
    )
    reply = ask(request)
    assert [call.id for call in reply.tool_calls] == ["offline_0_0", "offline_0_1"]
    assert reply.model == "offline:planner"
    assert reply.usage.input_tokens > reply.usage.output_tokens > 0
    assert reply.usage.cost_usd == 0.0
    assert ask(request) == reply


def test_limits_of_the_request_are_kept():
    messages = (UserMessage(text="Write a poem"),)
    cut = ask(ModelRequest(messages=messages, max_tokens=5))
    assert cut.stop_reason is StopReason.LENGTH
    assert len(cut.text) == 20
    stopped = ask(ModelRequest(messages=messages, stop=("goal", "did")))
    assert (stopped.text, stopped.stop_reason) == ("I ", StopReason.END)


def test_results_are_found_when_the_loop_has_changed_the_ids(tools):
    call = ToolCall(id="another", name="calculator", arguments={"expression": "2 + 2"})
    messages = (
        UserMessage(text="2 + 2"),
        AssistantMessage(parts=(call,)),
        ToolMessage(call_id="another", name="calculator", content="4"),
    )
    assert ask(ModelRequest(messages=messages, tools=specs(tools))).text == "2 + 2 = 4. (offline model)"


def test_a_call_without_a_result_is_not_repeated(tools):
    call = ToolCall(id="x", name="calculator", arguments={"expression": "2 + 2"})
    messages = (UserMessage(text="2 + 2"), AssistantMessage(parts=(call,)))
    assert "there is no result" in ask(ModelRequest(messages=messages, tools=specs(tools))).text


def test_corrections_are_not_taken_for_the_goal(tools):
    correction = UserMessage(text="Your reply was empty.\nPlease reply again.")
    messages = (UserMessage(text="2 + 2"), AssistantMessage(parts=()), correction)
    (call,) = ask(ModelRequest(messages=messages, tools=specs(tools))).tool_calls
    assert (call.id, call.arguments) == ("offline_1_0", {"expression": "2 + 2"})


def test_a_later_goal_replaces_the_earlier_one(tools):
    earlier = converse("2 + 2", tools).messages
    request = ModelRequest(messages=(*earlier, UserMessage(text="add 2 and 3")), tools=specs(tools))
    (call,) = ask(request).tool_calls
    assert (call.id, call.arguments) == ("offline_2_0", {"expression": "2 + 3"})


@pytest.mark.parametrize("name", ["goal", "question", "prompt", "text"])
def test_the_goal_may_be_a_member_of_an_object(name, tools):
    assert "= 4" in converse(json.dumps({"other": 1, name: "What is 2 + 2?"}), tools).text


def test_planning_in_text_gets_a_labelled_answer():
    request = ModelRequest(
        messages=(UserMessage(text="What is 2 + 2?"),), instructions="Thought: …\nFinal Answer: the answer"
    )
    assert ask(request).text.startswith("Final Answer: This needs the tool calculator")


@pytest.mark.parametrize(
    "goal",
    [
        "(" * 5_000 + "1" + ")" * 5_000,
        "-" * 5_000 + "1",
        "the sum of " * 300 + "1 and 2",
        "half of " * 300 + "1",
        "1 day after " * 200 + "2024-01-01",
        "add 1 and 1" + ", then multiply it by it" * 120,
        "count the words in " + " and ".join(["a.md"] * 300),
        "'" * 5_001,
        "a1" * 20_000,
        "." * 20_000,
        "*" * 20_000,
        "what is " * 400,
        "x" * 200_000,
        '{"goal": ' * 5_000,
        "2" + " hundred" * 900,
    ],
)
@pytest.mark.timeout(30)  # read in all ways, these would never end
def test_hostile_goals_are_read_to_their_end(goal, tools):
    request = ModelRequest(messages=(UserMessage(text=goal),), tools=specs(tools))
    ask(request)


WORDS = st.sampled_from(
    [
        "what",
        "is",
        "the",
        "sum",
        "of",
        "add",
        "and",
        "multiply",
        "then",
        "it",
        "by",
        "3",
        "4.5",
        "(",
        ")",
        "+",
        "-",
        "*",
        "/",
        ",",
        ".",
        "?",
        "README.md",
        "'x'",
        "count",
        "words",
        "in",
        "days",
        "between",
        "2024-01-01",
        "today",
        "after",
        "before",
        "square",
        "root",
        "17",
        "%",
        "how",
        "many",
        "list",
        "files",
        "find",
        "read",
        "them",
        "two",
        "counts",
    ]
)


@given(st.lists(WORDS, max_size=14).map(" ".join) | st.text(alphabet=string.printable, max_size=60))
def test_whatever_is_asked_the_reply_is_usable(goal):
    offered = specs(everyday_tools())
    names = {spec.name: spec for spec in offered}
    reply = ask(ModelRequest(messages=(UserMessage(text=goal),), tools=offered))
    assert reply.text or reply.tool_calls
    for call in reply.tool_calls:
        properties = names[call.name].parameters["properties"]
        assert set(call.arguments) <= set(properties)  # type: ignore[arg-type]
