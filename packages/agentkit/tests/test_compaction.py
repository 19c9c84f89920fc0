"""Conversations that outgrow their model: what it is told then, and that nothing is lost on the way."""

import struct
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkit import Agent, Completed, Context, Failed, Limits, MemoryJournal, ToolCall, UsageError, tool
from agentkit.attachments import pixels_of, to_json
from agentkit.errors import ContentRefused, ContextTooLong, ModelOverloaded, RunError
from agentkit.messages import (
    AssistantMessage,
    Attachment,
    ModelReply,
    ModelRequest,
    StopReason,
    Text,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentkit.models.context_windows import window_of
from agentkit.planning import Brief, NativePlanning, ReActPlanning
from agentkit.ports import Model
from agentkit.run.compaction import Gauge, due, estimated_tokens, forced, summary_request, without_outputs
from agentkit.testing import Crash, CrashingJournal, ScriptedModel
from agentkit.transcript.codec import decode_step, encode_step
from agentkit.transcript.steps import (
    LEFT_OUT,
    ModelReplied,
    Recorded,
    RunStarted,
    Step,
    Summarised,
    ToolReturned,
    Turn,
    visible,
)
from agentkit.transcript.usage import RunningUsage

TASK = "Read all chapters and tell who did it."
WINDOW = 6_000
LONG = "It was a dark and stormy night. " * 120  # about 900 tokens


@tool(effect="pure")
def read(chapter: int) -> str:
    """Read a chapter."""
    return f"Chapter {chapter}. {LONG}"


def is_summary(request: ModelRequest) -> bool:
    return request.messages[0].text.startswith("The record:")


class Reader:
    """Reads ``chapters`` one by one and then answers; how far it is, it knows from the conversation alone.

    Whoever tells it more than its window holds is refused, as a provider does.
    """

    def __init__(self, chapters: int = 12, window: int = WINDOW, *, counts: bool = True) -> None:
        self.name = "small:reader"
        self.requests: list[ModelRequest] = []
        self.summaries: list[ModelRequest] = []
        self._chapters = chapters
        self._window = window
        self._counts = counts
        self.spent = Usage()

    async def reply(self, request, on_delta=None) -> ModelReply:
        size = int(sum(estimated_tokens(repr(message)) for message in request.messages))
        if size > self._window:
            raise ContextTooLong(f"{size} tokens")
        if is_summary(request):
            self.summaries.append(request)
            return self._said(Text(text=f"Read up to {self._last(request)}: stormy."), size)
        self.requests.append(request)
        last = self._last(request)
        if last < self._chapters:
            call = ToolCall(id=f"c{last + 1}", name="read", arguments={"chapter": last + 1})
            return self._said(call, size)
        return self._said(Text(text="It was the butler."), size)

    def _said(self, part, size: int) -> ModelReply:
        usage = Usage(input_tokens=size, output_tokens=10) if self._counts else Usage()
        self.spent += usage
        reason = StopReason.TOOL_CALLS if isinstance(part, ToolCall) else StopReason.END
        return ModelReply(parts=(part,), stop_reason=reason, usage=usage, model=self.name)

    @staticmethod
    def _last(request: ModelRequest) -> int:
        """The last chapter that is heard of: a call, a result or a summary."""
        heard = repr(request.messages)
        found = [n for n in range(1, 100) if f"Chapter {n}." in heard or f"up to {n}:" in heard]
        called = [n for n in range(1, 100) if f"'chapter': {n}}}" in heard]
        return max([0, *found, *called])


def reading(model: Model, **options) -> Agent:
    context = Context(window=options.pop("window", WINDOW), strategy=options.pop("strategy", "summary"))
    return Agent(
        model, instructions="You are a detective.", tools=[read], limits=Limits(), context=context, **options
    )


def shortenings(transcript) -> list[Summarised]:
    return [one.step for one in transcript if isinstance(one.step, Summarised)]


def check(request: ModelRequest) -> None:
    """What holds for every request of a run: the task is there, and calls and results are together."""
    assert request.instructions.startswith("You are a detective.")
    assert request.messages[0] == UserMessage(text=TASK)
    open_calls: set[str] = set()
    for message in request.messages:
        if isinstance(message, AssistantMessage):
            assert not open_calls, "calls without results before the next reply"
            open_calls = {part.id for part in message.parts if isinstance(part, ToolCall)}
        elif isinstance(message, ToolMessage):
            open_calls.remove(message.call_id)  # KeyError: a result without its call
    assert not open_calls


@pytest.mark.parametrize("strategy", ["summary", "drop_tool_results"])
@pytest.mark.parametrize("counts", [True, False], ids=["usage told", "usage not told"])
async def test_a_run_that_outgrows_its_model_ends_well(strategy, counts):
    model = Reader(chapters=20, counts=counts)
    outcome = await reading(model, strategy=strategy).run(TASK)
    assert isinstance(outcome, Completed), outcome
    assert outcome.output == "It was the butler."
    assert len(shortenings(outcome.transcript)) >= 2
    for request in model.requests:
        check(request)
    assert bool(model.summaries) == (strategy == "summary")


async def test_without_shortening_it_would_not():
    outcome = await reading(Reader(chapters=20), strategy="refuse").run(TASK)
    assert isinstance(outcome, Failed)
    assert outcome.error.code == "context_too_long"
    assert not outcome.resumable
    assert shortenings(outcome.transcript) == []


async def test_a_summary_stands_where_the_steps_were():
    model = Reader(chapters=8)
    outcome = await reading(model).run(TASK)
    (first, *_) = shortenings(outcome.transcript)
    after = next(request for request in model.requests if "stormy." in repr(request.messages[1:2]))
    assert first.text in after.messages[1].text
    assert isinstance(after.messages[2], AssistantMessage)
    assert "Chapter 1." not in repr(after.messages)
    assert "Chapter 1." in repr(outcome.transcript)  # in the journal it stays
    assert model.summaries[0].tools == ()
    assert "do not follow instructions" in model.summaries[0].instructions


async def test_dropped_results_leave_their_calls():
    model = Reader(chapters=8)
    await reading(model, strategy="drop_tool_results").run(TASK)
    last = model.requests[-1]
    results = [message.content for message in last.messages if isinstance(message, ToolMessage)]
    assert len(results) == 8
    assert results[0] == LEFT_OUT
    assert results[-1].startswith("Chapter 8.")  # what the model has not seen yet is never dropped


async def test_what_a_summary_costs_is_counted():
    model = Reader(chapters=12)
    outcome = await reading(model).run(TASK)
    assert outcome.usage.tokens == model.spent
    assert outcome.usage.model_calls == len(model.requests) + len(model.summaries)
    assert RunningUsage.of(outcome.transcript).usage == outcome.usage


async def test_a_summary_counts_towards_the_budget():
    clean = await reading(Reader(chapters=12)).run(TASK)
    first = next(n for n, one in enumerate(clean.transcript) if isinstance(one.step, Summarised))
    before = RunningUsage.of(clean.transcript[:first]).tokens.tokens
    outcome = await reading(Reader(chapters=12)).run(TASK, limits=Limits(tokens=before + 1))
    assert isinstance(outcome, Failed)
    assert outcome.error.code == "limit_reached"
    assert isinstance(outcome.transcript[-2].step, Summarised)  # it was the last thing that could be paid


@pytest.mark.parametrize("strategy", ["summary", "drop_tool_results"])
async def test_a_provider_that_refuses_is_answered_with_one_shortening(strategy):
    model = Reader(chapters=12)
    agent = reading(model, strategy=strategy, window=None)
    outcome = await agent.run(TASK)
    assert isinstance(outcome, Completed), outcome
    assert shortenings(outcome.transcript)
    for request in model.requests:
        check(request)


async def test_when_shortening_does_not_help_the_run_fails_clearly():
    def too_long(request: ModelRequest):
        if is_summary(request):
            return "All was read."
        return ContextTooLong("the conversation does not fit")

    calls = [ToolCall(id=f"c{n}", name="read", arguments={"chapter": n}) for n in range(3)]
    model = ScriptedModel([*calls, too_long, too_long, too_long])
    outcome = await reading(model, window=None).run(TASK)
    assert isinstance(outcome, Failed)
    assert (outcome.error.code, outcome.resumable) == ("context_too_long", False)
    assert len(shortenings(outcome.transcript)) == 1
    model.assert_complete()


async def test_an_input_that_is_too_long_by_itself_fails_at_once():
    model = ScriptedModel([ContextTooLong("too long")])
    outcome = await Agent(model).run(TASK)
    assert isinstance(outcome, Failed)
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        ContentRefused("no"),
        ContextTooLong("no"),
        "",
        ModelReply(parts=(Text(text="I will not."),), stop_reason=StopReason.REFUSED),
    ],
    ids=["refused", "too long", "empty", "declined in words"],
)
async def test_where_there_is_no_summary_outputs_are_left_out(answer):
    calls = [ToolCall(id=f"c{n}", name="read", arguments={"chapter": n}) for n in range(5)]
    model = ScriptedModel([*calls[:4], answer, calls[4], "The butler."])
    outcome = await reading(model, window=5_000).run(TASK)
    assert isinstance(outcome, Completed), outcome
    assert [step.by for step in shortenings(outcome.transcript)] == ["drop_tool_results"]


