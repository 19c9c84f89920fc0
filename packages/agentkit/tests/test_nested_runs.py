"""An agent that is run inside a tool draws on the budget of the run that has called the tool, and stops with it."""

import asyncio
import threading
from typing import Any

import pytest

from agentkit import (
    Agent,
    Cancelled,
    Completed,
    Control,
    Failed,
    Limits,
    MemoryJournal,
    RunFailed,
    ToolCall,
    tool,
)
from agentkit.budget.prices import Price, Prices
from agentkit.errors import ModelBadRequest, RunReleased
from agentkit.messages import ModelReply, Text, Usage
from agentkit.testing import Crash, CrashingJournal, ScriptedModel
from agentkit.transcript.codec import decode_step, encode_step
from agentkit.transcript.steps import ASIDES, ModelAsked, NestedSpent
from agentkit.transcript.usage import RunningUsage

from .loop_support import steps_of  # type: ignore[import-not-found]

PRICES = Prices({"scripted:model": Price(input_usd_per_million=10, output_usd_per_million=50)})
KINDS = ("async", "thread")


def reply(text: str = "found", tokens: int = 1000) -> ModelReply:
    return ModelReply(
        parts=(Text(text=text),), usage=Usage(input_tokens=tokens // 2, output_tokens=tokens // 2)
    )


def asks(*names: str) -> list[ToolCall]:
    return [ToolCall(id=name, name="ask", arguments={"question": name}) for name in names]


def asking(inner: Agent, kind: str = "async", effect: Any = "pure") -> Any:
    """A tool that runs ``inner``: asynchronous, or in a thread of its own with an event loop of its own."""
    if kind == "async":

        @tool(effect=effect)
        async def ask(question: str) -> str:
            """Ask another agent."""
            return (await inner.run(question)).unwrap()

        return ask

    @tool(effect=effect, name="ask")
    def ask_in_a_thread(question: str) -> str:
        """Ask another agent."""
        return inner.run_sync(question).unwrap()

    return ask_in_a_thread


@pytest.mark.parametrize("kind", KINDS)
async def test_what_it_uses_is_recorded_and_counts(kind: str):
    inner = Agent(ScriptedModel([reply()] * 2), name="helper", prices=PRICES)
    journal = MemoryJournal()
    outer = Agent(
        ScriptedModel([asks("a"), asks("b"), reply("done", 10)]), tools=[asking(inner, kind)], prices=PRICES
    )
    outcome = await outer.run("Go.", journal=journal)
    assert outcome.unwrap() == "done"
    spent = steps_of(journal.steps, NestedSpent)
    assert [(step.agent, step.model, step.usage.tokens, step.steps) for step in spent] == [
        ("helper", "scripted:model", 1000, 3)
    ] * 2
    assert outcome.usage.tokens.tokens == 2010
    assert outcome.usage.model_calls == 5
    assert outcome.usage.tokens.cost_usd == pytest.approx(2 * (500 * 10 + 500 * 50) / 1e6 + 0.0003)
    assert [decode_step(encode_step(step)) for step in spent] == spent
    assert RunningUsage.of(journal.steps).usage == outcome.usage


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "limits, calls",
    [(Limits(tokens=1500), 2), (Limits(usd=0.05), 2), (Limits(steps=9), 2), (Limits(steps=100), 4)],
    ids=["tokens", "money", "steps", "enough"],
)
async def test_it_may_use_what_is_left(kind: str, limits: Limits, calls: int):
    """Each reply of the helper has 1,000 tokens, costs 0.03 dollars and makes three steps."""
    model = ScriptedModel([reply() for _ in range(4)])
    inner = Agent(model, prices=Prices({"scripted:model": Price(
        input_usd_per_million=10, output_usd_per_million=50, max_output_tokens=500
    )}))  # fmt: skip
    free = Prices({"free:model": Price(input_usd_per_million=0, output_usd_per_million=0)})
    turns: list[Any] = [*(asks(name) for name in "abcd"), "done"]
    outer = Agent(
        ScriptedModel(turns, name="free:model"), tools=[asking(inner, kind)], prices=free, limits=limits
    )
    outcome = await outer.run("Go.")
    assert len(model.requests) <= calls
    if calls == 4:
        assert outcome.unwrap() == "done"
        return
    assert isinstance(outcome, Failed)
    assert outcome.error.code == "limit_reached"
    used = outcome.usage.tokens
    assert (used.cost_usd or 0) + outcome.usage.unsettled_usd <= 0.061


