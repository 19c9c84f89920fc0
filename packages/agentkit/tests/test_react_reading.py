"""How a reply in text is read: thoughts, calls, answers, and whatever else comes."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentkit.messages import (
    DECLINED,
    AssistantMessage,
    ModelReply,
    Part,
    Reasoning,
    StopReason,
    Text,
    ToolCall,
)
from agentkit.planning import Brief, Reading
from agentkit.transcript.codec import decode_step, encode_step
from agentkit.transcript.steps import ModelReplied
from agentkit.untrusted.lenient_json import MAX_DEPTH

from .planning_texts import (  # type: ignore[import-not-found]
    BRIEF,
    NATIVE,
    REACT,
    START,
    SUM,
    anything,
    call,
    read,
    reply,
    steps,
    texts,
    think,
    thought,
    tool,
)


def invalid(name: str, raw: str) -> ToolCall:
    return ToolCall(id="", name=name, invalid=raw)


CATS = call("search", query="cats")


# --- what is read -------------------------------------------------------------------------------------------------


READ: dict[str, tuple[str, tuple[Part, ...]]] = {
    "plain": (
        'Thought: I add.\nAction: add\nAction Input: {"a": 1, "b": 2}',
        (think("I add."), SUM),
    ),
    "lower case": ('thought: I add.\naction: add\naction input: {"a": 1, "b": 2}', (think("I add."), SUM)),
    "upper case": ('ACTION: add\nACTION INPUT: {"a": 1, "b": 2}', (SUM,)),
    "carriage returns": ('Action: add\r\nAction Input: {"a": 1, "b": 2}\r\n', (SUM,)),
    "no thought": ('Action: add\nAction Input: {"a": 1, "b": 2}', (SUM,)),
    "a preface is a thought": (
        'Sure!\n\nAction: add\nAction Input: {"a": 1, "b": 2}',
        (think("Sure!"), SUM),
    ),
    "thought of many lines": (
        "Thought: one\ntwo\n\nthree\nAction: now",
        (think("one\ntwo\n\nthree"), call("now")),
    ),
    "two thoughts": ("Thought: one\nThought: two\nAction: now", (think("one"), think("two"), call("now"))),
    "indented": ('  Thought: x\n  Action: add\n  Action Input: {"a": 1, "b": 2}', (think("x"), SUM)),
    "bold": ('**Thought:** x\n**Action:** add\n**Action Input:** {"a": 1, "b": 2}', (think("x"), SUM)),
    "bold without its colon": ('**Action**: add\n**Action Input**: {"a": 1, "b": 2}', (SUM,)),
    "bold line": ("**Action: search**\n**Action Input: cats**", (CATS,)),
    "italic": ("*Action:* search\n_Action Input:_ cats", (CATS,)),
    "headings": ('### Action\nadd\n### Action Input\n{"a": 1, "b": 2}', (SUM,)),
    "headings with colons": ('## Action: add\n## Action Input: {"a": 1, "b": 2}', (SUM,)),
    "bold lines of their own": ("**Action**\nsearch\n**Action Input**\ncats", (CATS,)),
    "bullets": ("- Thought: x\n- Action: search\n- Action Input: cats", (think("x"), CATS)),
    "numbered list": ("1. Thought: x\n2. Action: search\n3. Action Input: cats", (think("x"), CATS)),
    "numbered labels": ("Thought 1: x\nAction 1: search\nAction Input 1: cats", (think("x"), CATS)),
    "number in the middle": ("Action 1: search\nAction 1 Input: cats", (CATS,)),
    "wide colon": ("Action:search\nAction Input:cats", (CATS,)),
    "underscores": ("action: search\naction_input: cats", (CATS,)),
    "backticks": ("Action: `search`\nAction Input: `cats`", (CATS,)),
    "quotes": ("Action: \"search\"\nAction Input: 'cats'", (CATS,)),
    "square brackets": ("Action: [search]\nAction Input: cats", (CATS,)),
    "full stop": ("Action: search.\nAction Input: cats", (CATS,)),
    "another case of the name": ("Action: Search\nAction Input: cats", (CATS,)),
    "name, then prose": ("Action: search for cats\nAction Input: cats", (CATS,)),
    "tool and input": ("Tool: search\nInput: cats", (CATS,)),
    "tool name and arguments": ('Tool Name: search\nArguments: {"query": "cats"}', (CATS,)),
    "tool and args": ('Tool: search\nArgs: {"query": "cats"}', (CATS,)),
    "action and parameters": ('Action: search\nParameters: {"query": "cats"}', (CATS,)),
    "tool input": ('Tool: search\nTool Input: {"query": "cats"}', (CATS,)),
    "called": ('Action: search(query="cats")', (CATS,)),
    "called by position": ("Action: add(1, 2)", (SUM,)),
    "called half by name": ("Action: add(1, b=2)", (SUM,)),
    "called with an object": ('Action: add({"a": 1, "b": 2})', (SUM,)),
    "called with a bare text": ("Action: search(big cats)", (call("search", query="big cats"),)),
    "called with two texts": ('Action: search("cats", 3)', (call("search", query="cats", limit=3),)),
    "called with nothing": ("Action: now()", (call("now"),)),
    "called in backticks": ('Action: `search(query="cats")`', (CATS,)),
    "brackets of the paper": ("Action: search[cats]", (CATS,)),
    "brackets and two numbers": ("Action: add[1, 2]", (SUM,)),
    "input on the same line": ('Action: add Action Input: {"a": 1, "b": 2}', (SUM,)),
    "object on the same line": ('Action: add {"a": 1, "b": 2}', (SUM,)),
    "object after a colon": ('Action: add: {"a": 1, "b": 2}', (SUM,)),
    "object below without a label": ('Action: add\n{"a": 1, "b": 2}', (SUM,)),
    "block below without a label": ('Action: add\n```json\n{"a": 1, "b": 2}\n```', (SUM,)),
    "input on the next line": ('Action: add\nAction Input:\n{"a": 1, "b": 2}', (SUM,)),
    "label and name on two lines": ('Action:\nadd\nAction Input:\n{"a": 1, "b": 2}', (SUM,)),
    "pretty-printed": ('Action: add\nAction Input: {\n  "a": 1,\n  "b": 2\n}\n', (SUM,)),
    "code block": ('Action: add\nAction Input:\n```json\n{"a": 1, "b": 2}\n```', (SUM,)),
    "code block without language": ('Action: add\nAction Input:\n```\n{"a": 1, "b": 2}\n```', (SUM,)),
    "code block on one line": ('Action: add\nAction Input: ```{"a": 1, "b": 2}```', (SUM,)),
    "code block that is not closed": ('Action: add\nAction Input: ```json\n{"a": 1, "b": 2}', (SUM,)),
    "tildes": ('Action: add\nAction Input:\n~~~\n{"a": 1, "b": 2}\n~~~', (SUM,)),
    "name in a block": ('Action:\n```\nadd\n```\nAction Input: {"a": 1, "b": 2}', (SUM,)),
    "all in a block": (
        '```\nThought: x\nAction: add\nAction Input: {"a": 1, "b": 2}\n```',
        (think("x"), SUM),
    ),
    "text after the object": ('Action: add\nAction Input: {"a": 1, "b": 2} and then I wait.', (SUM,)),
    "lines after the object": ('Action: add\nAction Input: {"a": 1, "b": 2}\nThe sum is 3.', (SUM,)),
    "single quotes": ("Action: search\nAction Input: {'query': 'cats'}", (CATS,)),
    "apostrophe": (
        "Action: search\nAction Input: {'query': 'it\\'s \"x\"'}",
        (call("search", query='it\'s "x"'),),
    ),
    "trailing commas": (
        'Action: total\nAction Input: {"numbers": [1, 2,],}',
        (call("total", numbers=[1, 2]),),
    ),
    "Python's words": (
        "Action: x\nAction Input: {'a': True, 'b': False, 'c': None, 'd': (1, 2)}",
        (call("x", a=True, b=False, c=None, d=[1, 2]),),
    ),
    "keys without quotes": ("Action: add\nAction Input: {a: 1, b: 2}", (SUM,)),
    "line breaks in a string": (
        'Action: search\nAction Input: {"query": "a\nb\tc"}',
        (call("search", query="a\nb\tc"),),
    ),
    "labels in a string": (
        'Action: search\nAction Input: {"query": "a\nAction: now\nObservation: no"}',
        (call("search", query="a\nAction: now\nObservation: no"),),
    ),
    "a pattern": (
        r"Action: search" + "\n" + r'Action Input: {"query": "\d+"}',
        (call("search", query=r"\d+"),),
    ),
    "escapes": (
        r"Action: search" + "\n" + r"Action Input: {'query': '\x41\u00e9\ud83d\ude00\n\\'}",
        (call("search", query="Aé😀\n\\"),),
    ),
    "bare text": ("Action: search\nAction Input: cats and dogs", (call("search", query="cats and dogs"),)),
    "bare text of many lines": (
        "Action: search\nAction Input: cats\nand dogs",
        (call("search", query="cats\nand dogs"),),
    ),
    "bare text with labels in a block": (
        "Action: search\nAction Input:\n```python\nx = 1\nAction: now\n```\nthanks",
        (call("search", query="x = 1\nAction: now"),),
    ),
    "bare string": ('Action: search\nAction Input: "cats"', (CATS,)),
    "bare number for a text": ("Action: search\nAction Input: 42", (call("search", query="42"),)),
    "bare number for a number": ("Action: square\nAction Input: 42", (call("square", n=42),)),
    "bare word for a number": ("Action: square\nAction Input: five", (call("square", n="five"),)),
    "bare list": ("Action: total\nAction Input: [1, 2]", (call("total", numbers=[1, 2]),)),
    "bare text that cites": (
        "Action: search\nAction Input: [1] is wrong",
        (call("search", query="[1] is wrong"),),
    ),
    "named without brackets": ('Action: search\nAction Input: query="cats"', (CATS,)),
    "no parameters, no input": ("Thought: time\nAction: now", (think("time"), call("now"))),
    "no parameters, empty input": ("Action: now\nAction Input:", (call("now"),)),
    "no parameters, none": ("Action: now\nAction Input: None", (call("now"),)),
    "no parameters, empty object": ("Action: now\nAction Input: {}", (call("now"),)),
    "no parameters, empty string": ('Action: now\nAction Input: ""', (call("now"),)),
    "optional parameters, no input": ("Action: list_files", (call("list_files"),)),
    "optional parameter, bare": (
        "Action: list_files\nAction Input: src",
        (call("list_files", folder="src"),),
    ),
    "several": (
        'Thought: both\nAction: add\nAction Input: {"a": 1, "b": 2}\nAction: search\nAction Input: cats',
        (think("both"), SUM, CATS),
    ),
    "several without inputs": (
        "Action: now\nAction: list_files\nAction: now",
        (call("now"), call("list_files"), call("now")),
    ),
    "several with thoughts between": (
        "Thought: a\nAction 1: now\nThought: b\nAction 2: search\nAction Input 2: cats",
        (think("a"), call("now"), think("b"), CATS),
    ),
    "object with action": ('{"action": "search", "action_input": {"query": "cats"}}', (CATS,)),
    "object with a bare input": ('{"action": "search", "action_input": "cats"}', (CATS,)),
    "object in a block": ('```json\n{"action": "search", "action_input": "cats"}\n```', (CATS,)),
    "object after a thought": (
        'Thought: x\n```json\n{"action": "search", "action_input": "cats"}\n```',
        (think("x"), CATS),
    ),
    "object after the label": (
        'Action:\n```json\n{"action": "search", "action_input": "cats"}\n```',
        (CATS,),
    ),
    "object with name and arguments": ('Action: {"name": "add", "arguments": {"a": 1, "b": 2}}', (SUM,)),
    "object with arguments as a text": ('{"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": 2}"}', (SUM,)),
    "object with spaces in its keys": ('{"Action": "search", "Action Input": "cats"}', (CATS,)),
    "object without input": ('{"action": "now"}', (call("now"),)),
    "list of objects": (
        '[{"action": "add", "action_input": {"a": 1, "b": 2}}, {"action": "search", "action_input": "cats"}]',
        (SUM, CATS),
    ),
    "list of objects after the label": ('Action: [{"action": "now", "action_input": null}]', (call("now"),)),
    "object that answers": ('{"action": "Final Answer", "action_input": "42"}', (Text(text="42"),)),
    "object that answers in JSON": (
        '{"action": "final_answer", "action_input": {"n": 4}}',
        (Text(text='{"n": 4}'),),
    ),
    "answer": ("Final Answer: 42", (Text(text="42"),)),
    "answer after a thought": ("Thought: done\nFinal Answer: 42", (think("done"), Text(text="42"))),
    "answer, short label": ("Answer: 42", (Text(text="42"),)),
    "answer, bold": ("**Final Answer:** 42", (Text(text="42"),)),
    "answer, bold line": ("**Final Answer: 42**", (Text(text="42"),)),
    "answer, bold itself": ("Final Answer: **42**", (Text(text="**42**"),)),
    "answer, heading": ("### Final Answer\n\n42", (Text(text="42"),)),
    "answer of many lines": ("Final Answer: one\n\n- two\n- three\n", (Text(text="one\n\n- two\n- three"),)),
    "answer with labels in a block": (
        "Final Answer: write\n```\nThought: x\nAction: now\nObservation: y\n```\nas shown",
        (Text(text="write\n```\nThought: x\nAction: now\nObservation: y\n```\nas shown"),),
    ),
    "answer that is a block": (
        "Final Answer: ```\nAction: now\n```",
        (Text(text="```\nAction: now\n```"),),
    ),
    "answer with words that look like labels": (
        "Final Answer: Plan\nAction: restart it\nObservation: slow\nAction: search the log\nInput: none",
        (Text(text="Plan\nAction: restart it\nObservation: slow\nAction: search the log\nInput: none"),),
    ),
    "answer in a block of everything": (
        "```\nThought: x\nFinal Answer: 42\n```",
        (think("x"), Text(text="42")),
    ),
    "answer as an action": ("Action: Final Answer\nAction Input: 42", (Text(text="42"),)),
    "answer as the paper's action": ("Thought: x\nAction: Finish[42]", (think("x"), Text(text="42"))),
    "answer as a call": ('Action: finish("42")', (Text(text="42"),)),
    "no action, then the answer": (
        "Thought: x\nAction: None\nFinal Answer: 42",
        (think("x"), Text(text="42")),
    ),
    "the action wins over a later answer": (
        "Action: search\nAction Input: cats\nFinal Answer: 9 lives",
        (CATS,),
    ),
    "the action wins over an earlier answer": (
        "Final Answer: 9 lives\nAction: search\nAction Input: cats",
        (CATS,),
    ),
    "made-up observation": (
        "Action: search\nAction Input: cats\nObservation: 9 lives\nThought: I know\nFinal Answer: 9",
        (CATS,),
    ),
    "made-up observation, bold": (
        "Action: search\nAction Input: cats\n**Observation:** 9\nAction: now",
        (CATS,),
    ),
    "made-up observation, numbered": (
        "Action 1: search[cats]\nObservation 1: 9\nAction 2: Finish[9]",
        (CATS,),
    ),
    "weak labels in a thought": (
        "Thought: my\nInput: is x\nArgs: y\nAction: now",
        (think("my\nInput: is x\nArgs: y"), call("now")),
    ),
    "escaped labels": (
        "Thought: see\n\\Action: now\n\\\\Observation: x\nFinal Answer: 1",
        (think("see\nAction: now\n\\Observation: x"), Text(text="1")),
    ),
    "thinking tags": (
        "<think>\nAction: now?\nno\n</think>\nAction: search\nAction Input: cats",
        (thought("Action: now?\nno"), CATS),
    ),
    "full-width labels": (
        '\uff34\uff48\uff4f\uff55\uff47\uff48\uff54\uff1a x\nAction\uff1asearch\nAction Input\uff1a{"query": "cats"}',
        (think("x"), CATS),
    ),
    "object in an object": (
        '{"tool_call": {"action": "search", "action_input": {"query": "cats"}}}',
        (CATS,),
    ),
    "calls of OpenAI's form": (
        (
            '{"tool_calls": [{"type": "function", '
            '"function": {"name": "search", "arguments": "{\\"query\\": \\"cats\\"}"}}]}'
        ),
        (CATS,),
    ),
    "triple quotes": (
        'Action: search\nAction Input: {"query": """a "b"\nc""", "limit": 2}',
        (call("search", query='a "b"\nc', limit=2),),
    ),
    "triple single quotes": (
        "Action: search\nAction Input: {'query': '''a 'b'\nc'''}",
        (call("search", query="a 'b'\nc"),),
    ),
    "no action, with a reason, then the answer": (
        "Thought: x\nAction: None (direct response required)\nFinal Answer: 42",
        (think("x"), Text(text="42")),
    ),
    "no action, with the answer below": ("Action: N/A\n\nIt is 42.", (Text(text="It is 42."),)),
    "an example that the answer announces": (
        'Final Answer: Write this:\nAction: search\nAction Input: {"query": "cats"}',
        (Text(text='Write this:\nAction: search\nAction Input: {"query": "cats"}'),),
    ),
    "an example within the answer": (
        'Final Answer: The form\nAction: search\nAction Input: {"query": "cats"}\nis what you need.',
        (Text(text='The form\nAction: search\nAction Input: {"query": "cats"}\nis what you need.'),),
    ),
    "an answer without a label, behind thinking": (
        "<think>\nEasy.\n</think>\nIt is 42.",
        (thought("Easy."), Text(text="It is 42.")),
    ),
    "unknown tool": ('Action: fly\nAction Input: {"to": "x"}', (call("fly", to="x"),)),
    "unknown tool without input": ("Action: fly", (call("fly"),)),
    "unknown tool, bare input": ("Action: fly\nAction Input: away", (invalid("fly", "away"),)),
    "not JSON": ("Action: add\nAction Input: one and two", (invalid("add", "one and two"),)),
    "broken JSON": (
        'Action: search\nAction Input: {"query": "cats"',
        (invalid("search", '{"query": "cats"'),),
    ),
    "broken JSON beside a good call": (
        'Action: add\nAction Input: {"a": 1,\nAction: search\nAction Input: {"query": "cats"}',
        (invalid("add", '{"a": 1,'), CATS),
    ),
    "not a number": (
        'Action: add\nAction Input: {"a": NaN, "b": 1}',
        (invalid("add", '{"a": NaN, "b": 1}'),),
    ),
    "infinite": ('Action: add\nAction Input: {"a": 1e999}', (invalid("add", '{"a": 1e999}'),)),
    "lone surrogate": (
        'Action: search\nAction Input: {"query": "\\ud800"}',
        (invalid("search", '{"query": "\\ud800"}'),),
    ),
    "input for a tool without parameters": ("Action: now\nAction Input: soon", (invalid("now", "soon"),)),
}


@pytest.mark.parametrize("text, parts", READ.values(), ids=READ)
def test_react_reads(text: str, parts: tuple[Part, ...]) -> None:
    assert read(text) == Reading(parts=parts)


UNREADABLE: dict[str, tuple[str, str]] = {
    "nothing": ("", "it is empty"),
    "white space": (" \n\t ", "it is empty"),
    "no label": ("The answer is 42.", "neither an `Action:` nor a `Final Answer:`"),
    "only a thought": ("Thought: I should search.", "neither an `Action:` nor a `Final Answer:`"),
    "only JSON": ('{"query": "cats"}', "neither an `Action:` nor a `Final Answer:`"),
    "no action": ("Thought: x\nAction: None", "neither an `Action:` nor a `Final Answer:`"),
    "no action, and no answer": (
        "Thought: x\nAction: None (I know it)",
        "neither an `Action:` nor a `Final Answer:`",
    ),
    "a plan behind thinking": (
        "<think>x</think>\nI shall use search.",
        "neither an `Action:` nor a `Final Answer:`",
    ),
    "only thinking": ("<think>\nAction: now\n</think>", "it holds your thinking and nothing else"),
    "label within a line": ("I think Action: now", "neither an `Action:` nor a `Final Answer:`"),
    "quoted label": ("> Action: now", "neither an `Action:` nor a `Final Answer:`"),
    "empty answer": ("Thought: x\nFinal Answer:\n", "its `Final Answer:` is empty"),
    "observation first": ("Observation: 5\nFinal Answer: 5", "observations come from the tools"),
    "observation without an action": (
        "Thought: add\nObservation: 5\nFinal Answer: 5",
        "observations come from the tools",
    ),
    "input alone": ('Thought: x\nAction Input: {"a": 1}', "without an `Action:`"),
    "input alone, then an answer": ('Action Input: {"a": 1}\nFinal Answer: 1', "without an `Action:`"),
    "two inputs": ("Action: search\nAction Input: cats\nAction Input: dogs", "without an `Action:`"),
    "no input": (
        "Action: add",
        "its action `add` has no `Action Input:`; the tool needs a JSON object with a, b",
    ),
    "empty input": ("Action: search\nAction Input:", "its action `search` has no `Action Input:`"),
    "input none": ("Action: search\nAction Input: None", "its action `search` has no `Action Input:`"),
    "no input in one of two": ("Action: now\nAction: search", "its action `search` has no `Action Input:`"),
    "object without input": ('{"action": "search"}', "its action `search` has no `Action Input:`"),
    "empty action": ("Action:\nAction Input: cats", "does not name a tool"),
    "prose for a name": (
        "Action: I will look it up\nAction Input: cats",
        "add, search, square, total, now, list_files",
    ),
    "object for a name": ('Action: {"query": "cats"}', "does not name a tool"),
    "name that is none": ('{"action": "a b\\nc", "action_input": {}}', "does not name a tool"),
    "too many": ("Action: now\n" * 33, "33 actions"),
}


@pytest.mark.parametrize("text, problem", UNREADABLE.values(), ids=UNREADABLE)
def test_react_says_what_is_missing(text: str, problem: str) -> None:
    reading = read(text)
    assert reading.problem is not None
    assert problem in reading.problem
    assert "Final Answer:" in reading.problem  # the format, once more
    assert not any(isinstance(part, ToolCall) for part in reading.parts)


def test_without_tools_only_an_answer_is_asked_for() -> None:
    reading = read("Hello.", Brief())
    assert reading.problem is not None
    assert "Action" not in reading.problem


def test_a_truncated_reply_is_a_problem() -> None:
    reading = REACT.read(reply("Thought: x\nFinal Answer: the ans", StopReason.LENGTH), BRIEF)
    assert reading.problem is not None
    assert "token limit" in reading.problem
    assert reading.parts == (Text(text="Thought: x\nFinal Answer: the ans"),)


def test_truncated_native_calls_are_dropped() -> None:
    cut = ModelReply(parts=(Text(text="x"), SUM), stop_reason=StopReason.LENGTH)
    for planning in (NATIVE, REACT):
        reading = planning.read(cut, BRIEF)
        assert reading.problem is not None
        assert reading.parts == (Text(text="x"),)


def test_a_truncation_after_a_made_up_observation_does_not_matter() -> None:
    text = "Action: search\nAction Input: cats\nObservation: and so on and"
    assert REACT.read(reply(text, StopReason.LENGTH), BRIEF) == Reading(parts=(CATS,))


def test_made_up_observations_are_not_recorded_with_a_problem() -> None:
    assert read("Thought: x\nObservation: lies").parts == (Text(text="Thought: x\n"),)


def test_native_calls_are_taken_as_they_are() -> None:
    parts = (Text(text="Let me see."), ToolCall(id="7", name="add", arguments={"a": 1}))
    assert REACT.read(ModelReply(parts=parts), BRIEF) == Reading(parts=parts)


def test_native_reasoning_is_kept() -> None:
    signed = Reasoning(text="hm", data={"signature": "s"})
    given_reply = ModelReply(parts=(signed, Text(text="Final Answer: 1")))
    reading = REACT.read(given_reply, BRIEF)
    assert reading.parts == (signed, Text(text="1"))
    request = REACT.request(steps(START, ModelReplied(parts=reading.parts)), BRIEF)
    assert request.messages[1] == AssistantMessage(parts=(signed, Text(text="Final Answer: 1")))


def test_a_refusal_is_left_to_the_loop() -> None:
    assert REACT.read(reply("I cannot.", StopReason.REFUSED), BRIEF) == Reading(
        parts=(Text(text="I cannot."),)
    )


def test_the_tools_own_name_wins_over_words_with_a_meaning() -> None:
    brief = Brief(tools=(tool("finish", "x", x="string"), tool("none")))
    assert read("Action: finish\nAction Input: a", brief).parts == (call("finish", x="a"),)
    assert read("Action: none", brief).parts == (call("none"),)


# --- anything may come --------------------------------------------------------------------------------------------


@settings(max_examples=500)
@given(anything, st.sampled_from(list(StopReason)))
def test_whatever_comes_is_read_or_a_problem(text: str, stop: StopReason) -> None:
    reading = REACT.read(reply(text, stop), BRIEF)
    asked = [part for part in reading.parts if isinstance(part, ToolCall)]
    if stop in DECLINED or stop is StopReason.PAUSED:
        return
    if reading.problem is not None:
        assert not asked
    else:
        assert asked or ModelReply(parts=reading.parts).text.strip()
    step = ModelReplied(parts=reading.parts, problem=reading.problem)
    assert decode_step(encode_step(step)) == step  # it can be recorded
    assert all(told.strip() for told in texts(steps(START, step)))


PATHOLOGICAL: dict[str, str] = {
    "labels": "Action:\n",
    "actions": "Action: now\n",
    "weak labels": "Input:\n",
    "answers": "Final Answer: x\n",
    "answers and actions": "Final Answer: x\n```\nAction: now\n",
    "answers and calls": "Final Answer: x\n```\n```\nAction: now\n",
    "unclosed objects": 'Action: add\nAction Input: {"a": "\n',
    "unclosed objects, single quotes": "Action: add\nAction Input: {'a': ['\n",
    "lists of strings": "Action Input: ['\nAction Input: [', '\n",
    "labels in strings": "Action: search\nAction Input: {'query': '\nAction: x'}\n",
    "unclosed blocks": "Action: add\nAction Input: ```\nx\n",
    "one block per input": "Action: search\nAction Input: ```\nAction: x\n```\n",
    "objects": '{"action": 1}\n',
    "brackets": "[",
    "braces": '{"a":',
    "tuples": "(",
    "backslashes": "\\",
    "spaces": " ",
    "tabs and newlines": "\t\n",
    "marks": "**",
    "bullets": "- ",
    "backticks": "`",
    "fences": "```\n",
    "digits": "1",
    "quotes": '"',
    "apostrophes": "'",
    "escapes": '\\"',
    "thinking": "<think>",
    "closings": "x</think>\n",
    "thinking in quotes": '"<think>',
    "channels": "<|channel|>analysis<|message|>x<|end|>",
    "words": "action ",
    "commas": "1,",
    "keywords": "a=1,",
}


FRAMES = [
    "{}",
    "Action: search\nAction Input: {}",
    "Action: add({}",
    "Action: {}",
    "Final Answer: {}",
    "Thought: x\n{}",
    "Action: search\nAction Input: ```a{}x",
]


@pytest.mark.timeout(60)  # a second's work where it is linear; quadratic, it would take an hour
@pytest.mark.parametrize("unit", PATHOLOGICAL.values(), ids=PATHOLOGICAL)
def test_large_replies_are_read_in_linear_time(unit: str) -> None:
    for text in (frame.replace("{}", unit * (128_000 // len(unit))) for frame in FRAMES):
        reading = read(text)
        assert reading.problem or reading.parts


@pytest.mark.timeout(60)
def test_a_reply_of_a_megabyte_of_all_of_this_is_read() -> None:
    share = 1_000_000 // len(PATHOLOGICAL)
    each = [unit * (share // len(unit)) for unit in PATHOLOGICAL.values()]
    for text in ("".join(each), "".join(reversed(each))):
        reading = read(text)
        assert reading.problem or reading.parts


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 500, sys.getrecursionlimit(), 200_000])
@pytest.mark.parametrize("ends", [('{"a":', "}"), ("{'a':", "}"), ("[", "]"), ("(", ")")])
def test_deep_nesting_is_refused(depth: int, ends: tuple[str, str]) -> None:
    raw = f'{{"x": {ends[0] * depth}1{ends[1] * depth}}}'
    assert read(f"Action: add\nAction Input: {raw}").parts == (invalid("add", raw),)