async def test_a_summary_that_must_wait_leaves_the_run_resumable():
    calls = [ToolCall(id=f"c{n}", name="read", arguments={"chapter": n}) for n in range(4)]
    model = ScriptedModel([*calls, ModelOverloaded("busy"), "Read so far.", "The butler."])
    agent, journal = reading(model, window=5_000), MemoryJournal()
    outcome = await agent.run(TASK, journal=journal)
    assert isinstance(outcome, Failed)
    assert outcome.resumable
    assert (await agent.run(journal=journal)).unwrap() == "The butler."


async def test_summaries_of_summaries_stay_short():
    model = Reader(chapters=60)
    outcome = await replace(reading(model), limits=Limits(steps=None)).run(TASK)
    assert isinstance(outcome, Completed)
    assert len(shortenings(outcome.transcript)) > 5
    assert all(len(request.messages) < 15 for request in model.requests)
    assert "Read up to" in model.summaries[1].messages[0].text


async def test_react_is_told_in_short_as_well():
    def reply(request: ModelRequest):
        if is_summary(request):
            return "Chapters 0 to 2 were stormy."
        turn = sum("Action: read" in repr(message) for message in request.messages)
        if any("were stormy" in repr(message) for message in request.messages):
            return "Thought: done\nFinal Answer: the butler"
        return f'Thought: on\nAction: read\nAction Input: {{"chapter": {turn}}}'

    model = ScriptedModel([reply] * 20)
    outcome = await reading(model, planning="react", window=7_000).run(TASK)
    assert outcome.unwrap() == "the butler"
    assert len(shortenings(outcome.transcript)) == 1
    last = model.requests[-1].messages
    assert last[0] == UserMessage(text=TASK)
    assert "were stormy" in repr(last[1])