async def test_runs_side_by_side_do_not_spend_the_same_money():
    price = Price(input_usd_per_million=0, output_usd_per_million=1000, max_output_tokens=1000)
    together = asyncio.Event()
    under_way: list[int] = []

    async def slow(_request: object) -> ModelReply:
        under_way.append(1)
        if len(under_way) == 2:
            together.set()
        await together.wait()
        return ModelReply(parts=(Text(text="x"),), usage=Usage(output_tokens=900))

    model = ScriptedModel([slow] * 4)
    inner = Agent(model, prices=Prices({"scripted:model": price}))
    free = Prices({"free:model": Price(input_usd_per_million=0, output_usd_per_million=0)})
    outer = Agent(
        ScriptedModel([asks("a", "b", "c", "d"), "done"], name="free:model"),
        tools=[asking(inner)], prices=free, limits=Limits(usd=2.1),
    )  # fmt: skip
    outcome = await outer.run("Go.")
    assert len(model.requests) == 2, "each may cost a dollar"
    assert outcome.usage.tokens.cost_usd == pytest.approx(1.8)


async def test_an_unknown_price_is_refused_where_the_caller_limits_money():
    free = Prices({"free:model": Price(input_usd_per_million=0, output_usd_per_million=0)})
    model, seen = ScriptedModel(["x"]), []

    @tool(effect="pure")
    async def ask() -> str:
        """Ask another agent."""
        outcome = await Agent(model).run("Go.")
        seen.append(outcome.error.code)
        return "no"

    script = ScriptedModel([ToolCall(id="a", name="ask"), "done"], name="free:model")
    outer = Agent(script, tools=[ask], prices=free, limits=Limits(usd=1))
    assert (await outer.run("Go.")).unwrap() == "done"
    assert (seen, model.requests) == (["price_unknown"], [])


async def test_runs_inside_runs_inside_a_run_count_in_all_of_them():
    inmost = Agent(ScriptedModel([reply()]), name="inmost")
    middle = Agent(
        ScriptedModel([asks("deeper"), reply("found", 10)]), name="middle", tools=[asking(inmost, "thread")]
    )
    outcome = await Agent(ScriptedModel([asks("deep"), reply("done", 10)]), tools=[asking(middle)]).run("Go.")
    assert outcome.unwrap() == "done"
    told = [(step.agent, step.usage.tokens) for step in steps_of(outcome.transcript, NestedSpent)]
    assert told == [("middle", 0), ("inmost", 1000), ("middle", 10)]
    assert outcome.usage.tokens.tokens == 1020


@pytest.mark.parametrize("after", [False, True])
async def test_what_was_spent_survives_a_crash(after: bool):
    """At each write of the outer run: what a call has cost, or may have, stays counted."""
    limits = Limits(usd=1)

    def agents() -> Agent:
        inner = Agent(ScriptedModel.by_turn([reply()]), prices=PRICES)
        model = ScriptedModel.by_turn([asks("a"), reply("done", 10)])
        return Agent(model, tools=[asking(inner)], prices=PRICES, limits=limits)

    clean = await agents().run("Go.")
    asked = sum(isinstance(step, ModelAsked) for step in steps_of(clean.transcript, ModelAsked))
    assert asked == 3
    for at in range(len(clean.transcript)):
        journal = CrashingJournal(at=at, after=after)
        with pytest.raises(Crash):
            await agents().run("Go.", journal=journal)
        revived = journal.revived()
        before = RunningUsage.of(revived.steps)
        outcome = await agents().run("Go.", journal=revived)
        assert outcome.unwrap() == "done"
        assert RunningUsage.of(outcome.transcript).spent >= max(
            before.spent, RunningUsage.of(clean.transcript).spent
        )
        assert outcome.usage == RunningUsage.of(revived.steps).usage


