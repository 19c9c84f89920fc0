"""What the tests of planning share: tools, steps, and texts of a model."""

from typing import Any

from hypothesis import strategies as st

from agentkit.messages import (
    JsonValue,
    ModelReply,
    Reasoning,
    StopReason,
    Text,
    ToolCall,
    ToolMessage,
    ToolSpec,
    UserMessage,
)
from agentkit.planning import Brief, NativePlanning, ReActPlanning, Reading
from agentkit.planning.thinking_tags import TAG_KEY
from agentkit.transcript.steps import Recorded, RunStarted, Step

NATIVE, REACT = NativePlanning(), ReActPlanning()


def tool(name: str, *required: str, **properties: Any) -> ToolSpec:
    schemas = {key: {"type": kind} for key, kind in properties.items()}
    parameters: dict[str, JsonValue] = {"type": "object", "properties": schemas, "required": list(required)}
    return ToolSpec(name=name, description=f"Does {name}.", parameters=parameters)


ADD = tool("add", "a", "b", a="integer", b="integer")


SEARCH = tool("search", "query", query="string", limit="integer")


SQUARE = tool("square", "n", n="integer")


TOTAL = tool("total", "numbers", numbers="array")


NOW = tool("now")


LIST = tool("list_files", folder="string")


BRIEF = Brief(tools=(ADD, SEARCH, SQUARE, TOTAL, NOW, LIST))


def reply(text: str, stop: StopReason = StopReason.END) -> ModelReply:
    return ModelReply(parts=(Text(text=text),), stop_reason=stop)


def read(text: str, brief: Brief = BRIEF) -> Reading:
    return REACT.read(reply(text), brief)


def call(name: str, **arguments: JsonValue) -> ToolCall:
    return ToolCall(id="", name=name, arguments=arguments)


def think(text: str) -> Reasoning:
    return Reasoning(text=text)


def thought(text: str, tag: str = "think") -> Reasoning:
    """Reasoning that stood between tags."""
    return Reasoning(text=text, data={TAG_KEY: tag})


def steps(*given_steps: Step) -> list[Recorded]:
    return [Recorded(seq=seq, at=0.0, step=step) for seq, step in enumerate(given_steps)]


START = RunStarted(run_id="r", agent="a", input="go")


SUM = call("add", a=1, b=2)


def texts(transcript: list[Recorded], brief: Brief = BRIEF) -> list[str]:
    spoken: list[str] = []
    for message in REACT.request(transcript, brief).messages:
        assert not isinstance(message, ToolMessage)
        spoken += (
            [message.text] if isinstance(message, UserMessage) else [ModelReply(parts=message.parts).text]
        )
    return spoken


unicode = st.text(st.characters(exclude_categories=["Cs"]))


label_like = st.sampled_from(
    [
        "Action: now",
        "Action:",
        "\\Action: x",
        "  \\\\Observation:",
        "**Final Answer**",
        "## Action",
        "- Input: x",
        "```",
    ]
)


prose = st.lists(unicode | label_like, min_size=1, max_size=5).map("\n".join).map(str.strip).filter(bool)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | unicode
    | label_like,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(unicode, inner, max_size=3),
    max_leaves=8,
)


thoughts = st.builds(Reasoning, text=prose)


calls = st.builds(
    ToolCall,
    id=st.just(""),
    name=st.sampled_from([spec.name for spec in BRIEF.tools])
    | st.from_regex(r"[a-z]\w{4,20}x", fullmatch=True),
    arguments=st.dictionaries(unicode, json_values, max_size=4),
)


pieces = st.sampled_from(
    [
        *(
            "Action:",
            "Action Input:",
            "Input:",
            "Observation:",
            "Final Answer:",
            "Thought:",
            "\n",
            "```",
            "~~~",
        ),
        *(
            "**",
            "- ",
            "### ",
            " search",
            "now",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            '"',
            "'",
            "\\",
            ",",
            ":",
            "=",
            "1",
            "None",
        ),
        *(
            '{"query": "x"}',
            '{"action": "',
            "<think>",
            "</think>",
            "Finish[",
            "\ud800",
            "\r",
            "\u2028",
            "1e999",
        ),
    ]
)


anything = (
    st.text()
    | st.lists(pieces, max_size=40).map("".join)
    | st.lists(pieces | st.text(), max_size=30).map("".join)
)
