"""The loop, through ``Agent.run``: what is owed is done, recorded, and nothing is done twice."""

import asyncio
import threading
import time

import pytest

from agentkit import (
    Agent,
    Cancelled,
    Completed,
    Control,
    Event,
    Failed,
    Limits,
    MemoryJournal,
    SecurityPolicy,
    Step,
    TextDelta,
    ToolCall,
    ToolContext,
    ToolError,
    ToolProgress,
    UsageError,
    Waiting,
    tool,
)
from agentkit.errors import (
    ContentRefused,
    ModelAuthError,
    ModelBadRequest,
    ModelOverloaded,
    RunReleased,
)
from agentkit.messages import ModelReply, StopReason, Text, ToolMessage, Usage, UserMessage
from agentkit.tally import Tally
from agentkit.testing import ScriptedModel
from agentkit.transcript import (
    ApprovalAsked,
    ApprovalGiven,
    Finished,
    ModelReplied,
    Recorded,
    RunRetried,
    RunStarted,
    ToolReturned,
    ToolStarted,
)


@tool(effect="pure")
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def call(name: str = "add", call_id: str = "c1", **arguments) -> ToolCall:
    return ToolCall(id=call_id, name=name, arguments=arguments)


def kinds(transcript) -> list[str]:
    return [type(recorded.step).__name__ for recorded in transcript]


def steps_of(transcript, kind) -> list:
    return [recorded.step for recorded in transcript if isinstance(recorded.step, kind)]


async def test_a_run_without_tools_completes():
    model = ScriptedModel(["Hello."])
    outcome = await Agent(model, instructions="Be kind.").run("Hi")
    assert isinstance(outcome, Completed)
    assert outcome.output == "Hello." == outcome.unwrap()
    assert kinds(outcome.transcript) == ["RunStarted", "ModelReplied", "Finished"]
    assert model.requests[0].instructions == "Be kind."
    assert model.requests[0].messages == (UserMessage(text="Hi"),)
    model.assert_complete()


async def test_tool_results_reach_the_model():
    model = ScriptedModel([call(a=2, b=3), "It is 5."])
    outcome = await Agent(model, tools=[add]).run("2 + 3?")
    assert outcome.unwrap() == "It is 5."
    assert kinds(outcome.transcript) == [
        "RunStarted",
        "ModelReplied",
        "ToolReturned",
        "ModelReplied",
        "Finished",
    ]
    assert model.requests[1].messages[-1] == ToolMessage(call_id="c1", name="add", content="5")
    assert outcome.usage.model_calls == 2
    assert outcome.usage.tool_calls == 1


async def test_parallel_calls_run_concurrently_and_are_recorded_as_they_arrive():
    first_may_end, second_ended = asyncio.Event(), asyncio.Event()

    @tool(effect="pure")
    async def slow() -> str:
        """Ends after fast."""
        await first_may_end.wait()
        return "slow"

    @tool(effect="pure")
    async def fast() -> str:
        """Ends first."""
        second_ended.set()
        return "fast"

    def watch(event) -> None:
        if isinstance(event, Recorded) and isinstance(event.step, ToolReturned) and event.step.tool == "fast":
            first_may_end.set()

    model = ScriptedModel([[call("slow", "c1"), call("fast", "c2")], "done"])
    outcome = await Agent(model, tools=[slow, fast]).run("go", on_event=watch)
    assert [step.tool for step in steps_of(outcome.transcript, ToolReturned)] == ["fast", "slow"]


async def test_a_tools_error_is_shown_to_the_model_and_the_run_goes_on():
    @tool(effect="pure")
    def look_up(word: str) -> str:
        """Look a word up."""
        raise ToolError(f"no entry for {word}")

    model = ScriptedModel([call("look_up", word="zebra"), "There is none."])
    outcome = await Agent(model, tools=[look_up]).run("zebra?")
    assert outcome.unwrap() == "There is none."
    message = model.requests[1].messages[-1]
    assert message == ToolMessage(call_id="c1", name="look_up", content="no entry for zebra", is_error=True)


async def test_an_unexpected_exception_is_told_without_its_text():
    @tool(effect="pure")
    def connect() -> str:
        """Fail with a secret in the text."""
        raise RuntimeError("password=hunter2")

    model = ScriptedModel([call("connect"), "It failed."])
    outcome = await Agent(model, tools=[connect]).run("go")
    assert outcome.unwrap() == "It failed."
    assert "hunter2" not in repr(outcome)
    assert "RuntimeError" in steps_of(outcome.transcript, ToolReturned)[0].error.message