class Hanging:
    """A model that waits until its run is stopped."""

    name = "scripted:model"

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.cancelled = threading.Event()
        self.calls = 0

    async def reply(self, _request: Any, _on_delta: Any = None) -> ModelReply:
        self.calls += 1
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        raise AssertionError


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["cancel", "from outside"])
async def test_a_stop_of_the_caller_stops_it(kind: str, how: str):
    model, control = Hanging(), Control()
    outer = Agent(ScriptedModel([asks("a")]), tools=[asking(Agent(model), kind)])
    running = asyncio.create_task(outer.run("Go.", control=control))
    await asyncio.to_thread(model.begun.wait, 10)
    if how == "cancel":
        control.cancel()
        assert isinstance(await running, Cancelled)
    else:
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled()
    assert await asyncio.to_thread(model.cancelled.wait, 10)
    assert model.calls == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["cancel", "release"])
async def test_no_run_begins_in_a_tool_after_a_stop(kind: str, how: str):
    control, model = Control(), ScriptedModel(["x"])
    inner, loop = Agent(model), asyncio.get_running_loop()
    over = threading.Event()

    @tool(effect="pure")
    async def stubborn() -> str:
        """Asks another agent after its cancellation."""
        getattr(control, how)()
        try:
            await asyncio.sleep(0)
        finally:
            await inner.run("Go.")
        return "never"

    @tool(effect="pure", name="stubborn")
    def stubborn_in_a_thread() -> str:
        """Asks another agent after its cancellation."""
        loop.call_soon_threadsafe(getattr(control, how))
        stopped = threading.Event()
        loop.call_soon_threadsafe(stopped.set)
        stopped.wait(10)
        try:
            inner.run_sync("Go.")
        finally:
            over.set()
        return "never"

    made = stubborn if kind == "async" else stubborn_in_a_thread
    outer = Agent(ScriptedModel([ToolCall(id="a", name="stubborn")]), tools=[made])
    running = asyncio.ensure_future(outer.run("Go.", control=control))
    await asyncio.wait({running})
    if kind == "thread":
        assert await asyncio.to_thread(over.wait, 10)
    assert model.requests == []
    if how == "cancel":
        assert isinstance(running.result(), Cancelled)
    else:
        assert isinstance(running.exception(), RunReleased)


async def test_its_time_is_the_time_of_its_caller():
    model = Hanging()
    outer = Agent(
        ScriptedModel([asks("a"), "done"]), tools=[asking(Agent(model))], limits=Limits(seconds=0.2)
    )
    outcome = await outer.run("Go.")
    assert isinstance(outcome, Failed)
    assert outcome.error.code == "limit_reached"
    assert model.cancelled.is_set()


async def test_what_outlives_its_caller_goes_on_by_itself():
    may_go_on, started = asyncio.Event(), []

    async def later(_request: object) -> str:
        await may_go_on.wait()
        return "late"

    @tool(effect="pure")
    async def start() -> str:
        """Starts a run and does not wait for it."""
        started.append(asyncio.create_task(Agent(ScriptedModel([later])).run("Go.")))
        await asyncio.sleep(0)
        return "started"

    outcome = await Agent(ScriptedModel([ToolCall(id="a", name="start"), "done"]), tools=[start]).run("Go.")
    assert outcome.unwrap() == "done"
    may_go_on.set()
    late = await started[0]
    assert isinstance(late, Completed)
    assert late.unwrap() == "late"
    with pytest.raises(RunFailed):
        (await Agent(ScriptedModel([""] * 4)).run("x")).unwrap()


