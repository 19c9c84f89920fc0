"""What tools return and raise: converted within the call, told truly, and the same wherever they run."""

import contextlib
import re
import sys
import threading
from typing import Any

import pytest
from opentelemetry.sdk import trace as sdk_trace
from pydantic import BaseModel, computed_field

from agentkit import Agent, Attachment, Completed, ToolContext, tool
from agentkit.messages import ToolMessage, ToolSpec, UserMessage
from agentkit.run.telemetry import Telemetry
from agentkit.sandbox import Sandboxes
from agentkit.testing import ScriptedModel
from agentkit.tools.sandboxed import confined, preloaded
from agentkit.transcript.steps import ToolReturned
from agentkit.untrusted.secrets import redacted

from .loop_support import call, steps_of  # type: ignore[import-not-found]
from .sandbox_support import HERE  # type: ignore[import-not-found]

DOT = {"$attachment": {"media_type": "image/png", "data": "iVBORw==", "name": "dot.png"}}

RETURNED: dict[str, tuple[dict[str, Any], Any]] = {
    "decorated": ({"number": 1}, 2),
    "stream": ({"number": 3}, [0, 1, 2]),
    "awaited_twice": ({"number": 1}, 2),
    "count": ({"number": 2}, [0, 1]),
    "late": ({"number": 2}, [0, 1]),
    "picture": ({}, DOT),
    "pictures": ({}, ["here:", DOT, {"page": {"number": 1, "picture": DOT}}, ["two", DOT]]),
    "report": ({}, {"title": "t", "picture": DOT, "more": [DOT]}),
    "view": ({}, {"keys": ["a"], "range": [0, 1]}),
    "names_of_files": ({}, ["caf?.txt", {"?": "x?"}]),
}
UNSHOWN = {
    "nan": "NaN",
    "png": "Attachment",
    "row": "a Row cannot be expressed as JSON",
    "cycle": "refers to itself",
    "deep": "nested too deeply",
    "endless": "goes on for more than",
    "endless_inside": "goes on for more than",
    "huge_number": "more than 4300 digits",
    "without_a_class": "reading it raised RuntimeError",
    "broken_field": "ValueError",
    "unfit": "media_type",
    "large": "more than|at most",
}
FAILED = {
    "explode": ("tool_error", r"^explode failed with ValueError at shapes.py:\d+$"),
    "broken_stream": ("tool_error", r"^broken_stream failed with KeyError at shapes.py:\d+$"),
    "panic": ("tool_error", r"^panic failed with Panic at shapes.py:\d+$"),
    "leave": ("tool_error", r"^leave failed with SystemExit at shapes.py:\d+$"),
    "interrupted": ("tool_error", r"^interrupted failed with KeyboardInterrupt at \w+.py:\d+$"),
    "closed": ("tool_error", r"^closed failed with GeneratorExit at shapes.py:\d+$"),
    "stopped": ("tool_error", r"^stopped failed with StopIteration at shapes.py:\d+$"),
    "several": ("tool_error", r"^several failed with Panic; no such city$"),
    "refuse": ("tool_error", r"^not today$"),
    "unreadable": ("tool_error", r"^ToolError, whose text cannot be written$"),
    "refuse_address": ("address_refused", r"^not there$"),
    "pretend": ("bad_arguments|tool_error", r"^it never began$"),
}


