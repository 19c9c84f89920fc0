"""Record and replay, through ``replay`` and an agent."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentkit import Agent, Completed, Failed, TextDelta, ToolCall, tool
from agentkit.errors import ModelOverloaded, UsageError
from agentkit.messages import (
    AssistantMessage,
    Attachment,
    ModelReply,
    ModelRequest,
    Reasoning,
    StopReason,
    Text,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentkit.models.openai.client import OpenAIModel
from agentkit.testing import RecordingDiffers, ScriptedModel, replay
from agentkit.testing.canonical import canonical
from agentkit.testing.models import as_reply
from agentkit.tools.builtin.everyday import everyday_tools
from agentkit.transcript.steps import ToolReturned

from .openai_server import events  # type: ignore[import-not-found]
from .wire_server import KEY, WireServer, as_events  # type: ignore[import-not-found]

pytest_plugins = ["pytester"]


@tool(effect="pure")
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


SCRIPT: list[Any] = [ToolCall(id="call_x", name="add", arguments={"a": 2, "b": 3}), "It is 5."]


def run(model, goal="2 + 3?", **options):
    return Agent(model, tools=[add], instructions="Be exact.").run_sync(goal, **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "run.jsonl"


@pytest.fixture
def recorded(path: Path) -> Path:
    with replay(path, model=ScriptedModel(SCRIPT)) as model:
        assert run(model).unwrap() == "It is 5."
    return path


def test_what_was_recorded_is_replayed_without_the_model(recorded):
    with replay(recorded, model="scripted:model") as model:
        outcome = run(model)
    assert isinstance(outcome, Completed)
    assert outcome.output == "It is 5."
    assert [reply.tool_calls for reply in _replies(outcome)] == [(SCRIPT[0],), ()]
    assert model.name == "scripted:model"


def test_with_a_recording_the_model_is_not_even_opened(recorded):
    silent = ScriptedModel([])
    with replay(recorded, model=silent) as model:
        run(model)
    assert silent.requests == []


def test_recording_anew_calls_the_model_again(recorded):
    with replay(recorded, model=ScriptedModel(["It is five."]), record="always") as model:
        assert run(model).unwrap() == "It is five."
    with replay(recorded, record="never") as model:
        assert run(model).unwrap() == "It is five."


def test_never_means_never(path):
    asked = ScriptedModel(["x"])
    with pytest.raises(UsageError, match="there is no recording"), replay(path, model=asked, record="never"):
        pass
    assert asked.requests == []
    assert not path.exists()


def test_a_word_that_is_no_mode_is_refused(path):
    with pytest.raises(UsageError, match="once, never, always"), replay(path, record="sometimes"):  # type: ignore[arg-type]
        pass


def test_a_different_request_says_what_differs_and_where(recorded):
    with pytest.raises(RecordingDiffers) as failure, replay(recorded) as model:
        outcome = run(model, "2 + 4?")
        assert isinstance(outcome, Failed)
        assert outcome.error.code == "recording_differs"
        assert not outcome.resumable
    assert 'messages[0].text: recorded "2 + 3?", asked "2 + 4?"' in str(failure.value)
    assert "nearest is number 1 of 2" in str(failure.value)
    assert str(recorded) in str(failure.value)


def test_the_difference_is_told_beside_the_tests_own_failure(recorded):
    with pytest.raises(ZeroDivisionError) as failure, replay(recorded) as model:
        run(model, "2 + 4?")
        raise ZeroDivisionError
    assert "2 + 4?" in failure.value.__notes__[0]


def test_another_tool_is_a_difference(recorded):
    @tool(effect="pure")
    def multiply(a: int, b: int) -> int:
        """Multiply two numbers."""
        return a * b

    with pytest.raises(RecordingDiffers, match=r"tools: 1 recorded, 2 asked; new .*multiply"):  # noqa: SIM117
        with replay(recorded) as model:
            Agent(model, tools=[add, multiply], instructions="Be exact.").run_sync("2 + 3?")


def test_a_long_text_is_shown_where_it_differs(path):
    long = "All work and no play makes Jack a dull boy. " * 50
    with replay(path, model=ScriptedModel(["yes"])) as model:
        run(model, long + "Right?")
    with pytest.raises(RecordingDiffers) as failure, replay(path) as model:
        run(model, long + "Wrong?")
    assert f"messages[0].text, character {len(long)}: " in str(failure.value)
    assert len(str(failure.value)) < 800


def test_less_than_was_recorded_is_a_difference(path):
    with replay(path, model=ScriptedModel(["one", "two"])) as model:
        assert [Agent(model).run_sync(goal).unwrap() for goal in ("a", "b")] == ["one", "two"]
    with pytest.raises(RecordingDiffers, match=r"never asked for: \[2\]"), replay(path) as model:
        Agent(model).run_sync("a").unwrap()


def test_a_request_that_is_made_too_often_is_a_difference(recorded):
    with pytest.raises(RecordingDiffers, match="recorded 1 times and is made once more"):  # noqa: SIM117
        with replay(recorded) as model:
            run(model)
            run(model)


def test_the_same_request_twice_gets_its_two_replies_in_order(path):
    for source in (ScriptedModel(["one", "two"]), None):
        with replay(path, model=source) as model:
            assert [Agent(model).run_sync("Say.").unwrap() for _ in range(2)] == ["one", "two"]


async def test_many_runs_at_once_get_each_their_own(path):
    def echo(request: ModelRequest) -> str:
        return f"heard {request.messages[0].text}"

    for source in (ScriptedModel([echo] * 20), None):
        with replay(path, model=source) as model:
            goals = [f"goal {number}" for number in range(20)]
            if source is None:
                goals.reverse()  # the order is no part of what was asked
            outcomes = await asyncio.gather(*(Agent(model).run(goal) for goal in goals))
            assert [outcome.unwrap() for outcome in outcomes] == [f"heard {goal}" for goal in goals]


async def test_streaming_is_replayed_piece_by_piece(path):
    def deltas_of(seen):
        return [event.text for event in seen if isinstance(event, TextDelta)]

    seen: list = []
    with replay(path, model=ScriptedModel(["One two three."])) as model:
        await Agent(model).run("Count.", on_event=seen.append)
    assert deltas_of(seen) == ["One ", "two ", "three."]
    again: list = []
    with replay(path) as model:
        await Agent(model).run("Count.", on_event=again.append)
    assert deltas_of(again) == deltas_of(seen)
    with replay(path) as model:
        assert (await Agent(model).run("Count.")).unwrap() == "One two three."


async def test_what_was_recorded_whole_can_be_watched(path):
    with replay(path, model=ScriptedModel(["One two three."])) as model:
        await Agent(model).run("Count.")
    seen: list = []
    with replay(path) as model:
        await Agent(model).run("Count.", on_event=seen.append)
    assert "".join(event.text for event in seen if isinstance(event, TextDelta)) == "One two three."


def test_everything_in_a_reply_comes_back(path):
    reply = ModelReply(
        parts=(Reasoning(text="hm\u2028", data={"signature": "Eq…"}), Text(text="naïve ☃ \x00 \u2029\n")),
        stop_reason=StopReason.LENGTH,
        usage=Usage(input_tokens=5, output_tokens=7, cached_tokens=2, reasoning_tokens=1, cost_usd=0.25),
        model="scripted:model-2026",
    )
    request = ModelRequest(messages=(UserMessage(text="Hi"),), stop=("END",), max_tokens=7, temperature=0.5)
    for source in (ScriptedModel([reply]), None):
        with replay(path, model=source) as model:
            assert asyncio.run(model.reply(request)) == reply


def test_a_failed_call_is_not_recorded(path):
    broken = ScriptedModel([SCRIPT[0], ModelOverloaded("busy")])
    with replay(path, model=broken) as model:
        assert isinstance(run(model), Failed)
    assert not path.exists()


def test_a_failed_test_is_not_recorded(path):
    with pytest.raises(ZeroDivisionError), replay(path, model=ScriptedModel(SCRIPT)) as model:
        run(model)
        raise ZeroDivisionError
    assert not path.exists()


def test_another_model_than_the_recorded_one_is_refused(recorded):
    with pytest.raises(UsageError, match="a recording of scripted:model, not of openai:gpt-6"):  # noqa: SIM117
        with replay(recorded, model="openai:gpt-6"):
            pass


def test_a_model_by_name_is_opened_to_record(path):
    for source in ("offline:planner", None):
        with replay(path, model=source) as model:
            outcome = Agent(model, tools=everyday_tools(".")).run_sync("What is 2 + 3?")
            assert "5" in outcome.unwrap()


def test_keys_and_secrets_stay_out_of_the_file(path):
    key = "sk-proj-0123456789abcdefghij"
    url = "postgresql://admin:hunter2@db/x"

    def script() -> list[Any]:
        call = ToolCall(id="c1", name="add", arguments={"a": 1, "b": 2, "token": key})
        return [call, f"Your key is {key}, your name is Rumpelstilz."]

    goal = f"Use {key} and Authorization: Bearer abcdefghijklmnop0123 at {url} for Rumpelstilz."
    seen: list = []
    with replay(path, model=ScriptedModel(script()), secrets=["Rumpelstilz"]) as model:
        asyncio.run(Agent(model, tools=[add]).run(goal, on_event=seen.append))
    text = path.read_text()
    for secret in (key, "abcdefghijklmnop0123", "hunter2", "Rumpelstilz"):
        assert secret not in text
    with replay(path, secrets=["Rumpelstilz"]) as model:
        outcome = asyncio.run(Agent(model, tools=[add]).run(goal))
    assert outcome.unwrap() == "Your key is [secret], your name is [secret]."


def test_what_may_differ_is_ignored(path):
    with replay(path, model=ScriptedModel(["Fine."]), ignore=[r"\d{4}-\d\d-\d\d"]) as model:
        run(model, "It is 2026-11-22. How are you?")
    with replay(path, ignore=[r"\d{4}-\d\d-\d\d"]) as model:
        assert run(model, "It is 2027-01-01. How are you?").unwrap() == "Fine."


def test_a_long_run_makes_a_file_of_linear_size(tmp_path):
    def size(turns: int) -> int:
        calls = [ToolCall(id=f"c{n}", name="add", arguments={"a": n, "b": n}) for n in range(turns)]
        with replay(tmp_path / f"{turns}.jsonl", model=ScriptedModel([*calls, "done"])) as model:
            run(model, limits=None)
        return (tmp_path / f"{turns}.jsonl").stat().st_size

    assert size(40) < 2.2 * size(20)


def test_a_file_reads_like_the_conversation(recorded):
    header, first, second = (json.loads(line) for line in recorded.read_text().splitlines())
    assert header == {"recording": 1, "model": "scripted:model"}
    assert first["request"]["instructions"] == "Be exact."
    assert first["request"]["messages"] == [{"is": "user_message", "text": "2 + 3?"}]
    assert second["request"]["after"] == 1
    assert [message["is"] for message in second["request"]["messages"]] == [
        "assistant_message",
        "tool_message",
    ]


@pytest.mark.parametrize("damage", ["", "{", '{"recording": 1}', '{"recording": 2, "model": "x:y"}', "[]"])
def test_a_damaged_file_is_named(path, damage):
    path.parent.mkdir()
    path.write_text(damage)
    with pytest.raises(UsageError, match=r"run\.jsonl"), replay(path):
        pass


def test_ids_of_calls_are_no_difference():
    def request(first: str, second: str) -> ModelRequest:
        calls = tuple(ToolCall(id=each, name="add") for each in (first, second))
        results = tuple(ToolMessage(call_id=each, name="add", content=each[-1]) for each in (first, second))
        return ModelRequest(messages=(AssistantMessage(parts=calls), *results))

    assert canonical(request("a1", "b2")) == canonical(request("x1", "y2"))
    crossed = request("a1", "b2")
    crossed = replace(crossed, messages=(crossed.messages[0], *reversed(crossed.messages[1:])))
    assert canonical(crossed) != canonical(request("a1", "b2"))


@pytest.mark.parametrize("planning", ["native", "react"])
async def test_which_parallel_call_ends_first_is_no_difference(path, planning):
    """The model, and so a recording, is told the results in the order of the calls."""
    if planning == "react":
        call = 'Thought: both.\nAction: {name}\nAction Input: {{"number": {n}}}\n'
        calls: Any = "".join(call.format(name="wait_for", n=number) for number in (1, 2, 3)).strip()
        script = [calls, "Thought: done.\nFinal Answer: 6"]
    else:
        calls = [ToolCall(id=f"c{n}", name="wait_for", arguments={"number": n}) for n in (1, 2, 3)]
        script = [calls, "6"]

    def agent(model, order):
        ended = {0: asyncio.Event(), **{number: asyncio.Event() for number in order}}
        ended[0].set()
        before = dict(zip(order, (0, *order), strict=False))

        @tool(effect="pure")
        async def wait_for(number: int) -> int:
            """Ends in an order of the test's own."""
            await ended[before[number]].wait()
            asyncio.get_running_loop().call_soon(ended[number].set)
            return number

        return Agent(model, tools=[wait_for], planning=planning)

    told: list[Any] = []
    with replay(path, model=ScriptedModel(script)) as model:
        outcome = await agent(model, (1, 2, 3)).run("Add them.")
        assert outcome.unwrap() == "6"
    for order in ((3, 2, 1), (2, 3, 1)):
        with replay(path, record="never") as model:
            outcome = await agent(model, order).run("Add them.")
        assert outcome.unwrap() == "6"
        told.append([one.step.output for one in outcome.transcript if isinstance(one.step, ToolReturned)])
    assert told == [[3, 2, 1], [2, 3, 1]], "in the transcript they stand as they came back"