def steps_told(steps: Any) -> dict[str, int]:
    told: dict[str, int] = {}
    for step in steps_of(steps, NestedSpent):
        told[step.run] = told.get(step.run, 0) + step.steps
    return told


def steps_taken(outcomes: Any) -> dict[str, int]:
    return {one.run_id: sum(not isinstance(each.step, ASIDES) for each in one.transcript) for one in outcomes}


ENDS: dict[str, Any] = {
    "completes": [ToolCall(id="r", name="read"), reply()],
    "is cut off by its limit": [ToolCall(id=str(n), name="read", arguments={"page": n}) for n in range(9)],
    "fails at once": [ModelBadRequest("no")],
    "waits for a person": [[ToolCall(id="r", name="read"), ToolCall(id="p", name="pay")]],
}


@pytest.mark.parametrize("way", ["run", "stream", "two deep", "side by side", "thread"])
@pytest.mark.parametrize("end", ENDS)
async def test_every_step_of_it_counts_however_it_ends(end: str, way: str):
    ended: list[Any] = []

    @tool(effect="pure")
    def read(page: int = 0) -> int:
        """Read a page."""
        return page

    @tool(approval=True)
    def pay() -> str:
        """Pay."""
        return "paid"

    def helper() -> Agent[Any, Any]:
        return Agent(
            ScriptedModel(ENDS[end]), name="helper", tools=[read, pay], prices=PRICES, limits=Limits(steps=8)
        )

    @tool(effect="pure")
    async def ask() -> str:
        """Ask another agent."""
        if way == "stream":
            ended.append([event async for event in helper().stream("go")][-1])
        else:
            ended.append(await helper().run("go"))
        return type(ended[-1]).__name__

    @tool(effect="pure", name="ask")
    def ask_in_a_thread() -> str:
        """Ask another agent."""
        ended.append(helper().run_sync("go"))
        return type(ended[-1]).__name__

    @tool(effect="pure", name="ask")
    async def ask_further() -> str:
        """Ask another agent, who asks one."""
        middle = Agent(ScriptedModel([ToolCall(id="m", name="ask"), reply()]), tools=[ask], prices=PRICES)
        ended.append(await middle.run("go"))
        return "asked"

    tools = {"thread": ask_in_a_thread, "two deep": ask_further}
    calls = [ToolCall(id=str(n), name="ask") for n in range(3 if way == "side by side" else 1)]
    journal = MemoryJournal()
    outer = Agent(ScriptedModel([calls, "done"]), tools=[tools.get(way, ask)], prices=PRICES)
    assert (await outer.run("go", journal=journal)).unwrap() == "done"
    assert steps_told(journal.steps) == steps_taken(ended)
    assert RunningUsage.of(journal.steps).nested_steps == sum(steps_taken(ended).values())


async def test_the_steps_of_one_that_is_stopped_count():
    inner_journal, journal = MemoryJournal(), MemoryJournal()

    @tool(effect="pure")
    async def hang() -> str:
        """Hang."""
        task.cancel()
        await asyncio.Event().wait()
        return ""

    inner = Agent(
        ScriptedModel([[ToolCall(id="r", name="read"), ToolCall(id="h", name="hang")]]), tools=[hang]
    )

    @tool(effect="pure")
    async def ask() -> str:
        """Ask another agent."""
        return (await inner.run("go", journal=inner_journal)).unwrap()

    outer = Agent(ScriptedModel([ToolCall(id="a", name="ask")]), tools=[ask])
    task = asyncio.create_task(outer.run("go", journal=journal))
    with pytest.raises(asyncio.CancelledError):
        await task
    taken = sum(not isinstance(each.step, ASIDES) for each in inner_journal.steps)
    assert taken == 3
    assert RunningUsage.of(journal.steps).nested_steps == taken