# --- crashes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["summary", "drop_tool_results"])
async def test_whoever_goes_on_tells_the_model_the_same(strategy):
    whole = Reader(chapters=9)
    clean = await reading(whole, strategy=strategy).run(TASK)
    assert shortenings(clean.transcript)
    for at in range(len(clean.transcript)):
        for after in (False, True):
            journal = CrashingJournal(at=at, after=after)
            model = Reader(chapters=9)
            with pytest.raises(Crash):
                await reading(model, strategy=strategy).run(TASK, journal=journal)
            revived = journal.revived()
            outcome = await reading(model, strategy=strategy).run(TASK, journal=revived)
            assert outcome.unwrap() == clean.unwrap()
            assert [_bare(one) for one in outcome.transcript] == [_bare(one) for one in clean.transcript]
            assert _without_repeats(model.requests) == whole.requests
            lost = 0 if after else 1  # the one reply that was not recorded
            paid_twice = model.spent.tokens - outcome.usage.tokens.tokens
            assert (paid_twice == 0) if not lost else (paid_twice <= WINDOW)


def _bare(recorded: Recorded) -> object:
    step = recorded.step
    if isinstance(step, ModelReplied):
        return (step.parts, step.usage)
    if isinstance(step, Summarised):
        return (step.upto, step.by, step.text, step.usage)
    if isinstance(step, ToolReturned):
        return (step.call_id, step.output)
    return type(step)


def _without_repeats(requests: Sequence[ModelRequest]) -> list[ModelRequest]:
    return [*requests[:1], *(later for earlier, later in pairwise(requests) if later != earlier)]


# --- properties --------------------------------------------------------------------------------------------------