def test_a_recording_in_the_order_of_completion_is_still_replayed(path):
    """As releases before this one wrote it."""
    calls = [ToolCall(id=f"c{n}", name="add", arguments={"a": n, "b": 1}) for n in (1, 2)]
    with replay(path, model=ScriptedModel([calls, "2 and 3"])) as model:
        run(model)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    new = [message for message in lines[2]["request"]["messages"] if message["is"] == "tool_message"]
    assert [message["content"] for message in new] == ["2", "3"]
    lines[2]["request"]["messages"] = [
        *[message for message in lines[2]["request"]["messages"] if message not in new],
        *reversed(new),
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with replay(path, record="never") as model:
        assert run(model).unwrap() == "2 and 3"


def test_a_recording_of_the_first_release_is_replayed(tmp_path):
    """A file as it was written by 0.1: whatever is changed, it must go on to work."""
    with replay(Path(__file__).parent / "fixtures" / "recording_v1.jsonl", record="never") as model:
        assert run(model).unwrap() == "It is 5."


async def test_a_wire_is_recorded_once_and_then_replayed_without_its_server(path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    picture = Attachment(media_type="image/png", data=b"PNG" * 1_000, name="lamp.png")
    given: dict[str, Any] = {"question": "What is this?", "picture": picture}
    agent = Agent(ScriptedModel([]), tools=[add], instructions="Look.")
    async with WireServer() as server, OpenAIModel("tiny", api_key=KEY, base_url=server.url) as real:
        for said in map(as_reply, SCRIPT):
            server.plan(as_events(events(said)))
        seen: list = []
        with replay(path, model=real) as model:
            first = await replace(agent, model=model).run(given, on_event=seen.append)
        assert len(server.journal) == 2
    text = path.read_text()
    assert KEY not in text
    assert "3000 bytes" in text  # a picture is compared by its digest
    assert len(text) < 4_000
    again: list = []
    with replay(path, model="openai:tiny") as model:
        second = await replace(agent, model=model).run(given, on_event=again.append)
    assert second.unwrap() == first.unwrap() == "It is 5."
    assert [each.text for each in again if isinstance(each, TextDelta)] == [
        each.text for each in seen if isinstance(each, TextDelta)
    ]
    other = {**given, "picture": replace(picture, data=b"GIF")}
    with pytest.raises(RecordingDiffers, match=r"attachments\[0\]\.data: recorded"), replay(path) as model:
        await replace(agent, model=model).run(other)


def test_the_pytest_fixture(pytester):
    pytester.makeconftest('pytest_plugins = ["agentkit.testing.pytest_plugin"]')
    pytester.makepyfile(
        test_sample="""
        from agentkit import Agent
        from agentkit.tools.builtin.everyday import everyday_tools

        def test_it_adds(recorded):
            with recorded("offline:planner") as model:
                outcome = Agent(model, tools=everyday_tools(".")).run_sync("What is 20 + 22?")
            assert "42" in outcome.unwrap()
        """
    )
    options = ("-p", "no:cacheprovider", "-q")
    pytester.runpytest_inprocess(*options, "--record=never").assert_outcomes(failed=1)
    pytester.runpytest_inprocess(*options).assert_outcomes(passed=1)
    assert (pytester.path / "recordings" / "test_sample.test_it_adds.jsonl").exists()
    pytester.runpytest_inprocess(*options, "--record=never").assert_outcomes(passed=1)


def _replies(outcome):
    return [
        recorded.step for recorded in outcome.transcript if type(recorded.step).__name__ == "ModelReplied"
    ]