@pytest.fixture
def shapes(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    return __import__("sandboxed.shapes").shapes


@pytest.mark.parametrize(
    "place",
    [
        "inprocess",
        pytest.param(
            "pool", marks=pytest.mark.skipif(sys.platform != "linux", reason="there is a pool on Linux only")
        ),
    ],
)
async def test_a_tool_of_any_shape_is_told_the_same_wherever_it_runs(shapes, place, caplog):
    caplog.set_level("DEBUG", "agentkit.tools")
    names = {**RETURNED, **dict.fromkeys([*UNSHOWN, *FAILED], ({}, None))}
    calls = [call(name, name, **arguments) for name, (arguments, _) in names.items()]
    model = ScriptedModel.by_turn([calls, "Done."])
    async with contextlib.AsyncExitStack() as stack:
        tools: list[Any] = [getattr(shapes, name) for name in names]
        if place == "pool":
            tools = confined(tools, await stack.enter_async_context(Sandboxes(preload=preloaded(tools))))
        outcome = await Agent(model, tools=tools).run("go")
    assert isinstance(outcome, Completed)
    told = {step.call_id: step for step in steps_of(outcome.transcript, ToolReturned)}
    assert {name: told[name].output for name in RETURNED} == {
        name: expected for name, (_, expected) in RETURNED.items()
    }
    for name, why in UNSHOWN.items():  # they are unsafe: a model must not be led to repeat them
        assert told[name].error is None
        assert isinstance(told[name].output, str)
        assert told[name].output.startswith(f"{name} was carried out; its result cannot be shown: ")
        assert told[name].output.endswith(
            "Do not call it again for the result: that would repeat what it did."
        )
        assert re.search(why, told[name].output)
    for name, (code, text) in FAILED.items():
        assert told[name].error.code in code.split("|")
        assert re.search(text, told[name].error.message), told[name].error.message
    if place == "pool":  # whether a call began is not for the sandbox to say
        assert told["pretend"].error.code == "tool_error"
    assert "sk-abc" not in str(outcome)
    assert "sk-abc" not in caplog.text
    assert "the exception of tool explode: secret [secret]" in caplog.text


async def result_of(*tools, **arguments):
    """What a run records of a call of the first tool, and what the model reads of it."""
    name = tools[0].name if hasattr(tools[0], "name") else "given"
    model = ScriptedModel.by_turn([call(name, **arguments), "Done."])
    outcome = await Agent(model, tools=tools).run("go")
    assert isinstance(outcome, Completed)
    (returned,) = steps_of(outcome.transcript, ToolReturned)
    return returned, model.requests[-1].messages


# --- within the call ---------------------------------------------------------------------------------------------


class Watched(BaseModel):
    """Remembers where it was read."""

    places: Any

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> int:
        """Computed when it is looked at."""
        self.places.append(threading.get_ident())
        return 1


@pytest.mark.parametrize("kind", ["sync", "async", "generator", "query", "toolset"])
async def test_a_result_is_read_outside_of_the_event_loop(kind):
    places: list[int] = []

    def rows():
        places.append(threading.get_ident())
        yield 1

    class Query:
        def __iter__(self):
            return rows()

    class Toolset:
        async def specs(self):
            return [ToolSpec(name="given", description="", parameters={"type": "object"})]

        async def call(self, call, context):
            return {"rows": Query()}

    def sync() -> Any:
        return Watched.model_construct(places=places)

    async def later() -> Any:
        return [Watched.model_construct(places=places)]

    async def query() -> Any:
        return Query()

    Watched.model_config["arbitrary_types_allowed"] = True
    tools: dict[str, Any] = {
        "sync": tool(name="given")(sync),
        "async": tool(name="given")(later),
        "generator": tool(name="given")(rows),
        "query": tool(name="given")(query),
        "toolset": Toolset(),
    }
    returned, _ = await result_of(tools[kind])
    assert returned.error is None
    assert places
    assert threading.get_ident() not in places


@pytest.mark.parametrize("kind", ["generator", "late"])
async def test_the_time_limit_holds_while_a_result_is_read(kind):
    @tool(name="given", timeout=0.05)
    def generator(context: ToolContext[None]) -> Any:
        yield context.stopped.wait(10)

    @tool(name="given", timeout=0.05)
    async def late(context: ToolContext[None]) -> Any:
        return (context.stopped.wait(10) for _ in range(2))

    returned, _ = await result_of(generator if kind == "generator" else late)
    assert returned.error is not None
    assert returned.error.code == "tool_timeout"
    assert returned.error.message == (
        "given was given up after its time limit; it is not known whether it took effect"
    )


async def test_a_plain_wrapper_does_not_set_the_run_free_before_the_coroutine_has_ended():
    seen: list[bool] = []

    async def wait(context: ToolContext[None]) -> str:
        seen.append(context.stopped.is_set())
        return "waited"

    def wrapper(context: ToolContext[None]) -> Any:
        return wait(context)

    returned, _ = await result_of(tool(name="given")(wrapper))
    assert (returned.output, seen) == ("waited", [False])


# --- what others return ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "output, recorded",
    [
        (float("nan"), "given was carried out; its result cannot be shown: it holds NaN"),
        ({"a": b"\xff"}, "given was carried out; its result cannot be shown: bytes that are no text"),
        (object(), "given was carried out; its result cannot be shown: a object cannot be expressed"),
        ("caf\udce9", "caf?"),
        ({1: ("a",)}, {"1": ["a"]}),
        ([Attachment(media_type="image/png", data=b"\x89PNG", name="dot.png")], [DOT]),
    ],
)
async def test_what_a_toolset_returns_is_converted_as_what_a_function_returns_is(output, recorded):
    class Toolset:
        async def specs(self):
            return [ToolSpec(name="given", description="", parameters={"type": "object"})]

        async def call(self, call, context):
            return output

    returned, _ = await result_of(Toolset())
    assert returned.error is None
    if isinstance(recorded, str):
        assert returned.output.startswith(recorded)
    else:
        assert returned.output == recorded