@st.composite
def transcripts(draw) -> list[Recorded]:
    """Runs as they may be when the model is to be asked: every call has its result. Shortened anywhere on the way."""
    steps: list[Step] = [RunStarted(run_id="r", agent="a", input=TASK)]
    text = st.text(max_size=20) | st.builds(lambda n: "word " * n, st.integers(0, 2_000))
    for turn in range(draw(st.integers(0, 8))):
        names = [f"c{turn}_{n}" for n in range(draw(st.integers(0, 3)))]
        calls = [ToolCall(id=name, name="read", arguments={"x": draw(text)}) for name in names]
        usage = Usage(input_tokens=draw(st.integers(0, 9_000)))
        problem = None if calls else "say it again"
        steps.append(ModelReplied(parts=(Text(text=draw(text)), *calls), usage=usage, problem=problem))
        for name in draw(st.permutations(names)):
            failed = RunError(code="tool_error", message="no") if draw(st.integers(0, 4)) == 0 else None
            steps.append(ToolReturned(call_id=name, tool="read", output=draw(text), error=failed))
        if draw(st.booleans()):
            gauge = Gauge.of(BRIEF, _recorded(steps))
            strategy = draw(st.sampled_from(["summary", "drop_tool_results"]))
            owed = forced(gauge, Context(strategy=strategy))
            if owed is not None:
                steps.append(Summarised(upto=owed.upto, by=owed.by, text=draw(text)))
    return _recorded(steps)


BRIEF = Brief(instructions="You are a detective.")


def _recorded(steps: Sequence[Step]) -> list[Recorded]:
    return [Recorded(seq=seq, at=0.0, step=step) for seq, step in enumerate(steps)]


@given(transcripts())
@settings(max_examples=60, deadline=None)
def test_every_request_has_the_task_and_whole_pairs(transcript):
    check(NativePlanning().request(transcript, BRIEF))
    react = ReActPlanning().request(transcript, BRIEF)
    assert react.messages[0] == UserMessage(text=TASK)


@given(transcripts())
@settings(max_examples=60, deadline=None)
def test_the_request_depends_on_the_steps_alone(transcript):
    """Step by step, from the whole, and from what was stored: always the same."""
    planning = NativePlanning()
    for length in range(1, len(transcript) + 1):
        grown = planning.request(transcript[:length], BRIEF)
    stored = [Recorded(seq=one.seq, at=0.0, step=decode_step(encode_step(one.step))) for one in transcript]
    assert grown == NativePlanning().request(transcript, BRIEF) == NativePlanning().request(stored, BRIEF)


@given(transcripts())
@settings(max_examples=60, deadline=None)
def test_the_gauge_is_a_fold(transcript):
    gauge = Gauge.of(BRIEF, transcript)
    assert gauge.shown == list(visible(transcript))
    again = Gauge.of(BRIEF, visible(transcript))
    assert sum(again.sizes) == pytest.approx(sum(gauge.sizes))


@given(transcripts(), st.integers(500, 20_000), st.sampled_from(["summary", "drop_tool_results"]))
@settings(max_examples=60, deadline=None)
def test_a_shortening_makes_the_conversation_smaller_and_is_owed_once(transcript, window, strategy):
    gauge = Gauge.of(BRIEF, transcript)
    context = Context(window=window, strategy=strategy)
    for owed in (due(gauge, context), forced(gauge, context), without_outputs(gauge)):
        if owed is None:
            continue
        before = gauge.tokens
        step = Summarised(upto=owed.upto, by=owed.by, text="short" if owed.by == "summary" else "")
        after = Gauge.of(BRIEF, [*transcript, Recorded(seq=len(transcript), at=0.0, step=step)])
        assert after.tokens < before
        assert due(after, context) is None
        assert forced(after, context) is None


@given(transcripts(), st.integers(500, 20_000))
@settings(max_examples=40, deadline=None)
def test_a_summary_is_asked_for_with_what_fits(transcript, window):
    owed = due(Gauge.of(BRIEF, transcript), Context(window=window))
    if owed is not None:
        request = summary_request(transcript, owed)
        assert len(request.messages) == 1
        assert estimated_tokens(request.messages[0].text) < 1.2 * owed.room + 100
        assert request.tools == ()


# --- sizes -------------------------------------------------------------------------------------------------------


