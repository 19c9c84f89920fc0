"""Steps and their stored form."""

import json
from collections import deque
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkit import Agent, Completed, MemoryJournal
from agentkit.errors import TranscriptError
from agentkit.messages import Text, ToolCall, Usage
from agentkit.testing import ScriptedModel
from agentkit.testing.journals import EVERY_KIND
from agentkit.transcript.codec import (
    CURRENT,
    MINOR,
    decode_shown,
    decode_step,
    encode_step,
    recorded_from_json,
    recorded_shown,
    recorded_to_json,
)
from agentkit.transcript.steps import (
    ApprovalGiven,
    Finished,
    ModelReplied,
    Recorded,
    RunStarted,
    ToolReturned,
    Unreadable,
    beginning,
    ending,
    open_calls,
)
from agentkit.transcript.usage import RunningUsage, usage

FIXTURES = Path(__file__).parent / "fixtures" / "transcripts"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("step", EVERY_KIND, ids=lambda step: type(step).__name__)
def test_every_kind_of_step_is_read_back_as_it_was(step):
    stored = encode_step(step)
    assert decode_step(stored) == step
    assert json.loads(stored)["v"] == CURRENT


@given(json_values)
def test_any_json_is_read_back_as_it_was(value):
    step = ToolReturned(call_id="c", tool="t", output=value)
    assert decode_step(encode_step(step)) == step


@given(st.dictionaries(st.text(), json_values))
def test_anything_else_is_refused_and_never_misread(stored):
    with pytest.raises(TranscriptError):
        decode_step(json.dumps({**stored, "v": stored.get("v", 0), "kind": stored.get("kind")}))


