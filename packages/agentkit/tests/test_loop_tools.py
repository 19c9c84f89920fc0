"""What the loop does about tools: threads, context, effects, and what the policy says."""

import asyncio
import threading
import time
from dataclasses import dataclass, field, replace

import pytest

from agentkit import (
    Agent,
    Completed,
    Event,
    Limits,
    MemoryJournal,
    SecurityPolicy,
    Step,
    ToolCall,
    ToolContext,
    ToolProgress,
    UsageError,
    Waiting,
    tool,
)
from agentkit.testing import ScriptedModel
from agentkit.testing.journals import Crash, CrashingJournal
from agentkit.transcript.steps import (
    ApprovalAsked,
    ApprovalGiven,
    ModelReplied,
    Recorded,
    RunStarted,
    ToolReturned,
    ToolStarted,
)
from agentkit.transcript.usage import RunningUsage

from .loop_support import add, call, steps_of  # type: ignore[import-not-found]


async def test_a_synchronous_tool_does_not_block_the_event_loop():
    loop_ran = threading.Event()

    @tool(effect="pure")
    def block() -> bool:
        """Wait for the event loop."""
        return loop_ran.wait(timeout=30)

    asyncio.get_running_loop().call_later(0.01, loop_ran.set)
    outcome = await Agent(ScriptedModel([call("block"), "done"]), tools=[block]).run("go")
    assert steps_of(outcome.transcript, ToolReturned)[0].output is True


async def test_many_hanging_synchronous_tools_do_not_stop_others():
    everyone = threading.Barrier(41)

    @tool(effect="pure")
    def meet() -> str:
        """Wait until all forty are here."""
        everyone.wait(timeout=60)
        return "met"

    asyncio.get_running_loop().run_in_executor(None, everyone.wait, 60)
    calls = [call("meet", f"c{n}") for n in range(40)]
    outcome = await Agent(ScriptedModel([calls, "done"]), tools=[meet]).run("go")
    assert outcome.unwrap() == "done"


async def test_a_synchronous_tool_learns_that_it_was_given_up():
    noticed = threading.Event()

    @tool(effect="pure", timeout=0.02)
    def patient(context: ToolContext[None]) -> None:
        """Works until it is told to stop."""
        context.stopped.wait(timeout=30)
        noticed.set()

    await Agent(ScriptedModel([call("patient"), "done"]), tools=[patient]).run("go")
    assert await asyncio.to_thread(noticed.wait, 30)


async def test_the_context_tells_a_tool_about_its_call():
    seen = []

    @tool(effect="idempotent", timeout=5)
    async def look(text: str, context: ToolContext[dict]) -> str:
        """Look at the context."""
        seen.append(context)
        context.report("half way")
        return text

    events: list[Event] = []
    agent = Agent(ScriptedModel([call("look", text="x"), "done"]), tools=[look], deps=dict)
    await agent.run("go", deps={"db": 1}, run_id="run-7", on_event=events.append)
    (context,) = seen
    assert (context.deps, context.run_id, context.call_id) == ({"db": 1}, "run-7", "c1")
    assert context.idempotency_key == "run-7:c1"
    assert context.deadline is not None
    assert context.deadline > asyncio.get_running_loop().time() + 1
    assert ToolProgress(call_id="c1", tool="look", text="half way") in events


async def test_what_a_synchronous_tool_reports_is_told_in_the_event_loop_while_it_works():
    told = threading.Event()

    @tool(effect="pure", timeout=10)
    def look(context: ToolContext) -> bool:
        """Look, and wait until somebody has heard of it."""
        context.report(f"{context.seconds_left():.0f} seconds left")
        return told.wait(5)

    threads = []
    async for event in Agent(ScriptedModel([call("look"), "done"]), tools=[look]).stream(
        "go", on_event=lambda _event: threads.append(threading.current_thread())
    ):
        if isinstance(event, ToolProgress):
            assert event.text == "10 seconds left"
            told.set()
    assert [step.output for step in steps_of(event.transcript, ToolReturned)] == [True]
    assert set(threads) == {threading.current_thread()}


async def test_an_asynchronous_tool_cannot_end_the_process():
    @tool(effect="pure")
    async def leave() -> None:
        """Try to end the process."""
        raise SystemExit(3)

    outcome = await Agent(ScriptedModel([call("leave"), "done"]), tools=[leave]).run("go")
    assert outcome.unwrap() == "done"
    assert "SystemExit" in steps_of(outcome.transcript, ToolReturned)[0].error.message