async def test_a_toolset_may_raise_anything():
    class Panic(BaseException):
        pass

    class Toolset:
        async def specs(self):
            return [ToolSpec(name="given", description="", parameters={"type": "object"})]

        async def call(self, call, context):
            raise Panic("secret sk-abc")

    returned, _ = await result_of(Toolset())
    assert re.fullmatch(r"given failed with Panic at test_tools_results.py:\d+", returned.error.message)


async def test_the_model_sees_a_picture_that_a_tool_returns():
    picture = Attachment(media_type="image/png", data=b"\x89PNG", name="dot.png")

    @tool(name="given")
    def shot() -> Any:
        return {"page": 1, "shown": picture}

    returned, messages = await result_of(shot)
    assert returned.output == {"page": 1, "shown": DOT}
    assert any(isinstance(each, ToolMessage) and "dot.png" in each.content for each in messages)
    shown = [
        attachment.data
        for each in messages
        if isinstance(each, UserMessage | ToolMessage)
        for attachment in each.attachments
    ]
    assert shown == [picture.data]


async def test_a_pure_call_whose_result_cannot_be_shown_may_be_made_in_another_way():
    @tool(name="given", effect="pure")
    def large() -> str:
        return "x" * 4_000_001

    returned, messages = await result_of(large)
    assert returned.error is None
    assert returned.output.endswith(
        "at most 4000000 are taken. The same call will not show it either; ask for less, or in another way."
    )
    assert [each.is_error for each in messages if isinstance(each, ToolMessage)] == [False]


@pytest.mark.parametrize(
    "text, shown",
    [
        ("secret sk-abc", "secret [secret]"),
        ("https://user:pass@host/x?token=abc&a=1", "https://[secret]@host/x?token=[secret]&a=1"),
        ("password='hunter2' for bob", "password='[secret]' for bob"),
        ("Authorization: Bearer abcdef", "Authorization: Bearer [secret]"),
        ("no such city: Bern", "no such city: Bern"),
    ],
)
def test_what_looks_like_a_secret_is_cut_out_of_logs(text, shown):
    assert redacted(text) == shown


async def test_a_trace_with_content_harms_no_call():
    """What cannot be written into a span is no failure of a call that was carried out."""
    tracer = sdk_trace.TracerProvider()

    class Unspeakable:
        def __str__(self) -> str:
            raise ValueError("secret sk-abc")

    class Toolset:
        async def specs(self):
            return [ToolSpec(name="given", description="", parameters={"type": "object"})]

        async def call(self, call, context):
            return {(1, 2): Unspeakable()}

    model = ScriptedModel.by_turn([call("given"), "Done."])
    telemetry = Telemetry(tracer_provider=tracer, content=True)
    outcome = await Agent(model, tools=[Toolset()], telemetry=telemetry).run("go")
    (returned,) = steps_of(outcome.transcript, ToolReturned)
    assert returned.error is None
    assert returned.output.startswith("given was carried out; its result cannot be shown: ")
