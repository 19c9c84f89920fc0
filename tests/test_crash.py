"""Stop a run at every single append, carry it on, and compare: nothing recorded is repeated, nothing unsafe doubled."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import pytest

from agentkit import Agent, Completed, MemoryJournal, Recorded, ToolCall, ToolContext, Waiting, tool
from agentkit.testing import Crash, CrashingJournal, ScriptedModel
from agentkit.transcript.steps import ApprovalGiven, ModelReplied, RunStarted, ToolReturned

GOAL = "Fetch three pages, store them, send one letter, and report."


@dataclass
class World:
    """What the tools have done outside of the run; it survives every crash."""

    fetched: Counter[str] = field(default_factory=Counter)
    stored: dict[str, str] = field(default_factory=dict)
    store_keys: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    letters: list[str] = field(default_factory=list)


@tool(effect="pure")
async def fetch(page: str, context: ToolContext[World]) -> str:
    """Read a page."""
    context.deps.fetched[page] += 1
    return f"text of {page}"


@tool(effect="idempotent")
def store(page: str, context: ToolContext[World]) -> str:
    """Store a page under the call's key."""
    context.deps.store_keys[page].add(context.idempotency_key)
    context.deps.stored[context.idempotency_key] = page
    return f"stored {page}"


@tool(effect="unsafe")
async def send(to: str, context: ToolContext[World]) -> str:
    """Send a letter, which cannot be taken back."""
    context.deps.letters.append(to)
    return f"sent to {to}"


def calls(*wanted: tuple[str, str, str]) -> list[ToolCall]:
    argument = {"fetch": "page", "store": "page", "send": "to"}
    return [
        ToolCall(id=call_id, name=name, arguments={argument[name]: value}) for call_id, name, value in wanted
    ]


def agent() -> Agent[World, str]:
    """Four turns: three calls at once, two and an unsafe one at once, an unsafe one alone, the answer."""
    model = ScriptedModel.by_turn(
        [
            calls(("f1", "fetch", "a"), ("f2", "fetch", "b"), ("f3", "fetch", "c")),
            calls(("s1", "store", "a"), ("s2", "store", "b"), ("l1", "send", "anna")),
            calls(("l2", "send", "bert")),
            "All done.",
        ]
    )
    return Agent(model, tools=[fetch, store, send], deps=World)


async def clean_run() -> list:
    outcome = await agent().run(GOAL, deps=World(), run_id="run")
    assert isinstance(outcome, Completed)
    return list(outcome.transcript)


async def crash_at(number: int, world: World, *, after: bool) -> MemoryJournal:
    journal = CrashingJournal(at=number, after=after)
    with pytest.raises(Crash):
        await agent().run(GOAL, deps=world, run_id="run", journal=journal)
    return journal.revived()


async def carry_on(journal: MemoryJournal, world: World, *, approve: bool) -> Completed[str]:
    """Resume until the end, answering whatever is asked in the same way."""
    outcome = await agent().run(GOAL, deps=world, run_id="run", journal=journal)
    while isinstance(outcome, Waiting):
        for asked in outcome.on:
            assert asked.tool == "send"
            assert asked.interrupted
            await journal.append(ApprovalGiven(approval_id=asked.approval_id, approved=approve))
        outcome = await agent().run(GOAL, deps=world, run_id="run", journal=journal)
    assert isinstance(outcome, Completed)
    return outcome


APPENDS = 15


async def test_the_run_is_long_enough_to_prove_something():
    assert len(await clean_run()) == APPENDS


@pytest.mark.parametrize("after", [False, True], ids=["unrecorded", "recorded"])
@pytest.mark.parametrize("number", range(APPENDS))
async def test_a_crash_at_any_append_changes_nothing(number, after):
    world = World()
    journal = await crash_at(number, world, after=after)
    survived = list(journal.steps)
    assert (
        len(survived) >= number + after
    )  # parallel tools that had already ended may have been recorded, too

    outcome = await carry_on(journal, world, approve=False)

    assert outcome.output == "All done."
    assert outcome.run_id == "run"
    assert list(outcome.transcript[: len(survived)]) == survived
    steps = [recorded.step for recorded in outcome.transcript]
    assert sum(isinstance(step, RunStarted) for step in steps) == 1
    assert sum(isinstance(step, ModelReplied) for step in steps) == 4
    returned = Counter(step.call_id for step in steps if isinstance(step, ToolReturned))
    assert returned == dict.fromkeys(["f1", "f2", "f3", "s1", "s2", "l1", "l2"], 1)
    # recorded results are never fetched again: only what was in flight at the crash is
    recorded_before = {
        recorded.step.call_id for recorded in survived if isinstance(recorded.step, ToolReturned)
    }
    for call_id, page in (("f1", "a"), ("f2", "b"), ("f3", "c")):
        assert world.fetched[page] <= (1 if call_id in recorded_before else 2)
    # idempotent effects may be repeated, with the same key only
    assert world.store_keys == {"a": {"run:s1"}, "b": {"run:s2"}}
    assert world.stored == {"run:s1": "a", "run:s2": "b"}
    # unsafe effects are never doubled
    assert max(Counter(world.letters).values(), default=0) <= 1


@pytest.mark.parametrize("number", range(APPENDS))
async def test_a_person_who_says_yes_gets_the_interrupted_call_repeated(number):
    world = World()
    outcome = await carry_on(await crash_at(number, world, after=True), world, approve=True)
    assert outcome.output == "All done."
    assert set(world.letters) == {"anna", "bert"}


async def test_crash_after_crash_after_crash_still_ends():
    """Die at the first append of every attempt, right after it was recorded: one step of progress each time."""
    world = World()
    steps: list[Recorded] = []
    for _attempt in range(3 * APPENDS):
        journal = CrashingJournal(at=0, after=True, steps=steps)
        try:
            outcome = await agent().run(GOAL, deps=world, run_id="run", journal=journal)
        except Crash:
            steps = journal.revived().steps
            continue
        if isinstance(outcome, Completed):
            break
        revived = journal.revived()
        for asked in outcome.on:
            await revived.append(ApprovalGiven(approval_id=asked.approval_id, approved=False))
        steps = revived.steps
    assert outcome.output == "All done."
    assert max(Counter(world.letters).values(), default=0) <= 1
