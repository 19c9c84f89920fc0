"""The declaration: typed output, typed dependencies, toolsets, planning, misuse."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NewType, Optional, Protocol, TypedDict, runtime_checkable

import pytest
from pydantic import BaseModel

from agentkit import (
    Agent,
    Completed,
    Failed,
    FileJournal,
    FunctionToolset,
    ToolCall,
    ToolContext,
    UsageError,
    tool,
)
from agentkit.messages import ToolSpec, UserMessage
from agentkit.testing import ScriptedModel
from agentkit.transcript.steps import ModelReplied


class City(BaseModel):
    """A place."""

    name: str
    people: int


@dataclass
class Point:
    """A point."""

    x: float
    y: float


@pytest.mark.parametrize(
    "output, said, expected",
    [
        (City, '{"name": "Oslo", "people": 700000}', City(name="Oslo", people=700000)),
        (City, '```json\n{"name": "Oslo", "people": 1}\n```', City(name="Oslo", people=1)),
        (Point, '{"x": 1, "y": 2.5}', Point(1.0, 2.5)),
        (int, "42", 42),
        (list[str], '["a"]', ["a"]),
        (str, "42", "42"),
    ],
)
async def test_the_output_has_the_declared_type(output, said, expected):
    outcome = await Agent(ScriptedModel([said]), output=output).run("go")
    assert isinstance(outcome, Completed)
    assert outcome.output == expected
    assert type(outcome.output) is type(expected)


async def test_the_model_is_told_the_schema_and_corrected_with_the_reason():
    model = ScriptedModel(["Oslo", '{"name": "Oslo"}', '{"name": "Oslo", "people": 3}'])
    outcome = await Agent(model, output=City).run("go")
    assert outcome.unwrap() == City(name="Oslo", people=3)
    assert model.requests[0].output_schema["properties"].keys() == {"name", "people"}
    corrections = [request.messages[-1].text for request in model.requests[1:]]
    assert "must be JSON" in corrections[0]
    assert "people: Field required" in corrections[1]


@pytest.mark.parametrize("said", ["NaN", '{"x": NaN}', "1e999", "[" * 100_000])
async def test_an_output_that_cannot_be_stored_is_corrected(said, tmp_path):
    anything: Any = float | dict
    async with FileJournal(tmp_path / "run.jsonl") as journal:
        outcome = await Agent(ScriptedModel([said, "1.5"]), output=anything).run("go", journal=journal)
    assert outcome.unwrap() == 1.5


async def test_corrections_are_bounded_and_end_in_a_failure():
    model = ScriptedModel(["no"] * 9)
    outcome = await Agent(model, output=City, patience=2).run("go")
    assert isinstance(outcome, Failed)
    assert len(model.requests) == 3
    assert all(r.step.problem for r in outcome.transcript if isinstance(r.step, ModelReplied))


async def test_deps_of_the_wrong_type_are_refused():
    agent = Agent(ScriptedModel([]), deps=Point)
    with pytest.raises(UsageError, match="deps must be a Point"):
        await agent.run("go")
    with pytest.raises(UsageError, match="deps must be a Point"):
        await agent.run("go", deps="x")  # type: ignore[arg-type]


async def test_deps_reach_the_tools():
    @tool(effect="pure")
    def x_of(context: ToolContext[Point]) -> float:
        """The x of the point."""
        return context.deps.x

    model = ScriptedModel([ToolCall(id="c1", name="x_of"), "done"])
    await Agent(model, tools=[x_of], deps=Point).run("go", deps=Point(3.0, 4.0))
    assert model.requests[1].messages[-1].content == "3.0"
    assert model.requests[0].tools[0].parameters["properties"] == {}


async def test_toolsets_tools_and_functions_can_be_mixed():
    @tool(effect="pure")
    def one() -> int:
        """One."""
        return 1

    def two() -> int:
        """Two."""
        return 2

    @tool(effect="pure")
    def three() -> int:
        """Three."""
        return 3

    calls = [ToolCall(id=name, name=name) for name in ("one", "two", "three")]
    model = ScriptedModel([calls, "done"])
    outcome = await Agent(model, tools=[one, two, FunctionToolset([three])]).run("go")
    assert outcome.usage.tool_calls == 3
    assert [spec.effect for spec in model.requests[0].tools] == ["pure", "unsafe", "pure"]


async def test_two_tools_of_one_name_are_refused():
    @tool(effect="pure")
    def one() -> int:
        """One."""
        return 1

    with pytest.raises(UsageError, match="two tools are called one"):
        await Agent(ScriptedModel([]), tools=[one, FunctionToolset([one])]).run("go")


async def test_an_unknown_planning_is_refused():
    with pytest.raises(UsageError, match="planning"):
        await Agent(ScriptedModel([]), planning="guess").run("go")  # type: ignore[arg-type]


async def test_an_input_object_is_told_as_json_and_kept():
    model = ScriptedModel(["done"])
    outcome = await Agent(model).run({"question": "?", "top": 3})
    assert model.requests[0].messages == (UserMessage(text='{"question": "?", "top": 3}'),)
    assert outcome.transcript[0].step.input == {"question": "?", "top": 3}


async def test_react_runs_the_same_tools_with_a_model_that_has_none():
    @tool(effect="pure")
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    model = ScriptedModel(
        [
            'Thought: I must add.\nAction: add\nAction Input: {"a": 2, "b": 3}',
            "I think it is five.",
            "Thought: I know.\nFinal Answer: 5",
        ]
    )
    outcome = await Agent(model, tools=[add], planning="react").run("2 + 3?")
    assert outcome.unwrap() == "5"
    assert all(request.tools == () for request in model.requests)
    assert "Observation: 5" in model.requests[1].messages[-1].text
    assert outcome.usage.tool_calls == 1


async def test_the_offline_model_by_name():
    @tool(effect="pure")
    def calculator(expression: str) -> int:
        """Answer a fixed number."""
        return 20

    outcome = await Agent("offline:planner", tools=[calculator]).run("What is 4 * 5?")
    assert "20" in outcome.unwrap()


def test_an_agent_is_a_value():
    agent = Agent("offline:planner", name="a")
    assert agent == Agent("offline:planner", name="a")
    with pytest.raises(AttributeError):
        agent.name = "b"  # type: ignore[misc]


def test_importing_agentkit_is_light():
    """No SDK, no HTTP client, no SQLAlchemy, no web framework, not even pydantic before it is needed."""
    code = "import sys, agentkit; print(*sorted(name.partition('.')[0] for name in sys.modules))"
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )
    heavy = {
        "pydantic",
        "pydantic_core",
        "httpx2",
        "httpx",
        "openai",
        "anthropic",
        "google",
        "sqlalchemy",
        "fastapi",
    }
    assert not loaded & (heavy | {"starlette", "opentelemetry", "numpy", "rich", "typer", "ops_core"})


def test_the_public_names_are_sorted_and_there():
    import agentkit

    assert sorted(agentkit.__all__) == list(agentkit.__all__)
    assert len(agentkit.__all__) <= 43
    assert all(hasattr(agentkit, name) for name in agentkit.__all__)


async def test_a_spec_describes_the_parameters():
    @tool(effect="idempotent", timeout=3, approval=True, name="book")
    def reserve(city: str, nights: int = 1) -> str:
        """Reserve a room.

        Args:
            city: where to stay,
                in English.
            nights: how long.
        """
        return f"{city} {nights}"

    spec = reserve.spec
    assert isinstance(spec, ToolSpec)
    assert (spec.name, spec.description, spec.timeout_seconds, spec.approval) == (
        "book",
        "Reserve a room.",
        3,
        True,
    )
    properties: Any = spec.parameters["properties"]
    assert properties["city"]["description"] == "where to stay, in English."
    assert spec.parameters["required"] == ["city"]
    assert spec.parameters["additionalProperties"] is False
    assert reserve("Oslo") == "Oslo 1"


# --- dependencies ------------------------------------------------------------------------------------------------


class Wallet(TypedDict):
    owner: str


class Closing(Protocol):
    def close(self) -> None: ...


@runtime_checkable
class Counting(Protocol):
    def count(self, thing: object) -> int: ...


Owner = NewType("Owner", str)


@pytest.mark.parametrize(
    "wanted, given, wrong",
    [
        (dict[str, int], {"a": 1}, []),
        (list[int] | None, None, {}),
        (Optional[int], 3, "3"),  # noqa: UP045
        (Any, 3, ...),
        (object, 3, ...),
        (None, None, 3),
        (Wallet, {"owner": "kim"}, "kim"),
        (Closing, 3, ...),
        (Counting, [], 3),
        (Callable[[int], int], abs, 3),
        (Literal["a", "b"], "a", "c"),
        (Annotated[int, "how many"], 3, "3"),
        (type[Exception], ValueError, 3),
        (Owner, "kim", 3),
    ],
)
async def test_deps_may_be_declared_in_every_way_that_type_checkers_read(wanted: Any, given: Any, wrong: Any):
    agent: Any = Agent(ScriptedModel(["hi", "hi"]), deps=wanted)
    assert isinstance(await agent.run("go", deps=given), Completed)
    if wrong is not ...:
        with pytest.raises(UsageError, match="deps must be a "):
            await agent.run("go", deps=wrong)


@pytest.mark.parametrize(
    "declaration, words",
    [
        ({"limits": {"steps": 3}}, r"limits must be Limits\(…\), not a dict"),
        ({"context": "summary"}, r"context must be Context\(…\), not a str"),
        ({"fallback": ["gpt"]}, "fallback: 'gpt' is no model: write provider:name"),
        ({"model": "gpt-5"}, "model: 'gpt-5' is no model"),
        ({"model": "openai:"}, "model: 'openai:' is no model"),
        ({"model": ""}, "model: '' is no model"),
        ({"tools": [lambda x: x]}, "tool"),
    ],
)
def test_what_cannot_be_part_of_an_agent_is_refused_when_it_is_declared(declaration, words):
    with pytest.raises(UsageError, match=words):
        Agent(**{"model": "offline:planner", **declaration})


async def test_limits_of_one_run_that_are_none_are_refused():
    limits: Any = {"steps": 3}
    with pytest.raises(UsageError, match=r"limits must be Limits\(…\), not a dict"):
        await Agent("offline:planner").run("go", limits=limits)