async def test_only_an_unsafe_call_is_recorded_before_it_starts():
    journal = MemoryJournal()

    @tool
    async def send() -> int:
        """Undeclared effects count as unsafe."""
        return len(steps_of(journal.steps, ToolStarted))

    @tool(effect="idempotent")
    async def put() -> int:
        """Not recorded before it starts."""
        return len(steps_of(journal.steps, ToolStarted))

    model = ScriptedModel([call("put"), call("send", "c2"), "done"])
    outcome = await Agent(model, tools=[send, put]).run("go", journal=journal)
    assert [step.output for step in steps_of(outcome.transcript, ToolReturned)] == [0, 1]


# --- policy and approval -----------------------------------------------------------------------------------------


async def test_a_denied_call_is_not_carried_out_and_the_model_is_told_why():
    called = []

    @tool(effect="unsafe")
    def delete(path: str) -> None:
        """Delete a file."""
        called.append(path)

    model = ScriptedModel([call("delete", path="/"), "I may not."])
    outcome = await Agent(model, tools=[delete], policy=SecurityPolicy(deny=["del*"])).run("go")
    assert outcome.unwrap() == "I may not."
    assert called == []
    assert steps_of(outcome.transcript, ToolReturned)[0].error.code == "tool_denied"


@pytest.mark.parametrize("approved, expected", [(True, ["x"]), (False, [])])
async def test_an_approval_is_waited_for_and_obeyed(approved, expected):
    called = []

    @tool(effect="unsafe", approval=True)
    def send(text: str) -> str:
        """Send a message."""
        called.append(text)
        return "sent"

    journal = MemoryJournal()
    model = ScriptedModel.by_turn([[call("send", text="x"), call("add", "c2", a=1, b=1)], "done"])
    agent = Agent(model, tools=[send, add])
    outcome = await agent.run("go", journal=journal)
    assert isinstance(outcome, Waiting)
    assert [asked.tool for asked in outcome.on] == ["send"]
    assert outcome.on[0].arguments == {"text": "x"}
    assert called == []
    assert [step.tool for step in steps_of(outcome.transcript, ToolReturned)] == ["add"]  # the others went on
    assert isinstance(await agent.run("go", journal=journal), Waiting)  # asked once only
    await journal.append(
        ApprovalGiven(approval_id=outcome.on[0].approval_id, approved=approved, reason="because")
    )
    outcome = await agent.run("go", journal=journal)
    assert outcome.unwrap() == "done"
    assert called == expected
    if not approved:
        assert "because" in steps_of(outcome.transcript, ToolReturned)[1].error.message


async def test_an_interrupted_unsafe_call_is_asked_about_each_time():
    called = []

    @tool(effect="unsafe")
    def send() -> str:
        """Send."""
        called.append("sent")
        return "sent"

    journal = MemoryJournal()
    for step in (
        RunStarted(run_id="r", agent="agent", input="go"),
        ModelReplied(parts=(call("send"),)),
        ToolStarted(call_id="c1", tool="send"),
    ):
        await journal.append(step)
    agent = Agent(ScriptedModel.by_turn(["never", "done"]), tools=[send])
    outcome = await agent.run("go", journal=journal)
    assert isinstance(outcome, Waiting)
    assert outcome.on[0].interrupted
    await journal.append(ApprovalGiven(approval_id=outcome.on[0].approval_id, approved=True))
    await journal.append(
        ToolStarted(call_id="c1", tool="send")
    )  # it was started again, and interrupted again
    second = await agent.run("go", journal=journal)
    assert isinstance(second, Waiting)
    assert second.on[0].approval_id != outcome.on[0].approval_id
    await journal.append(ApprovalGiven(approval_id=second.on[0].approval_id, approved=False))
    final = await agent.run("go", journal=journal)
    assert final.unwrap() == "done"
    assert called == []
    assert "not known" in steps_of(final.transcript, ToolReturned)[0].error.message


async def test_waiting_for_a_person_does_not_use_up_the_seconds():
    at = time.time()
    asked = ApprovalAsked(approval_id="c1.1", call_id="c1", tool="add", arguments={}, reason="?")
    steps: list[tuple[int, Step]] = [
        (0, RunStarted(run_id="r", agent="agent", input="go")),
        (1, ModelReplied(parts=(call(a=1, b=1),))),
        (2, asked),
        (86_402, ApprovalGiven(approval_id="c1.1", approved=True)),
    ]
    journal = MemoryJournal(
        [Recorded(seq=seq, at=at + after, step=step) for seq, (after, step) in enumerate(steps)]
    )
    agent = Agent(ScriptedModel.by_turn(["never", "2"]), tools=[add], limits=Limits(seconds=30))
    left = agent.limits.seconds_left(RunningUsage.of(journal.steps), 0)
    assert left == pytest.approx(28)


