"""The loop: a whole run with a scripted model, step by step."""

import asyncio

import pytest

from agentkit import (
    Agent,
    Completed,
    Failed,
    Limits,
    MemoryJournal,
    TextDelta,
    ToolCall,
    ToolError,
    UsageError,
    tool,
)
from agentkit.errors import (
    ContentRefused,
    ModelAuthError,
    ModelBadRequest,
    ModelOverloaded,
)
from agentkit.messages import ModelReply, StopReason, Text, ToolMessage, Usage, UserMessage
from agentkit.testing import ScriptedModel
from agentkit.transcript.steps import Finished, ModelReplied, Recorded, RunRetried, RunStarted, ToolReturned

from .loop_support import add, call, kinds, steps_of  # type: ignore[import-not-found]


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
    [
        ("", "call_1_0"),
        ("a\nb", "call_1_0"),
        ("x" * 5000, "call_1_0"),
        ("fine-1", "fine-1"),
        ("a b:0", "a b:0"),
    ],
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