@pytest.mark.parametrize(
    "bad",
    [
        call("nothing_of_that_name"),
        call(a="two", b=3),
        call(a=2),
        ToolCall(id="c1", name="add", invalid="{a: 2"),
    ],
)
async def test_a_malformed_call_is_corrected(bad):
    model = ScriptedModel([bad, call(call_id="c2", a=2, b=3), "5"])
    outcome = await Agent(model, tools=[add]).run("2 + 3?")
    assert outcome.unwrap() == "5"
    assert model.requests[1].messages[-1].is_error


async def test_malformed_calls_in_a_loop_are_stopped():
    model = ScriptedModel([call("nothing", f"c{n}") for n in range(9)])
    outcome = await Agent(model, tools=[add], patience=3).run("go")
    assert isinstance(outcome, Failed)
    assert outcome.error.code == "no_progress"
    assert len(model.requests) == 4


async def test_the_same_failing_call_in_a_loop_is_stopped():
    @tool(effect="pure")
    def fetch(url: str) -> str:
        """Always fails."""
        raise ToolError("not found")

    model = ScriptedModel([call("fetch", f"c{n}", url="x") for n in range(9)])
    outcome = await Agent(model, tools=[fetch], patience=2).run("go")
    assert isinstance(outcome, Failed)
    assert outcome.error.code == "no_progress"
    assert len(model.requests) == 4  # the first failure is no fault, three repetitions are


async def test_empty_and_truncated_replies_are_corrected_and_bounded():
    cut = ModelReply(parts=(Text(text="It is"),), stop_reason=StopReason.LENGTH)
    outcome = await Agent(ScriptedModel(["", cut, "It is 5."])).run("go")
    assert outcome.unwrap() == "It is 5."
    outcome = await Agent(ScriptedModel([""] * 9), patience=2).run("go")
    assert isinstance(outcome, Failed)
    assert outcome.error.code == "no_progress"


@pytest.mark.parametrize(
    "reason, who", [(StopReason.REFUSED, "the model"), (StopReason.FILTERED, "a filter of the provider")]
)
async def test_a_refusal_is_a_failure_not_an_output(reason, who):
    refused = ModelReply(parts=(Text(text="I cannot help with that."), call(a=1, b=1)), stop_reason=reason)
    outcome = await Agent(ScriptedModel([refused]), tools=[add]).run("go")
    assert isinstance(outcome, Failed)
    assert outcome.error.code == ContentRefused.code
    assert outcome.error.message == f"{who} declined: I cannot help with that."
    assert [type(recorded.step) for recorded in outcome.transcript] == [RunStarted, ModelReplied, Finished]


@pytest.mark.parametrize(
    "given, replacement",
    [("", "call_1_0"), ("a b", "call_1_0"), ("x" * 65, "call_1_0"), ("fine-1", "fine-1")],
)
async def test_ids_of_calls_are_usable_and_unique_in_the_run(given, replacement):
    model = ScriptedModel([[call(call_id=given, a=1, b=1)], [call(call_id=given, a=1, b=2)], "done"])
    outcome = await Agent(model, tools=[add]).run("go")
    ids = [step.call_id for step in steps_of(outcome.transcript, ToolReturned)]
    assert ids[0] == replacement
    assert len(set(ids)) == 2


async def test_two_calls_of_one_reply_with_the_same_id_are_told_apart():
    model = ScriptedModel([[call(a=1, b=1), call(a=1, b=2)], "done"])
    outcome = await Agent(model, tools=[add]).run("go")
    assert sorted(step.output for step in steps_of(outcome.transcript, ToolReturned)) == [2, 3]


async def test_an_id_of_our_own_is_not_one_that_the_model_has_used():
    model = ScriptedModel([[call(call_id="call_1_1", a=1, b=1), call(call_id="", a=1, b=2)], "done"])
    outcome = await Agent(model, tools=[add]).run("go")
    assert len({step.call_id for step in steps_of(outcome.transcript, ToolReturned)}) == 2