# --- one after the other -----------------------------------------------------------------------------------------


@dataclass
class Stage:
    """Watches which calls are on it together."""

    on: set[str] = field(default_factory=set)
    seen: list[tuple[str, ...]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    async def act(self, name: str, turns: int) -> str:
        self.on.add(name)
        for _ in range(turns):
            self.seen.append(tuple(sorted(self.on)))
            await asyncio.sleep(0)
        self.on.remove(name)
        self.ended.append(name)
        return name

    @tool(effect="pure")
    async def free(self, who: str, turns: int = 3) -> str:
        """Run beside others."""
        return await self.act(who, turns)

    @tool(effect="unsafe", parallel=False)
    async def alone(self, who: str, turns: int = 3) -> str:
        """Run alone."""
        return await self.act(who, turns)


def calls_of(*names: str) -> list[ToolCall]:
    """Calls of the tool that a name begins with; the first one takes longest."""
    return [
        call("free" if name.startswith("f") else "alone", name, who=name, turns=20 - 2 * place)
        for place, name in enumerate(names)
    ]


async def test_a_tool_that_is_not_parallel_runs_alone_in_the_order_of_the_calls():
    stage = Stage()
    names = ["f1", "f2", "a1", "a2", "f3", "f4", "a3"]
    model = ScriptedModel.by_turn([calls_of(*names), "Done."])
    outcome = await Agent(model, tools=[stage.free, stage.alone]).run("go")
    assert isinstance(outcome, Completed)
    together = set(stage.seen)
    assert {("f1", "f2"), ("f3", "f4")} <= together
    assert all(each in {("f1", "f2"), ("f3", "f4")} or len(each) == 1 for each in together)
    assert [set(stage.ended[:2]), *stage.ended[2:4], set(stage.ended[4:6]), stage.ended[6]] == [
        {"f1", "f2"},
        "a1",
        "a2",
        {"f3", "f4"},
        "a3",
    ]


async def test_an_agent_may_have_all_its_calls_one_after_the_other():
    stage = Stage()
    model = ScriptedModel.by_turn([calls_of("f1", "f2", "f3"), "Done."])
    outcome = await Agent(model, tools=[stage.free], parallel_tools=False).run("go")
    assert isinstance(outcome, Completed)
    assert stage.ended == ["f1", "f2", "f3"]
    assert all(len(each) == 1 for each in stage.seen)


async def test_an_agent_may_say_which_tools_run_alone():
    stage = Stage()
    model = ScriptedModel.by_turn([calls_of("f1", "f2", "f3"), "Done."])
    agent = Agent(model, tools=[stage.free], sequential_tools=["fr*"])
    assert (await agent.run("go")).unwrap() == "Done."
    assert stage.ended == ["f1", "f2", "f3"]
    assert all(len(each) == 1 for each in stage.seen)
    with pytest.raises(UsageError, match="sequential_tools: no tool is called 'fee'; there are: free"):
        await replace(agent, sequential_tools=["fee"]).run("go")


async def test_the_order_holds_for_what_a_crash_has_left():
    stage, journal = Stage(), CrashingJournal(at=4)  # behind the input, the reply, and a1 with its beginning
    model = ScriptedModel.by_turn([calls_of("a1", "f1", "a2"), "Done."])
    agent = Agent(model, tools=[stage.free, stage.alone])
    with pytest.raises(Crash):
        await agent.run("go", journal=journal)
    assert stage.ended == ["a1", "f1"]
    outcome = await agent.run("go", journal=MemoryJournal(await journal.load()))
    assert isinstance(outcome, Completed)
    assert stage.ended == ["a1", "f1", "f1", "a2"]


# --- time limits -------------------------------------------------------------------------------------------------


async def test_an_agent_has_a_time_limit_for_tools_that_have_none():
    @tool(effect="pure")
    async def hang() -> None:
        """Never return."""
        await asyncio.Event().wait()

    @tool(effect="pure", timeout=60)
    async def patient(context: ToolContext[None]) -> bool:
        """Say how long it may take."""
        return (context.seconds_left() or 0) > 50

    model = ScriptedModel.by_turn([[call("hang", "a"), call("patient", "b")], "Done."])
    outcome = await Agent(model, tools=[hang, patient], tool_timeout=0.05).run("go")
    told = {step.call_id: step for step in steps_of(outcome.transcript, ToolReturned)}
    assert told["a"].error.code == "tool_timeout"
    assert told["b"].output is True


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_time_limit_that_makes_no_sense_is_refused(seconds):
    with pytest.raises(UsageError, match="tool_timeout"):
        Agent("offline:planner", tool_timeout=seconds)
