"""A long run: what a turn costs does not grow with the turns before it. Calls are counted, not seconds."""

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine, Mapping
from types import FrameType
from typing import Any

import pytest

from agentkit import Agent, Completed, Context, Limits, Outcome, Turn, tool
from agentkit.budget.prices import Price, Prices
from agentkit.folds import Fold
from agentkit.messages import Delta, ModelReply, ModelRequest, StopReason, Text, ToolCall, Usage

USED = Usage(input_tokens=50, output_tokens=10)
PRICE = Price(input_usd_per_million=1, output_usd_per_million=1, max_output_tokens=100)
FEW, MANY = 20, 120
MAX_CALLS_OF_A_SHORT_RUN = 700
"""On Python 3.11 it takes 560, with all that is made for one run; later ones count fewer."""


class Adds:
    """A model that calls ``add`` so many times, in its own calls or in text."""

    name = "scripted:adds"

    def __init__(self, turns: int, *, in_text: bool) -> None:
        self.turns, self.in_text, self.asked = turns, in_text, 0

    async def reply(
        self, request: ModelRequest, on_delta: Callable[[Delta], None] | None = None
    ) -> ModelReply:
        self.asked += 1
        number = self.asked
        if number > self.turns:
            return said("Thought: done\nFinal Answer: done" if self.in_text else "done")
        if self.in_text:
            return said(f'Thought: go on\nAction: add\nAction Input: {{"a": {number}, "b": 1}}')
        call = ToolCall(id=f"call_{number}", name="add", arguments={"a": number, "b": 1})
        return ModelReply(parts=(call,), stop_reason=StopReason.TOOL_CALLS, usage=USED)


def said(text: str) -> ModelReply:
    return ModelReply(parts=(Text(text=text),), stop_reason=StopReason.END, usage=USED)


@tool(effect="pure")
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def calls_in(carried: Coroutine[Any, Any, Outcome[str]], tool_calls: int) -> int:
    """Number of calls of functions that a run takes."""
    count = 0

    def seen(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        outcome = await carried
    finally:
        sys.setprofile(None)
    assert isinstance(outcome, Completed)
    assert outcome.usage.tool_calls == tool_calls
    return count


async def calls_per_turn(turns: int, declared: Mapping[str, Any]) -> float:
    model = Adds(turns, in_text=declared.get("planning") == "react")
    given: dict[str, Any] = {"tools": [add], "limits": Limits(steps=10_000), **declared}
    carried = Agent(model, **given).run("Add.", earlier=[Turn(input="Hello.", output="Good day.")] * 5)
    return await calls_in(carried, turns) / turns


async def test_a_short_run_takes_few_calls(monkeypatch: pytest.MonkeyPatch):
    """What each task of a platform pays, whatever its agent does; more of it is a decision, and no accident."""
    # other tests of this process import OpenTelemetry, and a run is watched where it is
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    agent = Agent(Adds(0, in_text=False), name="short")
    await agent.run("Say something.")  # what is made once
    # the least of some: what others have left to the loop, or to the collector, may fall into one of them
    counts = [await calls_in(agent.run("Say something."), 0) for _ in range(5)]
    assert min(counts) < MAX_CALLS_OF_A_SHORT_RUN


@tool(effect="pure")
async def run_inside() -> str:
    """Run an agent inside this tool."""
    return str((await Agent(Adds(1, in_text=False), tools=[add]).run("Add.")).status)


class Calls:
    """A model that calls a tool without arguments once."""

    name = "scripted:calls"

    async def reply(
        self, request: ModelRequest, on_delta: Callable[[Delta], None] | None = None
    ) -> ModelReply:
        if len(request.messages) > 1:
            return said("done")
        call = ToolCall(id="call_1", name=request.tools[0].name, arguments={})
        return ModelReply(parts=(call,), stop_reason=StopReason.TOOL_CALLS, usage=USED)


@pytest.mark.parametrize(
    "declared",
    [
        {"model": Adds(0, in_text=False)},
        {"model": Adds(2, in_text=False), "tools": [add]},
        {"model": Adds(2, in_text=True), "tools": [add], "planning": "react"},
        {
            "model": Adds(0, in_text=False),
            "limits": Limits(usd=1.0, seconds=60),
            "prices": Prices({Adds.name: PRICE}),
        },
        {"model": Calls(), "tools": [run_inside]},
    ],
    ids=["one reply", "tools", "react", "limits", "a run inside a tool"],
)
async def test_a_finished_run_is_freed_without_the_collector(declared):
    """A cycle of references would keep each transcript until the collector has looked through all runs in hand."""
    agent = Agent(**declared)
    await agent.run("Add.", on_event=lambda _event: None)
    await asyncio.sleep(0)
    gc.collect()
    gc.disable()
    try:
        agent.model.asked = 0
        outcome = await agent.run("Add.", on_event=lambda _event: None)
        assert isinstance(outcome, Completed)
        del outcome
        await asyncio.sleep(0)
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "declared",
    [
        {},
        {"planning": "react"},
        {"context": Context(window=1_000_000)},
        {"limits": Limits(steps=10_000, usd=1.0), "prices": Prices({Adds.name: PRICE})},
    ],
    ids=["native", "react", "window", "money"],
)
async def test_a_turn_late_in_a_run_costs_what_an_early_one_does(declared):
    await calls_per_turn(2, declared)  # what is made once
    few, many = await calls_per_turn(FEW, declared), await calls_per_turn(MANY, declared)
    assert many < 1.1 * few


def test_a_fold_looks_at_each_item_once_while_the_sequence_grows():
    seen: list[int] = []

    def plus(before: int, item: int) -> int:
        seen.append(item)
        return before + item

    fold = Fold[int, int](0, plus)
    assert [fold.over((1,)), fold.over((1, 2, 3)), fold.over((1, 2, 3))] == [1, 6, 6]
    assert seen == [1, 2, 3]
    assert [fold.over((5, 2, 3)), fold.over((5,)), fold.over(())] == [10, 5, 0]
