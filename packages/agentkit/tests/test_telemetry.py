"""Spans and metrics of runs, as the SDK of OpenTelemetry receives them."""

import asyncio
import json
import subprocess
import sys

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from agentkit import (
    Agent,
    Control,
    Failed,
    MemoryJournal,
    SecurityPolicy,
    ToolCall,
    ToolError,
    Waiting,
    tool,
    tracing,
)
from agentkit.errors import ModelOverloaded
from agentkit.messages import ModelReply, StopReason, Text, Usage
from agentkit.ports import ToolContext
from agentkit.run.telemetry import Telemetry
from agentkit.testing import ScriptedModel
from agentkit.transcript.steps import ApprovalGiven, ModelReplied, Recorded, RunStarted, Step, ToolStarted
from agentkit.untrusted.secrets import Secrets

SECRET = "the launch code is 1234"


@tool(effect="pure")
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Listener:
    """Everything that is told."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    def telemetry(self, **options):
        return Telemetry(tracer_provider=self.tracers, meter_provider=self.meters, **options)

    @property
    def spans(self):
        return {span.name: span for span in self.exporter.get_finished_spans()}

    @property
    def points(self):
        """Name of the metric, attributes, sum and count."""
        data = self.reader.get_metrics_data()
        return {
            (metric.name, tuple(sorted(point.attributes.items()))): point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }


@pytest.fixture
def listener():
    return Listener()


def usage(**counts):
    return Usage(**counts)


async def test_a_run_is_a_tree_of_spans(listener):
    call = ToolCall(id="c1", name="add", arguments={"a": 2, "b": 3})
    asking = ModelReply(
        parts=(call,),
        stop_reason=StopReason.TOOL_CALLS,
        usage=usage(input_tokens=50, output_tokens=10, cached_tokens=32, reasoning_tokens=4, cost_usd=0.25),
        model="scripted:model-2026",
    )
    answering = ModelReply(parts=(Text(text="5"),), usage=usage(input_tokens=70, output_tokens=2))
    agent = Agent(
        ScriptedModel([asking, answering]), name="adder", tools=[add], telemetry=listener.telemetry()
    )
    await agent.run("2 + 3?", run_id="run-1")
    spans = listener.exporter.get_finished_spans()
    assert [span.name for span in spans] == [
        "chat model",
        "execute_tool add",
        "chat model",
        "invoke_agent adder",
    ]
    whole = spans[-1]
    assert whole.parent is None
    assert all(span.parent.span_id == whole.context.span_id for span in spans[:-1])
    assert [span.kind for span in spans] == [
        SpanKind.CLIENT,
        SpanKind.INTERNAL,
        SpanKind.CLIENT,
        SpanKind.INTERNAL,
    ]
    assert dict(spans[0].attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "model",
        "gen_ai.conversation.id": "run-1",
        "gen_ai.agent.name": "adder",
        "gen_ai.response.model": "model-2026",
        "gen_ai.response.finish_reasons": ("tool_call",),
        "gen_ai.usage.input_tokens": 50,
        "gen_ai.usage.output_tokens": 10,
        "gen_ai.usage.cache_read.input_tokens": 32,
        "gen_ai.usage.reasoning.output_tokens": 4,
        "agentkit.usage.cost_usd": 0.25,
    }
    assert dict(spans[1].attributes) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "add",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": "c1",
        "gen_ai.tool.description": "Add two numbers.",
        "gen_ai.conversation.id": "run-1",
        "gen_ai.agent.name": "adder",
    }
    assert dict(whole.attributes) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "model",
        "gen_ai.conversation.id": "run-1",
        "gen_ai.agent.name": "adder",
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.output_tokens": 12,
        "gen_ai.usage.cache_read.input_tokens": 32,
        "gen_ai.usage.reasoning.output_tokens": 4,
        "agentkit.usage.cost_usd": 0.25,
        "agentkit.run.status": "completed",
    }


async def test_a_run_is_counted(listener):
    reply = ModelReply(parts=(Text(text="Hi"),), usage=usage(input_tokens=50, output_tokens=10))
    agent = Agent(ScriptedModel([reply, reply]), name="greeter", telemetry=listener.telemetry())
    await agent.run("Hi")
    await agent.run("Hi")
    chat = (
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "scripted"),
        ("gen_ai.request.model", "model"),
        ("gen_ai.response.model", "model"),
    )
    points = listener.points
    for kind, count in (("input", 100), ("output", 20)):
        point = points["gen_ai.client.token.usage", (*chat, ("gen_ai.token.type", kind))]
        assert (point.sum, point.count) == (count, 2)
        assert point.explicit_bounds[:3] == (1, 4, 16)
    assert points["gen_ai.client.operation.duration", chat].count == 2
    runs = (("gen_ai.agent.name", "greeter"), ("gen_ai.request.model", "model"))
    assert points["gen_ai.invoke_agent.duration", runs].count == 2


@pytest.mark.parametrize("content", [False, True])
async def test_what_is_said_is_told_only_where_it_was_asked_for(listener, content):
    @tool(effect="pure")
    def look(key: str) -> str:
        """Look something up."""
        return f"{SECRET} for {key}"

    call = ToolCall(id="c1", name="look", arguments={"key": SECRET})
    agent = Agent(
        ScriptedModel([call, SECRET]),
        instructions=SECRET,
        tools=[look],
        telemetry=listener.telemetry(content=content),
    )
    await agent.run(SECRET)
    told = [span.to_json() for span in listener.exporter.get_finished_spans()]
    assert [SECRET in one for one in told] == [content] * 4
    assert SECRET not in str(listener.points)


async def test_no_known_secret_is_in_a_span_that_tells_what_is_said(listener):
    """Not in the input, the instructions, arguments, results and replies, in whichever of them it came."""
    secret = "sk-canary-" + "7f3a" * 6
    Secrets([("PROVIDER_KEY", secret)])

    @tool(effect="pure")
    def look(key: str) -> dict[str, str]:
        """Look something up."""
        return {"given": key, secret: "as a name"}

    call = ToolCall(id="c1", name="look", arguments={"key": secret})
    model, telemetry = ScriptedModel([call, f"It is {secret}"]), listener.telemetry(content=True)
    await Agent(model, instructions=f"Use {secret}.", tools=[look], telemetry=telemetry).run(f"{secret}?")
    spans = [span.to_json() for span in listener.exporter.get_finished_spans()]
    assert len(spans) == 4
    assert not [span for span in spans if secret in span]
    assert all("PROVIDER_KEY" in span for span in spans)


async def test_content_has_the_form_of_the_conventions(listener):
    call = ToolCall(id="c1", name="add", arguments={"a": 2, "b": 3})
    agent = Agent(
        ScriptedModel([call, "5"]),
        instructions="Add.",
        tools=[add],
        telemetry=listener.telemetry(content=True),
    )
    await agent.run("2 + 3?")
    second = listener.exporter.get_finished_spans()[2].attributes
    assert json.loads(second["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "2 + 3?"}]},
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "c1", "name": "add", "arguments": {"a": 2, "b": 3}}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "5"}]},
    ]
    assert json.loads(second["gen_ai.system_instructions"]) == [{"type": "text", "content": "Add."}]
    assert json.loads(second["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "5"}], "finish_reason": "stop"}
    ]
    assert json.loads(second["gen_ai.tool.definitions"])[0]["name"] == "add"
    tool_span = listener.spans["execute_tool add"].attributes
    assert json.loads(tool_span["gen_ai.tool.call.arguments"]) == {"a": 2, "b": 3}
    assert tool_span["gen_ai.tool.call.result"] == "5"


async def test_failures_are_told_by_their_kind(listener):
    @tool(effect="pure")
    def fail() -> str:
        """Fail."""
        raise ToolError(SECRET)

    agent = Agent(
        ScriptedModel([ToolCall(id="c1", name="fail"), ModelOverloaded(SECRET)]),
        tools=[fail],
        telemetry=listener.telemetry(),
    )
    assert isinstance(await agent.run("go"), Failed)
    kinds = {"execute_tool fail": "tool_error", "chat model": "model_overloaded"}
    for name, code in {**kinds, "invoke_agent agent": "model_overloaded"}.items():
        span = listener.spans[name]
        assert span.attributes["error.type"] == code
        assert span.status.status_code is StatusCode.ERROR
        assert SECRET not in span.to_json()
    durations = [dict(key[1]).get("error.type") for key in listener.points if "client.operation" in key[0]]
    assert sorted(durations, key=str) == [None, "model_overloaded"]


async def test_a_cancelled_run_says_so(listener):
    control, asked = Control(), asyncio.Event()

    async def wait(_request):
        asked.set()
        await asyncio.Event().wait()
        return "never"

    agent = Agent(ScriptedModel([wait]), telemetry=listener.telemetry())
    running = asyncio.create_task(agent.run("go", control=control))
    await asked.wait()
    control.cancel()
    await running
    assert listener.spans["invoke_agent agent"].attributes["agentkit.run.status"] == "cancelled"
    assert listener.spans["chat model"].attributes["error.type"] == "CancelledError"


async def test_a_run_that_waits_and_goes_on_has_one_conversation(listener):
    call = ToolCall(id="c1", name="add", arguments={"a": 2, "b": 3})
    agent = Agent(
        ScriptedModel([call, "5"]),
        tools=[add],
        policy=SecurityPolicy(ask=("add",)),
        telemetry=listener.telemetry(),
    )
    journal = MemoryJournal()
    waiting = await agent.run("2 + 3?", journal=journal, run_id="run-7")
    assert isinstance(waiting, Waiting)
    await journal.append(ApprovalGiven(approval_id=waiting.on[0].approval_id, approved=True))
    await agent.run(journal=journal, run_id="run-7")
    runs = [span for span in listener.exporter.get_finished_spans() if span.name == "invoke_agent agent"]
    assert [span.attributes["agentkit.run.status"] for span in runs] == ["waiting", "completed"]
    assert {span.attributes["gen_ai.conversation.id"] for span in runs} == {"run-7"}


async def test_a_streamed_reply_tells_when_it_began(listener):
    agent = Agent(ScriptedModel(["One two three."]), telemetry=listener.telemetry())
    await agent.run("Count.", on_event=lambda _event: None)
    attributes = listener.spans["chat model"].attributes
    assert attributes["gen_ai.request.stream"] is True
    assert attributes["gen_ai.response.time_to_first_chunk"] >= 0


async def test_runs_at_once_do_not_mix(listener):
    agent = Agent(
        ScriptedModel.by_turn([ToolCall(id="c1", name="add", arguments={"a": 1, "b": 1}), "2"]),
        tools=[add],
        telemetry=listener.telemetry(),
    )
    with listener.tracers.get_tracer("app").start_as_current_span("request") as above:
        await asyncio.gather(*(agent.run("go", run_id=f"run-{number}") for number in range(10)))
    spans = listener.exporter.get_finished_spans()
    runs = {span.context.span_id: span for span in spans if span.name == "invoke_agent agent"}
    assert {span.parent.span_id for span in runs.values()} == {above.get_span_context().span_id}
    for span in spans:
        if span.parent is not None and span.parent.span_id in runs:
            above_it = runs[span.parent.span_id]
            assert span.attributes["gen_ai.conversation.id"] == above_it.attributes["gen_ai.conversation.id"]


ALONE = """
import sys
from agentkit import Agent
from agentkit.ports import ToolContext
from agentkit.testing import ScriptedModel
{before}
Agent(ScriptedModel(["Hi"])).run_sync("Hi").unwrap()
{after}
"""


@pytest.mark.parametrize(
    "before, after",
    [
        ("", "assert not any(name.startswith('opentelemetry') for name in sys.modules)"),
        ("import opentelemetry.trace", "assert 'opentelemetry.metrics' not in sys.modules"),
        ("sys.modules['opentelemetry'] = None", ""),  # not installed
        (
            (
                "from opentelemetry import trace\n"
                "from opentelemetry.sdk.trace import TracerProvider\n"
                "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
                "from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter\n"
                "exporter = InMemorySpanExporter()\n"
                "provider = TracerProvider()\n"
                "provider.add_span_processor(SimpleSpanProcessor(exporter))\n"
                "trace.set_tracer_provider(provider)"
            ),
            (
                "assert [span.name for span in exporter.get_finished_spans()] == "
                "['chat model', 'invoke_agent agent']"
            ),
        ),
    ],
    ids=["not imported", "imported only", "not installed", "set up"],
)
def test_whoever_sets_opentelemetry_up_is_told_and_nobody_else_pays(before, after):
    done = subprocess.run(
        [sys.executable, "-c", ALONE.format(before=before, after=after)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_stop_reason_has_a_word_of_the_conventions() -> None:
    assert tracing.STOP_REASONS.keys() == {str(reason) for reason in StopReason}


async def test_an_interrupted_call_is_looked_up_while_somebody_listens(listener):
    def look_up(_context: ToolContext[None]) -> dict[str, str]:
        return {"found": "sent before"}

    @tool(effect="unsafe", find=look_up)
    def send(context: ToolContext[None]) -> str:
        """Send."""
        raise AssertionError(context.idempotency_key)

    cut: list[Step] = [
        RunStarted(run_id="run", agent="agent", input="go"),
        ModelReplied(parts=(ToolCall(id="c1", name="send"),)),
        ToolStarted(call_id="c1", tool="send"),
    ]
    journal = MemoryJournal([Recorded(seq=seq, at=1.0, step=step) for seq, step in enumerate(cut)])
    agent = Agent(ScriptedModel.by_turn({1: "Done."}), tools=[send], telemetry=listener.telemetry())
    outcome = await agent.run("go", journal=journal)
    assert outcome.unwrap() == "Done."
