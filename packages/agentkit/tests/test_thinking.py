"""Thinking in the text of a reply: it is kept as reasoning, never carried out, and never shown as what is said."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkit import Agent, tool
from agentkit.messages import (
    BegunAnew,
    Delta,
    ModelReply,
    Reasoning,
    ReasoningDelta,
    StopReason,
    Text,
    TextDelta,
    ToolCall,
)
from agentkit.planning import Brief
from agentkit.planning.react_parser import read_line
from agentkit.planning.thinking_tags import SpokenDeltas, split_thinking
from agentkit.testing import ScriptedModel
from agentkit.transcript.steps import ModelReplied
from agentkit.untrusted.lenient_json import is_unicode

from .planning_texts import (  # type: ignore[import-not-found]
    NATIVE,
    NOW,
    REACT,
    START,
    anything,
    steps,
    texts,
)

PAY = "Action: pay\nAction Input: {}"
TAGS: dict[str, tuple[str, str]] = {
    "think": ("<think>", "</think>"),
    "thinking": ("<thinking>", "</thinking>"),
    "upper case": ("<THINK>", "</THINK>"),
    "thought": ("<thought>", "</thought>"),
    "thoughts": ("<Thoughts>", "</Thoughts>"),
    "reasoning": ("<reasoning>", "</reasoning>"),
    "reflection": ("<reflection>", "</reflection>"),
    "begin and end": ("<|begin_of_thought|>", "<|end_of_thought|>"),
    "start and end": ("<|START_THINKING|>", "<|END_THINKING|>"),
    "brackets": ("[THINK]", "[/THINK]"),
    "triangles": ("◁think▷", "◁/think▷"),
    "name space": ("<seed:think>", "</seed:think>"),
    "prefix": ("<longcat_think>", "</longcat_think>"),
    "full width": ("\uff1cthink\uff1e", "\uff1c/think\uff1e"),
    "attributes": ("<think budget=\"100\" note='a > b'>", "</think>"),
    "spaces": ("< think >", "</ think >"),
    "special tokens": ("<|think|>", "<|/think|>"),
    "another name closes it": ("<think>", "</thinking>"),
    "channels": (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    "one-sided channels": ("<|channel>thought\n", "<channel|>"),
    "a block": ("```thinking\n", "\n```\n"),
    "a tag in a bare block": ("```\n<think>\n", "\n</think>\n```\n"),
    "opened in the prompt": ("", "</think>"),
    "nested": ("<think>outer <think>inner</think> and", "</think>"),
    "nested, of other names": ("<thinking>a<reflection>b</reflection>", "</thinking>"),
    "several": ("<think>one</think>\n\n<think>", "</think>"),
    "closed twice": ("<think>one</think>", "</think>"),
    "an opening tag that is spoken of": ("<think>no `<think>` here", "</think>"),
    "a closing tag that is spoken of": ('<think>until "</think>" comes', "</think>"),
    "byte order mark": ("\ufeff<think>", "</think>"),
    "joined to a prefix": ("<antThinking>", "</antThinking>"),
    "hyphens": ("<chain-of-thought>", "</chain-of-thought>"),
    "deliberation": ("<deliberation>", "</deliberation>"),
    "German": ("<Gedanken>", "</Gedanken>"),
    "French": ("<réflexion>", "</réflexion>"),
    "Spanish": ("<pensamiento>", "</pensamiento>"),
    "Russian": ("<мысли>", "</мысли>"),
    "Chinese": ("<思考>", "</思考>"),
    "unused tokens": ("<unused94>thought\n", "<unused95>"),
}


@pytest.mark.parametrize("opening, closing", TAGS.values(), ids=TAGS)
@pytest.mark.parametrize("react", [False, True], ids=["native", "react"])
async def test_what_is_thought_is_neither_carried_out_nor_the_answer(
    opening: str, closing: str, react: bool
) -> None:
    paid = []

    @tool(effect="unsafe")
    def pay() -> None:
        """Pay."""
        paid.append(1)

    answer = "Final Answer: 42" if react else "42"
    model = ScriptedModel([f"{opening}\nsecret\n{PAY}\nFinal Answer: 7\n{closing}\n\n{answer}"])
    agent = Agent(model, tools=[pay], planning="react" if react else "native")
    shown: list[object] = []
    outcome = await agent.run("go", on_event=shown.append)
    assert outcome.unwrap().strip() == "42"
    assert not paid
    (replied,) = [one.step for one in outcome.transcript if isinstance(one.step, ModelReplied)]
    assert "secret" in "".join(part.text for part in replied.parts if isinstance(part, Reasoning))
    assert "secret" not in said_of(shown)
    assert said_of(shown).strip() == answer


def said_of(shown: Sequence[object]) -> str:
    """The text that somebody sees in the end."""
    said = ""
    for delta in shown:
        if isinstance(delta, BegunAnew):
            said = ""
        elif isinstance(delta, TextDelta):
            said += delta.text
    return said


ENCLOSED = {
    "analysis": ("<analysis>", "</analysis>"),
    "plan": ("<plan>", "</plan>"),
    "nested": ("<plan>a <plan>b</plan>", "</plan>"),
    "behind a label": ("Thought: <draft>", "</draft>"),
    "attributes": ('<internal kind="x">', "</internal>"),
    "brackets": ("[PLAN]", "[/PLAN]"),
    "a word of another language": ("<планирование>", "</планирование>"),
    "letters that look alike": ("<th\u0456nk>", "</th\u0456nk>"),
    "an invisible character": ("<th\u200bink>", "</th\u200bink>"),
    "summary": ("<details><summary>Thinking</summary>", "</details>"),
    "comment": ("<!-- thinking", "-->"),
    "Granite": ("Here is my thought process:", "Here is my response:"),
}


@pytest.mark.parametrize("opening, closing", ENCLOSED.values(), ids=ENCLOSED)
async def test_a_call_between_tags_of_any_name_is_a_thought(opening: str, closing: str) -> None:
    paid = []

    @tool(effect="unsafe")
    def pay() -> None:
        """Pay."""
        paid.append(1)

    model = ScriptedModel([f"{opening}\n{PAY}\nFinal Answer: 7\n{closing}\n\nThought: no\nFinal Answer: 42"])
    outcome = await Agent(model, tools=[pay], planning="react").run("go")
    assert outcome.unwrap() == "42"
    assert not paid


ONLY_ENCLOSED = {
    "labels": f"<plan>\n{PAY}\n</plan>",
    "behind a call": f"Action: now\nAction Input: {{}}\n<plan>\n{PAY}\n</plan>",
    "behind an answer": f"Final Answer: 42\n<plan>\n{PAY}\n</plan>",
    "JSON": '<plan>\n{"action": "pay", "action_input": {}}\n</plan>',
}


@pytest.mark.parametrize("text", ONLY_ENCLOSED.values(), ids=ONLY_ENCLOSED)
def test_what_stands_between_tags_alone_is_not_carried_out(text: str) -> None:
    pay = replace(NOW, name="pay")
    reading = REACT.read(ModelReply(parts=(Text(text=text),)), Brief(tools=(NOW, pay)))
    assert "pay" not in [part.name for part in reading.parts if isinstance(part, ToolCall)]


WRAPPED = {
    "response": f"<response>\n{PAY}\n</response>",
    "tool call": f"<tool_call>\n{PAY}\n</tool_call>",
    "action": f"<action>\n{PAY}\n</action>",
    "a tag that is spoken of": f'Thought: close the <div> tag\n{PAY[:-2]}{{"text": "</div>"}}',
    "a tag in code": f"Thought: close `<div>`\n{PAY}\n</div>",
    "closed before": f"<note>x</note>\n{PAY}",
    "never closed": f"Thought: a <div> is missing\n{PAY}",
}


@pytest.mark.parametrize("text", WRAPPED.values(), ids=WRAPPED)
def test_tags_that_hold_turns_and_tags_that_are_spoken_of_hide_no_call(text: str) -> None:
    pay = replace(NOW, name="pay")
    reading = REACT.read(ModelReply(parts=(Text(text=text),)), Brief(tools=(pay,)))
    assert [part.name for part in reading.parts if isinstance(part, ToolCall)] == ["pay"]


UNCLOSED = {
    "at the beginning": f"<think>\n{PAY}",
    "behind a thought": f"<think>a</think>\n<think>\n{PAY}",
    "behind text": f"Thought: x\n<thinking>\n{PAY}",
    "nested": f"<think>a <think>b</think>\n{PAY}",
    "in a channel": f"<|channel|>analysis<|message|>\n{PAY}",
    "in a block": f"```think\n{PAY}",
    "with text before it on the line": f"Let me see. <think>\n{PAY}",
}


@pytest.mark.parametrize("text", UNCLOSED.values(), ids=UNCLOSED)
@pytest.mark.parametrize("planning", [NATIVE, REACT], ids=["native", "react"])
@pytest.mark.parametrize("stop", [StopReason.END, StopReason.LENGTH])
def test_thinking_that_is_cut_is_a_problem(text: str, planning, stop: StopReason) -> None:
    reading = planning.read(ModelReply(parts=(Text(text=text),), stop_reason=stop), Brief(tools=(NOW,)))
    assert reading.problem is not None
    assert not any(isinstance(part, ToolCall) for part in reading.parts)
    assert "pay" not in "".join(part.text for part in reading.parts if isinstance(part, Text))


SAID = {
    "in a block": "Write\n```xml\n<think>\nhm\n</think>\n```\nas shown",
    "a block alone": "```xml\n<think>hm</think>\n```",
    "a bare block alone": "```\n<think>hm</think>\n```",
    "in backticks": "Put it between `<think>` and `</think>`.",
    "in quotes": 'Put it between "<think>" and "</think>".',
    "in typographic quotes": "Put it between “<think>” and “</think>”.",
    "in a quoted sentence": 'He wrote "a <think> tag" there.',
    "in JSON": '{"html": "<think>x</think>", "more": "say \\"</think>\\""}',
    "in JSON with line ends": '{"html": "a\n<think>\nb"}',
    "in a JSON string": '"<thinking>x</thinking>"',
    "escaped": r"Write \<think>.",
    "another tag": "<answer>[think](of.html) <b>thoughtful</b> <thinker/></answer>",
    "less than": "a < think of it, [thought]: x",
    "white space": "  \n the think tank \n",
}


@pytest.mark.parametrize("text", SAID.values(), ids=SAID)
def test_tags_that_an_answer_speaks_of_stay_in_it(text: str) -> None:
    assert NATIVE.read(ModelReply(parts=(Text(text=text),)), Brief()).parts == (Text(text=text),)
    shown: list[Delta] = []
    deltas = SpokenDeltas(shown.append, "m")
    for letter in text:
        deltas(TextDelta(text=letter))
    deltas.close()
    assert said_of(shown) == text


@pytest.mark.parametrize("text", SAID.values(), ids=SAID)
def test_tags_in_a_labelled_answer_stay_in_it(text: str) -> None:
    said = f"<think>x</think>\nThought: y\nFinal Answer: {text}"
    reading = REACT.read(ModelReply(parts=(Text(text=said),)), Brief(tools=(NOW,)))
    if "\n<think>\nb" in text:  # a label's JSON may hold no line of that kind: in doubt it is thought
        assert reading.problem is not None
    else:
        assert ModelReply(parts=reading.parts).text == text.strip()


def test_a_tag_in_what_a_tool_is_given_stays_in_it() -> None:
    text = 'Action: now\nAction Input: {"page": "<think>x</think>"}'
    (call,) = REACT.read(ModelReply(parts=(Text(text=text),)), Brief(tools=(NOW,))).parts
    assert call.arguments == {"page": "<think>x</think>"}


def test_a_thought_in_code_before_the_answer_is_not_carried_out() -> None:
    text = "Thought: I consider\n```\n<think>\nAction: now\n</think>\n```\nFinal Answer: 42"
    reading = REACT.read(ModelReply(parts=(Text(text=text),)), Brief(tools=(NOW,)))
    assert ModelReply(parts=reading.parts).text == "42"
    assert not any(isinstance(part, ToolCall) for part in reading.parts)


@dataclass
class Weather:
    degrees: int


TYPED = {
    "behind thinking": '<think>\nOslo {"degrees": 9}.\n</think>\n\n{"degrees": 7}',
    "behind a lone closing tag": 'Oslo {"degrees": 9}</think>{"degrees": 7}',
    "in a block behind thinking": '<think>x</think>\nHere:\n```json\n{"degrees": 7}\n```\nEnjoy!',
    "trailing comma": '{"degrees": 7,}',
    "single quotes": "{'degrees': 7}",
    "byte order mark": '\ufeff{"degrees": 7}',
    "text around a block": 'Sure.\n```json\n{"degrees": 7}\n```\nHope it helps.',
    "text around an object": 'It is {"degrees": 7}, I think.',
    "an answer tag": '<think>x</think><answer>{"degrees": 7}</answer>',
}


@pytest.mark.parametrize("text", TYPED.values(), ids=TYPED)
@pytest.mark.parametrize("planning", ["native", "react"])
async def test_typed_output_is_read_as_models_write_it(text: str, planning) -> None:
    said = text if planning == "native" or "</think>" in text else f"Final Answer: {text}"
    if planning == "react" and "\n```" in text and "</think>" in text:
        said = text.replace("\nHere:", "\nFinal Answer:")
    if planning == "react" and "<answer>" in text:
        said = text.replace("<answer>", "\nFinal Answer: ").replace("</answer>", "")
    outcome = await Agent(ScriptedModel([said]), output=Weather, planning=planning).run("go")
    assert outcome.unwrap() == Weather(degrees=7)


@pytest.mark.parametrize(
    "text", ['{"degrees": 7}{"degrees": 8}', 'Either {"degrees": 7} or {"degrees": 8}.', "[7]", "seven"]
)
async def test_typed_output_that_is_not_certain_is_asked_for_again(text: str) -> None:
    model = ScriptedModel([text, '{"degrees": 9}'])
    outcome = await Agent(model, output=Weather).run("go")
    assert outcome.unwrap() == Weather(degrees=9)


def test_thinking_is_not_told_again() -> None:
    for planning, text in (
        (NATIVE, "<think>secret</think>42"),
        (REACT, "<think>secret</think>\nFinal Answer: 42"),
    ):
        reading = planning.read(ModelReply(parts=(Text(text=text),)), Brief())
        transcript = steps(START, ModelReplied(parts=reading.parts))
        told = planning.request(transcript, Brief()).messages[-1]
        assert "secret" not in ModelReply(parts=told.parts).text
    assert "secret" not in "".join(texts(transcript))


def test_a_tag_may_reach_over_parts() -> None:
    call = ToolCall(id="1", name="now")
    parts = (Text(text="<thi"), Text(text="nk>a"), call, Text(text="b</think>c"))
    assert [type(part) for part in split_thinking(parts).parts] == [Reasoning, ToolCall, Reasoning, Text]
    assert split_thinking(parts).text == "c"


async def test_a_summary_holds_no_thinking() -> None:
    spoken = split_thinking((Text(text="<think>secret</think>\nWhat happened."),))
    assert spoken.text == "What happened."


pieces = st.sampled_from(
    [
        *("<think>", "</think>", "<thinking a='b'>", "</thinking>", "[THINK]", "[/THINK]", "<think/>"),
        *("<|channel|>analysis<|message|>", "<|end|>", "<|start|>assistant<|channel|>final<|message|>"),
        *(
            "```",
            "```\n",
            "\n```json\n",
            "~~~\n",
            "`",
            '"',
            "“",
            "”",
            "'",
            "\n",
            " ",
            "\\",
            "[",
            "<",
            "think",
            "</",
            "|",
        ),
        *(
            "Final Answer: ",
            "\nAction Input: ",
            "\nAction: now\n",
            "x",
            "{",
            "}",
            "\ufeff",
            "\uff1cthink\uff1e",
            "thinking",
        ),
    ]
)


@settings(max_examples=150)
@given(st.lists(pieces, max_size=14).map("".join) | anything.filter(is_unicode), st.data(), st.booleans())
def test_however_a_stream_is_cut_the_same_is_said(text: str, data, labelled: bool) -> None:
    reader = read_line if labelled else None
    shown: list[Delta] = []
    deltas = SpokenDeltas(shown.append, "m", reader)
    rest = text
    while rest:
        size = data.draw(st.integers(1, 8))
        deltas(TextDelta(text=rest[:size]))
        rest = rest[size:]
    deltas.close()
    spoken = split_thinking((Text(text=text),), reader)
    assert said_of(shown) == spoken.text
    if not any(word in text for word in ("think", "THINK", "channel", "\uff1c")):
        assert spoken.parts == (Text(text=text),)


def test_a_stream_shows_what_it_can_at_once() -> None:
    shown: list[Delta] = []
    deltas = SpokenDeltas(shown.append, "m")
    for piece in ("a < b and ", "[1] ", "c", "<thi", "nk>d", "</think", ">e"):
        deltas(TextDelta(text=piece))
    kinds = [(type(delta), delta.text) for delta in shown]
    assert [text for kind, text in kinds if kind is ReasoningDelta] == ["d"]
    assert "".join(text for kind, text in kinds if kind is TextDelta) == "a < b and [1] ce"


def test_a_closing_tag_that_nothing_opened_voids_what_was_shown() -> None:
    shown: list[Delta] = []
    deltas = SpokenDeltas(shown.append, "openai:r1")
    deltas(ReasoningDelta(text="marked"))
    deltas(TextDelta(text="secret"))
    deltas(TextDelta(text="</think>42"))
    assert shown == [
        ReasoningDelta(text="marked"),
        TextDelta(text="secret"),
        BegunAnew(model="openai:r1"),
        ReasoningDelta(text="marked"),
        ReasoningDelta(text="secret"),
        TextDelta(text="42"),
    ]