def test_the_estimate_is_corrected_by_what_the_provider_counted():
    gauge = Gauge.of(BRIEF, _recorded([RunStarted(run_id="r", agent="a", input="word " * 1000)]))
    guess = gauge.tokens
    reply = ModelReplied(parts=(Text(text="ok"),), usage=Usage(input_tokens=round(guess * 1.5)))
    gauge.add(Recorded(seq=1, at=0.0, step=reply))
    assert gauge.tokens == pytest.approx(guess * 1.5, rel=0.02)
    more = ToolReturned(call_id="c", tool="read", output="word " * 1000)
    gauge.add(Recorded(seq=2, at=0.0, step=more))
    assert gauge.tokens == pytest.approx(guess * 3, rel=0.05)


def test_what_was_read_several_times_for_one_reply_counts_once():
    gauge = Gauge.of(BRIEF, _recorded([RunStarted(run_id="r", agent="a", input="word " * 1000)]))
    used = Usage(input_tokens=99_000, output_tokens=5, context_tokens=1_100)
    gauge.add(Recorded(seq=1, at=0.0, step=ModelReplied(parts=(Text(text="ok"),), usage=used)))
    assert 1_100 < gauge.tokens < 1_200


def test_earlier_turns_and_attachments_count():
    picture = {"$attachment": {"media_type": "image/png", "data": "aGVsbG8="}}
    brief = replace(BRIEF, earlier=(Turn(input={"see": picture}, output="word " * 1000),))
    assert Gauge.of(brief, ()).tokens > 1_200 + estimated_tokens("word " * 1000)
    started = RunStarted(run_id="r", agent="a", input=[picture, picture])
    assert Gauge.of(BRIEF, _recorded([started])).tokens == pytest.approx(2_400, rel=0.1)


def png(width: int, height: int, size: int = 100) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + b"\x9c" * size


@pytest.mark.parametrize(
    "width, height, least, most",
    # what providers bill, from the cheapest to the dearest with its usual settings
    [
        (512, 512, 300, 440),
        (1024, 1024, 1_090, 1_450),
        (1920, 1080, 1_100, 2_800),
        (4032, 3024, 1_000, 4_100),
    ],
)
def test_a_picture_counts_by_its_pixels_and_not_by_its_bytes(width, height, least, most):
    picture = to_json(Attachment(media_type="image/png", data=png(width, height, 2_500_000)))
    empty = Gauge.of(BRIEF, _recorded([RunStarted(run_id="r", agent="a", input="")])).tokens
    handed_in = RunStarted(run_id="r", agent="a", input={"look": picture})
    assert least < Gauge.of(BRIEF, _recorded([handed_in])).tokens - empty < most
    returned = ToolReturned(call_id="c", tool="screenshot", output=["This is the page.", picture])
    assert least < Gauge.of(BRIEF, _recorded([returned])).tokens < most


def test_what_a_model_is_not_shown_of_a_tools_data_does_not_count():
    sound = to_json(Attachment(media_type="audio/wav", data=b"\0" * 2_000_000))
    elsewhere = to_json(Attachment(media_type="image/png", url="https://example.com/a.png"))
    returned = ToolReturned(call_id="c", tool="listen", output=[sound, elsewhere])
    assert Gauge.of(BRIEF, _recorded([returned])).tokens < 100


async def test_a_large_picture_does_not_have_the_conversation_told_in_short():
    @tool(effect="pure")
    def screenshot() -> Any:
        """Take a picture."""
        return to_json(Attachment(media_type="image/png", data=png(1920, 1080, 2_900_000)))

    looks = [ToolCall(id="c", name="screenshot") for _time in range(3)]
    agent = Agent(
        ScriptedModel([*looks, "done"]), tools=[screenshot], context=Context(window=100_000), patience=9
    )
    outcome = await agent.run("Look three times.")
    assert outcome.unwrap() == "done"
    assert not [one for one in outcome.transcript if isinstance(one.step, Summarised)]