# --- failures of the model ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ModelOverloaded(), ModelAuthError()])
async def test_a_failure_of_the_world_is_not_recorded_and_the_journal_goes_on(error):
    journal = MemoryJournal()
    outcome = await Agent(ScriptedModel([call(a=1, b=1), error]), tools=[add]).run("go", journal=journal)
    assert isinstance(outcome, Failed)
    assert outcome.resumable
    assert outcome.error.code == error.code
    outcome = await Agent(ScriptedModel(["done"]), tools=[add]).run("go", journal=journal)
    assert outcome.unwrap() == "done"
    assert len(steps_of(outcome.transcript, ToolReturned)) == 1


async def test_a_request_that_can_never_succeed_ends_the_run():
    outcome = await Agent(ScriptedModel([ModelBadRequest("no such model")])).run("go")
    assert isinstance(outcome, Failed)
    assert not outcome.resumable
    assert isinstance(outcome.transcript[-1].step, Finished)


async def test_a_finished_journal_answers_without_doing_anything():
    journal = MemoryJournal()
    await Agent(ScriptedModel(["one"])).run("go", journal=journal)
    outcome = await Agent(ScriptedModel([])).run("go", journal=journal)
    assert outcome.unwrap() == "one"


async def test_a_journal_of_another_run_is_refused():
    journal = MemoryJournal()
    await Agent(ScriptedModel(["one"])).run("go", journal=journal)
    with pytest.raises(UsageError, match="another run"):
        await Agent(ScriptedModel([])).run("come", journal=journal)


async def test_a_retried_run_counts_its_budget_anew_and_pays_nothing_twice():
    journal = MemoryJournal()
    agent = Agent(ScriptedModel([call(a=1, b=1)]), tools=[add], limits=Limits(steps=3))
    failed = await agent.run("go", journal=journal)
    assert isinstance(failed, Failed)
    carried_on = MemoryJournal(failed.transcript[:-1])
    await carried_on.append(RunRetried(of="earlier"))
    outcome = await Agent(ScriptedModel(["2"]), tools=[add], limits=Limits(steps=3)).run(
        "go", journal=carried_on
    )
    assert outcome.unwrap() == "2"
    assert outcome.usage.model_calls == 1


# --- limits ------------------------------------------------------------------------------------------------------


async def test_steps_and_tokens_are_limits_between_turns():
    used = Usage(input_tokens=60, output_tokens=1)
    replies = [ModelReply(parts=(call(call_id=f"c{n}", a=n, b=1),), usage=used) for n in range(9)]
    for limits, said in ((Limits(steps=5), "5 of 5 steps"), (Limits(tokens=100), "122 of 100 tokens")):
        outcome = await Agent(ScriptedModel(replies), tools=[add], limits=limits).run("go")
        assert isinstance(outcome, Failed)
        assert outcome.error.code == "limit_reached"
        assert said in outcome.error.message
        assert kinds(outcome.transcript)[-2:] == ["ToolReturned", "Finished"]


async def test_seconds_reach_a_model_call_and_a_tool_in_flight():
    async def never(_request):
        await asyncio.Event().wait()

    @tool(effect="pure")
    async def hang() -> None:
        """Never returns."""
        await asyncio.Event().wait()

    for model in (ScriptedModel([never]), ScriptedModel([call("hang")])):
        outcome = await Agent(model, tools=[hang], limits=Limits(seconds=0.05)).run("go")
        assert isinstance(outcome, Failed)
        assert outcome.error.code == "limit_reached"
        assert "0.05 seconds" in outcome.error.message


async def test_a_caller_can_only_tighten_the_limits():
    agent = Agent(ScriptedModel([call(a=1, b=1), "x"]), tools=[add], limits=Limits(steps=3))
    outcome = await agent.run("go", limits=Limits(steps=50))
    assert isinstance(outcome, Failed)


async def test_a_tools_timeout_is_its_result():
    @tool(effect="pure", timeout=0.02)
    async def hang() -> None:
        """Never returns."""
        await asyncio.Event().wait()

    outcome = await Agent(ScriptedModel([call("hang"), "It hangs."]), tools=[hang]).run("go")
    assert outcome.unwrap() == "It hangs."
    assert steps_of(outcome.transcript, ToolReturned)[0].error.code == "tool_timeout"


# --- stopping ----------------------------------------------------------------------------------------------------


