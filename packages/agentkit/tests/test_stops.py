"""A run that was told to stop begins nothing more, wherever it was and whatever other code makes of its cancellation.

A run of every kind of call is stopped at each place where code of others is called: a tool, a model, a policy, a
journal, a memory, a watcher. That code swallows every cancellation that reaches it, and then goes on or raises.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
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
    ToolCall,
    Waiting,
    tool,
)
from agentkit.budget.prices import Price, Prices
from agentkit.errors import ModelOverloaded, RunError, RunReleased, ToolError
from agentkit.memories import AgentMemory
from agentkit.messages import Effect, ToolSpec
from agentkit.models.resilience.retry import Retries
from agentkit.policies.run_history import calls_made
from agentkit.ports import Allow
from agentkit.run.kill_switch import Off
from agentkit.testing import ScriptedModel
from agentkit.testing.models import as_reply
from agentkit.transcript.steps import (
    ApprovalGiven,
    Embedded,
    Finished,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    Note,
    Recorded,
    ToolReturned,
    ToolStarted,
    open_calls,
)

from .virtual_time import VirtualLoop, run  # type: ignore[import-not-found]

SECONDS = 60.0
MOMENT = 0.5
"""Seconds of the virtual clock, which passes them at once."""
PRICES = Prices({"scripted:model": Price(input_usd_per_million=1, output_usd_per_million=1)})
TOOLS = {"read": Effect.PURE, "keep": Effect.IDEMPOTENT, "pay": Effect.UNSAFE}
OUT_OF_TIME = RunError(code="limit_reached", message="the task has used its time")


class World:
    """Everything around a run. It stops the run at the place number ``at``, and writes down what begins after that."""

    def __init__(self, at: int, *, raises: bool = False) -> None:
        self.at = at
        self.raises = raises
        self.places: list[str] = []
        self.has_failed = False
        self.swallows = True
        self.stop: Callable[[], object] = lambda: None
        self.stopped_at = ""
        self.begun_after: list[str] = []
        self.journal = _Journal(self)

    def here(self, place: str) -> bool:
        """One place is passed; whether it is the one."""
        number = len(self.places)
        self.places.append(place)
        if number != self.at:
            return False
        self.stop()
        self.stopped_at = place
        return True

    async def swallow(self) -> None:
        if not self.swallows:
            await asyncio.sleep(MOMENT)
            return
        for _ in range(4):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(MOMENT)

    async def passes(self, place: str, error: BaseException, *, begins: bool = False) -> None:
        if begins and self.stopped_at:
            self.begun_after.append(place)
        if self.here(place):
            await self.swallow()
            if self.raises:
                raise error

    # --- what is around a run -----------------------------------------------------------------------------------

    async def specs(self) -> list[ToolSpec]:
        await self.passes("specs", ToolError("no tools"))
        shape: dict[str, Any] = {"type": "object", "properties": {}}
        return [
            ToolSpec(name=name, description="Acts.", parameters=shape, effect=effect)
            for name, effect in TOOLS.items()
        ]

    async def call(self, call: ToolCall, context: Any) -> str:
        await self.passes(f"tool {call.name}", ToolError("it was interrupted"), begins=True)
        async with context.meter.call("scripted:model", ["a text"]):
            await self.passes("embeddings of a tool", ValueError("no vectors"), begins=True)
        await self.passes(f"end of {call.name}", KeyError("unexpected"))
        return "done"

    async def decide(self, question: Any) -> Any:
        await self.passes("policy", RuntimeError("it cannot decide"))
        del question
        return Allow()

    async def remember(self, _scope: Any, _note: Note, meter: Any) -> None:
        await self._embed("to remember", meter)

    async def recall(self, _scope: Any, _query: str, _limit: int, meter: Any) -> list[Note]:
        await self._embed("to recall", meter)
        return []

    async def _embed(self, why: str, meter: Any) -> None:
        async with meter.call("scripted:model", ["a text"]):
            await self.passes(f"embeddings {why}", ModelOverloaded("busy"), begins=True)

    def event(self, event: Any) -> None:
        what = type(event.step if isinstance(event, Recorded) else event).__name__
        if self.here(f"on_event {what}") and self.raises:
            raise RuntimeError(what)

    async def reply(self, turn: int, _request: object) -> Any:
        await self.passes(f"model {turn}", ModelOverloaded("busy"), begins=True)
        if not self.has_failed:
            self.has_failed = True
            raise ModelOverloaded("the first call fails, and is made again")
        calls = [ToolCall(id=name, name=name) for name in TOOLS]
        return as_reply((calls, ToolCall(id="again", name="pay"), "All done.")[turn])

    def agent(self, **options: Any) -> Agent:
        model = ScriptedModel.by_turn([partial(self.reply, turn) for turn in range(3)])
        memory: Any = self
        return Agent(
            model, tools=[self], policy=self, prices=PRICES, retries=Retries(),
            limits=Limits(usd=1, seconds=SECONDS), memory=AgentMemory(memory=memory, remember="outcome"), **options,
        )  # fmt: skip


class _Journal(MemoryJournal):
    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    async def append(self, step: Any) -> Recorded:
        place = f"append {type(step).__name__}"
        await self._world.passes(f"before {place}", RuntimeError("the disk is full"))
        recorded = Recorded(seq=len(self.steps), at=asyncio.get_running_loop().time(), step=step)
        self.steps.append(recorded)
        await self._world.passes(f"after {place}", RuntimeError("the disk is full"))
        return recorded


def jump() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop._jumping.now += SECONDS + 1


WAYS: dict[str, tuple[Callable[[Control, asyncio.Task[Any]], object], Any]] = {
    "cancel": (lambda control, _task: control.cancel(), Cancelled),
    "end": (lambda control, _task: control.end(Finished(status="failed", error=OUT_OF_TIME)), Failed),
    "release": (lambda control, _task: control.release(), RunReleased),
    "halt": (lambda control, _task: control.kill_switch.set(Off(run="enough")), RunReleased),
    "cancelled from outside": (lambda _control, task: task.cancel(), asyncio.CancelledError),
    "deadline": (lambda _control, _task: jump(), Failed),
}


async def carried(world: World, way: str) -> tuple[Any, Any]:
    """How a run ended that was stopped in this way: its outcome, and what it raised."""
    control = Control()
    running = asyncio.create_task(
        world.agent().run("Go on.", journal=world.journal, control=control, on_event=world.event)
    )
    world.stop = lambda: WAYS[way][0](control, running)
    await asyncio.wait({running})
    if running.cancelled():
        return None, asyncio.CancelledError
    error = running.exception()
    return (None, type(error)) if error is not None else (running.result(), None)


async def number_of_places() -> int:
    world = World(-1)
    outcome, _error = await carried(world, "cancel")
    assert isinstance(outcome, Completed)
    return len(world.places)


@pytest.mark.parametrize("raises", [False, True], ids=["goes on", "raises"])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_begins_after_a_stop_wherever_it_comes(way: str, raises: bool):
    async def everywhere() -> None:
        places = await number_of_places()
        assert places > 60
        begun = 3 if way == "deadline" else 0  # its time runs from the first step on
        for at in range(begun, places):
            world = World(at, raises=raises)
            outcome, error = await carried(world, way)
            where = f"stopped at place {at}: {world.stopped_at}"
            assert world.stopped_at, where
            if way == "deadline" and world.stopped_at.startswith("after append"):
                continue  # what passes behind the moment that a journal writes down counts from the next step on
            assert world.begun_after == [], where
            check_end(world, outcome, error, way, where)

    run(everywhere())


def check_end(world: World, outcome: Any, error: Any, way: str, where: str) -> None:
    """A run ends as it was told, unless it had ended, could not begin, or its journal is broken."""
    expected = WAYS[way][1]
    finished = [one.step for one in world.journal.steps if isinstance(one.step, Finished)]
    assert len(finished) <= 1, where
    if finished and finished[0].status == "completed":
        had_ended = world.stopped_at.partition(" ")[0] in ("before", "after", "on_event")
        assert had_ended or (way, world.stopped_at) == ("deadline", "embeddings to remember"), where
        return
    if world.raises and ("append" in world.stopped_at or world.stopped_at == "specs"):
        return
    if isinstance(expected, type) and issubclass(expected, BaseException):
        assert error is expected, where
        assert not finished, where
    else:
        assert isinstance(outcome, expected), (where, outcome, error)
        assert outcome.transcript[-1].step is finished[0] or isinstance(outcome, Failed), where


def is_reserved(steps: Sequence[Recorded]) -> bool:
    """Whether money is held for a call that has not ended."""
    held = False
    for recorded in steps:
        match recorded.step:
            case ModelAsked(withdrawn=withdrawn):
                held = not withdrawn
            case ModelReplied() | ModelFailed() | Embedded():
                held = False
            case _:
                pass
    return held


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", ["ToolStarted", "ModelAsked"])
@pytest.mark.parametrize("swallows", [True, False], ids=["swallows", "is cut"])
def test_what_was_announced_at_the_moment_of_a_stop_is_taken_back(way: str, step: str, swallows: bool):
    """No person is asked about a call that was not made, and no money is held for one."""

    async def everywhere() -> None:
        clean = World(-1)
        await carried(clean, way)
        places = [at for at, place in enumerate(clean.places) if place.endswith(f"append {step}")]
        assert len(places) >= 4, "before and after"
        for at in places:
            world = World(at)
            world.swallows = swallows
            await carried(world, way)
            where = f"stopped at place {at}: {world.stopped_at}"
            if step == "ToolStarted":
                assert not [owed for owed in open_calls(world.journal.steps) if owed.started], where
            else:
                assert not is_reserved(world.journal.steps), where

    run(everywhere())


async def test_an_approval_stays_good_for_a_call_that_was_taken_back():
    control, paid = Control(), list[int]()

    @tool(approval=True)
    def pay(amount: int) -> str:
        """Pay."""
        paid.append(amount)
        return "paid"

    class Stopping(MemoryJournal):
        async def append(self, step: Any) -> Recorded:
            recorded = await super().append(step)
            if isinstance(step, ToolStarted):
                control.release()
            return recorded

    model = ScriptedModel([ToolCall(id="c1", name="pay", arguments={"amount": 3}), "done"])
    journal = Stopping()
    agent = Agent(model, tools=[pay])
    waiting = await agent.run("go", journal=journal)
    assert isinstance(waiting, Waiting)
    await journal.append(ApprovalGiven(approval_id=waiting.on[0].approval_id, approved=True))
    with pytest.raises(RunReleased):
        await agent.run("go", journal=journal, control=control)
    assert paid == []
    calls = tuple(calls_made(journal.steps))
    outcome = await agent.run("go", journal=journal)
    assert (outcome.unwrap(), paid, calls) == ("done", [3], ())


# --- what is no stop ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("awaits", [False, True], ids=["returns at once", "awaits first"])
@pytest.mark.parametrize("number", [1, 2])
async def test_a_tool_that_cancels_its_own_task_fails_alone(number: int, awaits: bool):
    @tool(effect="pure")
    async def confused() -> str:
        """Cancels the task that it runs in."""
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if awaits:
            await asyncio.sleep(0)
        return "a result"

    calls = [ToolCall(id=f"c{one}", name="confused") for one in range(number)]
    model = ScriptedModel([calls, "done"])
    outcome = await Agent(model, tools=[confused]).run("go")
    assert outcome.unwrap() == "done"
    returned = [one.step for one in outcome.transcript if isinstance(one.step, ToolReturned)]
    assert [(step.error is None) for step in returned] == [not awaits] * number


@pytest.mark.parametrize("error", [ValueError("x"), asyncio.CancelledError()], ids=repr)
async def test_a_watcher_that_raises_is_logged_once_and_the_run_goes_on(caplog, error: BaseException):
    seen: list[object] = []

    def watch(event: object) -> None:
        seen.append(event)
        raise error

    outcome = await Agent(ScriptedModel(["a longer answer"])).run("go", on_event=watch)
    assert outcome.unwrap() == "a longer answer"
    assert len(seen) == 3 + 3, "the steps, and the words of the reply"
    (record,) = [one for one in caplog.records if "on_event" in one.getMessage()]
    assert type(error).__name__ in record.getMessage()


async def test_a_stream_that_is_left_begins_nothing_more():
    world, hanging = World(-1), asyncio.Event()

    @tool(effect="pure")
    async def stubborn() -> str:
        """Returns what it has when it is cancelled."""
        hanging.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        world.stopped_at = "stream"
        return "a part"

    model = ScriptedModel([ToolCall(id="c1", name="stubborn"), ToolCall(id="c2", name="pay")])
    journal = MemoryJournal()
    events = Agent(model, tools=[stubborn, world]).stream("go", journal=journal)
    async for _event in events:
        if any(isinstance(one.step, ModelReplied) for one in journal.steps):
            await hanging.wait()
            break
    await events.aclose()
    assert world.stopped_at
    assert (len(model.requests), world.begun_after) == (1, [])


async def test_a_release_lets_the_calls_under_way_end_and_begins_no_other():
    """A policy decides about one call after the other: here a run is let go between two of them."""
    control, journal, may_end = Control(), MemoryJournal(), asyncio.Event()
    begun: list[str] = []

    class Deciding:
        async def decide(self, question: Any) -> Any:
            if question.call.id == "c2":
                while not begun:
                    await asyncio.sleep(0)
                control.release()
                may_end.set()
            return Allow()

    @tool(effect="pure")
    async def work(number: int) -> int:
        """Works."""
        begun.append(str(number))
        await may_end.wait()
        return number

    calls = [ToolCall(id=f"c{one}", name="work", arguments={"number": one}) for one in (1, 2)]
    agent = Agent(ScriptedModel([calls]), tools=[work], policy=Deciding())
    with pytest.raises(RunReleased):
        await agent.run("go", journal=journal, control=control)
    assert begun == ["1"]
    assert [one.step.call_id for one in journal.steps if isinstance(one.step, ToolReturned)] == ["c1"]


@pytest.mark.parametrize(
    "way", [way for way in WAYS if WAYS[way][1] in (RunReleased, asyncio.CancelledError)]
)
def test_a_run_that_was_stopped_can_be_carried_on(way: str):
    async def everywhere() -> None:
        for at in range(await number_of_places()):
            world = World(at)
            await carried(world, way)
            world.stopped_at, steps = "", list(world.journal.steps)
            outcome = await world.agent().run("Go on.", journal=world.journal)
            assert isinstance(outcome, Completed | Waiting), (at, outcome)
            assert world.journal.steps[: len(steps)] == steps

    run(everywhere())