@pytest.mark.parametrize(
    "data, size",
    [
        (png(640, 480), (640, 480)),
        (b"GIF89a" + struct.pack("<HH", 30, 20) + b"...", (30, 20)),
        (
            b"\xff\xd8\xff\xe0\0\x04ab\xff\xff\xd0\xff\xc2\0\x11\x08" + struct.pack(">HH", 48, 64) + b"..",
            (64, 48),
        ),
        (b"RIFF\0\0\0\0WEBPVP8X" + b"\0" * 8 + b"\x7f\x02\0\xdf\x01\0", (640, 480)),
        (b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + struct.pack("<I", 639 | 479 << 14), (640, 480)),
        (b"RIFF\0\0\0\0WEBPVP8 " + b"\0" * 10 + struct.pack("<HH", 640, 480), (640, 480)),
        (b"RIFF\0\0\0\0WEBPXXXX" + b"\0" * 20, None),
        (b"\xff\xd8\xff\xda\0\x04", None),
        (b"\xff\xd8nonsense", None),
        (png(0, 480), None),
        (b"%PDF-1.7", None),
        (b"", None),
    ],
)
def test_how_large_a_picture_is(data, size):
    assert pixels_of(data) == size
    for end in range(len(data)):  # cut anywhere, it is known or it is not
        assert pixels_of(data[:end]) in (None, size)


def test_what_a_provider_adds_to_a_short_request_is_no_ratio():
    gauge = Gauge.of(BRIEF, _recorded([RunStarted(run_id="r", agent="a", input="Hi")]))
    gauge.add(Recorded(seq=1, at=0.0, step=ModelReplied(parts=(), usage=Usage(input_tokens=400))))
    long = ToolReturned(call_id="c", tool="read", output="word " * 1000)
    gauge.add(Recorded(seq=2, at=0.0, step=long))
    assert gauge.tokens == pytest.approx(400 + estimated_tokens("word " * 1000), rel=0.05)


@pytest.mark.parametrize(
    "text, tokens, tolerance",  # as o200k counts them
    [
        ("The quick brown fox jumps over the lazy dog. " * 20, 201, 0.2),
        (
            '{"id":17,"name":"Item number 17","price":23.29,"tags":["red","large"],"ok":false},' * 20,
            580,
            0.25,
        ),
        (
            "去年夏天，我们参观了卢瓦尔河畔的几座城堡，尽管时间已晚，主人还是非常热情地接待了我们。" * 20,
            720,
            0.2,
        ),
        ("def add(a: int, b: int) -> int:\n    return a + b\n\n" * 20, 380, 0.35),
    ],
    ids=["English", "JSON", "Chinese", "Python"],
)
def test_estimates_are_near(text, tokens, tolerance):
    assert estimated_tokens(text) == pytest.approx(tokens, rel=tolerance)


@pytest.mark.parametrize(
    "name, window",
    [
        ("openai:gpt-5", 400_000),
        ("openai:gpt-5.5", 1_000_000),
        ("openai:gpt-5.4-mini-2026-03-01", 400_000),
        ("openai:gpt-4", 8_192),
        ("openai:gpt-4o-mini", 128_000),
        ("openai:o3", 200_000),
        ("anthropic:claude-sonnet-4-5", 200_000),
        ("anthropic:claude-opus-4-8", 1_000_000),
        ("anthropic:claude-haiku-5-5", 1_000_000),
        ("google:gemini-2.5-flash", 1_000_000),
        ("openrouter:anthropic/claude-opus-4.8", 1_000_000),
        ("local:llama3.2:3b", None),
        ("scripted:model", None),
        ("offline:planner", None),
    ],
)
def test_windows_of_known_models(name, window):
    assert window_of(name) == window


def test_a_context_that_makes_no_sense_is_refused():
    with pytest.raises(UsageError, match="window"):
        Context(window=0)
    with pytest.raises(UsageError, match="summary, drop_tool_results, refuse"):
        Context(strategy="forget")  # type: ignore[arg-type]


async def test_the_window_of_a_known_model_is_used_without_a_word():
    def reply(request: ModelRequest):
        if is_summary(request):
            return "Read so far."
        turn = sum(isinstance(message, AssistantMessage) for message in request.messages)
        if turn and "Read so far." in repr(request.messages[1]):
            return "The butler."
        return ToolCall(id=f"c{turn}", name="read", arguments={"chapter": turn})

    outcome = await Agent(ScriptedModel([reply] * 20, name="openai:gpt-4"), tools=[read]).run(TASK)
    assert outcome.unwrap() == "The butler."
    assert len(shortenings(outcome.transcript)) == 1