@pytest.mark.parametrize(
    "stored, says",
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "form None"),
        ('{"v": 99, "kind": "finished", "status": "completed"}', "form 99"),
        ('{"v": 1, "kind": "flown"}', "unknown kind 'flown'"),
        ('{"v": 1, "kind": "finished", "status": "completed", "mood": 1}', "unknown field mood"),
        ('{"v": 1, "kind": "finished"}', "damaged"),
        ('{"v": 1, "kind": "model_replied", "parts": [{"kind": "image"}]}', "unknown kind 'image'"),
        ('{"v": 1, "kind": "model_replied", "parts": 3}', "damaged"),
        ('{"v": 1, "minor": 7, "kind": "flown"}', "unknown kind 'flown'"),
        (
            '{"v": 1, "minor": 7, "kind": "model_replied", "parts": [{"kind": "image"}]}',
            "unknown kind 'image'",
        ),
        ('{"v": 1, "minor": 0, "kind": "finished", "status": "completed", "mood": 1}', "unknown field mood"),
        ('{"v": 1, "minor": true, "kind": "finished", "status": "completed"}', "minor number True"),
        ('{"v": 1, "minor": -1, "kind": "finished", "status": "completed"}', "minor number -1"),
        ('{"v": 1, "kind": "run_started", "run_id": "r", "agent": "a", "input": NaN}', "not JSON"),
        ('{"v": 1, "kind": "run_started", "run_id": "r", "agent": "a", "input": "\\ud800"}', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"v": 1, "kind": "unreadable", "stored_as": "x", "problem": "y"}', "never stored"),
        ('{"v": 1, "kind": "model_replied", "parts": [], "stop_reason": "bored"}', "damaged"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(stored, says):
    with pytest.raises(TranscriptError, match=says):
        decode_step(stored)


def test_additions_of_a_later_form_are_left_out():
    """Only where the step says that older readers may: at any depth, and not in the next step."""
    used = {"input_tokens": 3, "output_tokens": 1, "brightness": 4}
    later = {"v": 1, "minor": MINOR + 1, "kind": "model_replied", "mood": "good", "usage": used,
             "parts": [{"kind": "text", "text": "Hello.", "tone": "warm"}]}  # fmt: skip
    step = decode_step(json.dumps(later))
    assert step == ModelReplied(parts=(Text(text="Hello."),), usage=Usage(input_tokens=3, output_tokens=1))
    del later["minor"]
    with pytest.raises(TranscriptError, match="unknown field"):
        decode_step(json.dumps(later))


@pytest.mark.parametrize("stored", ["{", "[]", '{"v": 99, "kind": "finished"}', '{"v": 1, "kind": "flown"}'])
def test_a_step_that_cannot_be_read_is_shown_and_never_recorded(stored):
    shown = decode_shown(stored)
    assert isinstance(shown, Unreadable)
    assert shown.problem
    told = recorded_to_json(Recorded(seq=3, at=1.0, step=shown))
    assert recorded_shown(told) == Recorded(seq=3, at=1.0, step=shown)
    with pytest.raises(TranscriptError, match="could not be read"):
        encode_step(shown)


NOT_JSON = [
    *(
        float("nan"),
        float("inf"),
        "\ud800",
        {"\ud800": 1},
        {1: 2}.keys(),
        object(),
        Text(text="x"),
        type,
        iter([1]),
    ),
    *(
        {1},
        frozenset(),
        b"x",
        bytearray(b"x"),
        range(3),
        deque([1]),
        date(2026, 1, 1),
        Decimal("1.5"),
        Path("x"),
    ),
]


@pytest.mark.parametrize("value", [*NOT_JSON, *([value] for value in NOT_JSON)])
def test_what_json_cannot_express_is_refused(value):
    with pytest.raises(TranscriptError):
        encode_step(ToolReturned(call_id="c", tool="t", output=value))


def test_messages_are_stored_once():
    """A step holds its own part only, so a run of n steps takes space linear in n."""
    sizes = [
        len(encode_step(ModelReplied(parts=(Text(text="x"),), usage=Usage(input_tokens=n))))
        for n in (1, 10**6)
    ]
    assert sizes[1] - sizes[0] < 10


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("*.jsonl")), ids=lambda file: file.stem)
async def test_transcripts_of_earlier_releases_are_read_and_carried_on(file):
    """Each file was written by the release whose form it names, and ends before its run did."""
    steps = [recorded_from_json(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [recorded.seq for recorded in steps] == list(range(len(steps)))
    kinds = {json.loads(line)["kind"] for line in file.read_text(encoding="utf-8").splitlines()}
    assert kinds >= {
        "run_started",
        "model_replied",
        "tool_started",
        "tool_returned",
        "approval_asked",
        "run_retried",
    }
    outcome = await Agent(ScriptedModel(["done"])).run(journal=MemoryJournal(steps))
    assert isinstance(outcome, Completed)
    assert outcome.output == "done"


def test_the_current_form_has_a_fixture():
    assert (FIXTURES / f"v{CURRENT}.jsonl").exists()


def test_a_recorded_step_is_one_json_object():
    recorded = Recorded(seq=3, at=1.5, step=Finished(status="completed", output=1))
    stored = recorded_to_json(recorded)
    assert stored == {
        "seq": 3,
        "at": 1.5,
        "v": CURRENT,
        "kind": "finished",
        "status": "completed",
        "output": 1,
    }
    assert recorded_from_json(stored) == recorded


# --- folds -------------------------------------------------------------------------------------------------------


def recorded(*steps) -> list[Recorded]:
    return [Recorded(seq=seq, at=float(seq), step=step) for seq, step in enumerate(steps)]


def test_open_calls_are_those_of_the_last_reply_without_a_result():
    calls = tuple(ToolCall(id=f"c{n}", name="t") for n in range(3))
    steps = recorded(
        RunStarted(run_id="r", agent="a", input=""),
        ModelReplied(parts=(ToolCall(id="old", name="t"),)),
        ToolReturned(call_id="old", tool="t"),
        ModelReplied(parts=calls),
        ToolReturned(call_id="c1", tool="t"),
    )
    assert [owed.call.id for owed in open_calls(steps)] == ["c0", "c2"]
    assert open_calls(steps[:3]) == ()
    assert open_calls([]) == ()


def test_an_answer_to_another_question_opens_nothing():
    steps = recorded(
        RunStarted(run_id="r", agent="a", input=""),
        ModelReplied(parts=(ToolCall(id="c0", name="t"),)),
        EVERY_KIND[4],
        ApprovalGiven(approval_id="other", approved=True),
    )
    assert all(not owed.waiting and owed.answer is None for owed in open_calls(steps))


def test_usage_adds_up_and_unknown_costs_are_not_zero():
    first = ModelReplied(parts=(), usage=Usage(input_tokens=1, output_tokens=2))
    second = ModelReplied(parts=(), usage=Usage(input_tokens=10, output_tokens=20, cost_usd=0.5))
    assert usage(recorded(first, first)).tokens.cost_usd is None
    used = usage(recorded(RunStarted(run_id="r", agent="a", input=""), first, second))
    assert (used.steps, used.model_calls, used.tokens.tokens, used.tokens.cost_usd) == (3, 2, 33, 0.5)


def test_beginning_and_ending():
    steps = recorded(RunStarted(run_id="r", agent="a", input="x"), Finished(status="cancelled"))
    assert beginning(steps) == steps[0].step
    assert ending(steps) == steps[1].step
    assert beginning([]) is None
    assert ending(steps[:1]) is None


def test_a_good_turn_ends_a_row_of_faults():
    bad = ModelReplied(parts=(), problem="empty")
    good = ModelReplied(parts=(ToolCall(id="c", name="t"),))
    returned = ToolReturned(call_id="c", tool="t", output=1)
    assert RunningUsage.of(recorded(bad, bad)).faulty_turns == 2
    assert RunningUsage.of(recorded(bad, good, returned)).faulty_turns == 0
    assert RunningUsage.of(recorded(bad, good, returned, bad)).faulty_turns == 1