async def test_cancel_reaches_a_tool_in_flight_and_keeps_what_was_done():
    control, cancelled = Control(), asyncio.Event()

    @tool(effect="pure")
    async def hang() -> None:
        """Cancels its own run, then waits."""
        control.cancel()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    model = ScriptedModel([call(a=1, b=1), call("hang", "c2")])
    outcome = await Agent(model, tools=[add, hang]).run("go", control=control)
    assert isinstance(outcome, Cancelled)
    assert cancelled.is_set()
    assert kinds(outcome.transcript) == [
        "RunStarted",
        "ModelReplied",
        "ToolReturned",
        "ModelReplied",
        "Finished",
    ]


async def test_cancel_reaches_a_model_call_in_flight():
    control, closed = Control(), asyncio.Event()

    async def hang(_request):
        control.cancel()
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()

    outcome = await Agent(ScriptedModel([hang])).run("go", control=control)
    assert isinstance(outcome, Cancelled)
    assert closed.is_set()


async def test_a_run_that_is_cancelled_before_it_starts_does_nothing():
    control = Control()
    control.cancel()
    outcome = await Agent(ScriptedModel([])).run("go", control=control)
    assert isinstance(outcome, Cancelled)


async def test_cancelling_the_coroutine_records_nothing_and_can_be_resumed():
    journal, started = MemoryJournal(), asyncio.Event()

    async def hang(_request):
        started.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(Agent(ScriptedModel([hang])).run("go", journal=journal))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert kinds(journal.steps) == ["RunStarted"]
    outcome = await Agent(ScriptedModel(["done"])).run("go", journal=journal)
    assert outcome.unwrap() == "done"


async def test_released_at_the_next_step_and_resumed():
    journal, control = MemoryJournal(), Control()

    @tool(effect="pure")
    def release() -> str:
        """Let the run go while the tool works."""
        control.release()
        return "released"

    with pytest.raises(RunReleased):
        await Agent(ScriptedModel([call("release")]), tools=[release]).run(
            "go", journal=journal, control=control
        )
    assert kinds(journal.steps) == ["RunStarted", "ModelReplied", "ToolReturned"]
    outcome = await Agent(ScriptedModel(["done"]), tools=[release]).run("go", journal=journal)
    assert outcome.unwrap() == "done"


async def test_a_cancellation_of_a_tools_own_making_is_its_failure():
    @tool(effect="pure")
    async def confused() -> None:
        """Some libraries let their own cancellation escape."""
        raise asyncio.CancelledError

    for calls in ([call("confused")], [call("confused"), call("confused", "c2")]):
        outcome = await Agent(ScriptedModel([calls, "done"]), tools=[confused]).run("go")
        assert outcome.unwrap() == "done"
        assert all(step.error is not None for step in steps_of(outcome.transcript, ToolReturned))


# --- tools: threads, context, effects ----------------------------------------------------------------------------


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
    left = agent.limits.seconds_left(Tally.of(journal.steps), 0)
    assert left == pytest.approx(28)


# --- output, stream, misuse --------------------------------------------------------------------------------------


async def test_streaming_shows_deltas_and_steps_and_ends_with_the_outcome():
    events = [event async for event in Agent(ScriptedModel(["It is five."])).stream("go")]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "It is five."
    assert [type(event.step).__name__ for event in events if isinstance(event, Recorded)] == [
        "RunStarted",
        "ModelReplied",
        "Finished",
    ]
    assert isinstance(events[-1], Completed)


async def test_leaving_a_stream_early_stops_the_run():
    stopped, journal = asyncio.Event(), MemoryJournal()

    async def hang(_request):
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    stream = Agent(ScriptedModel([hang])).stream("go", journal=journal)
    async for _event in stream:
        break
    await stream.aclose()
    assert kinds(journal.steps) == ["RunStarted"]


def test_run_sync_runs():
    assert Agent(ScriptedModel(["hi"])).run_sync("go").unwrap() == "hi"


async def test_run_sync_inside_a_loop_is_refused_with_a_hint():
    with pytest.raises(UsageError, match="await agent"):
        Agent(ScriptedModel([])).run_sync("go")


async def test_two_runs_of_one_agent_do_not_meet():
    model = ScriptedModel.by_turn([call(a=1, b=1), "done"])
    agent = Agent(model, tools=[add])
    outcomes = await asyncio.gather(*(agent.run(f"run {n}") for n in range(20)))
    assert all(outcome.unwrap() == "done" for outcome in outcomes)
    assert len({outcome.run_id for outcome in outcomes}) == 20
