"""Tools that run in sandboxes, called as an agent calls them."""

import asyncio
import functools
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.sdk import trace as sdk_trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentkit import Agent, Completed, FunctionToolset, ToolError, UsageError, tool
from agentkit.errors import BadArguments
from agentkit.messages import Effect, ToolCall
from agentkit.ports import ToolContext
from agentkit.run.telemetry import Telemetry
from agentkit.sandbox import Confinement, Grants, Limits, Sandboxes, ToolTimeout
from agentkit.testing import ScriptedModel
from agentkit.tools.builtin.programs import python_tool, shell_tool
from agentkit.tools.sandboxed import ConfinedTool, Dependencies, confined, import_name, preloaded
from agentkit.transcript.steps import ToolReturned

from .sandbox_support import HERE, JAILED  # type: ignore[import-not-found]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children are confined on Linux only")


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    return __import__("sandboxed.tools").tools


@dataclass
class Calling:
    """Calls tools, and keeps what they report."""

    toolset: FunctionToolset
    reports: list[str] = field(default_factory=list)

    async def __call__(self, name, **arguments):
        context = ToolContext(
            deps=None,
            run_id="r",
            call_id="c",
            idempotency_key="r:c",
            deadline=time.monotonic() + 20,
            report=self.reports.append,
        )
        return await self.toolset.call(ToolCall(id="c", name=name, arguments=arguments), context)


@pytest.fixture
async def call(tools):
    """Calls a tool in its sandbox, by name."""
    given = [tools.describe, tools.twice, tools.refuse, tools.explode, tools.hang]
    async with Sandboxes(preload=preloaded(given)) as sandboxes:
        yield Calling(FunctionToolset(confined(given, sandboxes)))


async def test_a_tool_is_the_same_in_another_process(call, tools):
    found = await call("describe", place={"city": "Bern", "since": "1848-11-28"})
    assert found == {"process": found["process"], "key": "r:c", "year": 1848, "seconds_left": True}
    assert found["process"] != os.getpid()
    assert call.reports == ["looking at Bern"]
    assert await call("twice", number=21) == 42
    specs = {spec.name: spec for spec in await call.toolset.specs()}
    assert specs["describe"] == tools.describe.spec
    assert specs["hang"].timeout_seconds == 0.3


async def test_its_errors_are_those_of_a_tool(call):
    with pytest.raises(BadArguments, match="number"):
        await call("twice", number="x")
    with pytest.raises(ToolError, match=r"^not today$"):
        await call("refuse")
    with pytest.raises(ToolError, match=r"^explode failed with ValueError at tools.py:\d+$"):
        await call("explode", text="bang")
    began = time.monotonic()
    with pytest.raises(ToolTimeout):
        await call("hang")
    assert time.monotonic() - began < 5


async def test_a_run_goes_on_after_its_tool_was_killed(tools):
    model = ScriptedModel.by_turn([ToolCall(id="a", name="hang"), "It hangs."])
    async with Sandboxes() as sandboxes:
        agent = Agent(model, tools=confined([tools.hang], sandboxes))
        outcome = await agent.run("go")
    assert isinstance(outcome, Completed)
    assert outcome.output == "It hangs."


async def test_by_itself_a_tool_of_the_pool_is_not_called(tools):
    context = ToolContext(deps=None, run_id="r", call_id="c", idempotency_key="k")
    with pytest.raises(UsageError, match="pool"):
        await tools.describe.call(ToolCall(id="c", name="describe", arguments={}), context)


async def test_what_cannot_be_imported_is_refused_with_the_ways_out(tools):
    def closure() -> int:
        """Count."""
        return 1

    class Counter:
        def method(self) -> int:
            """Count."""
            return 1

    sandboxes = Sandboxes()
    partly = tool(name="partly")(functools.wraps(closure)(lambda: 1))
    for given in (closure, tool(closure), Counter().method, partly):
        with pytest.raises(UsageError, match=r'imported by name.*top of a module.*sandbox="inprocess"'):
            confined([given], sandboxes)
    with pytest.raises(UsageError, match="dependencies"):
        confined([tools.needs], sandboxes, deps=Dependencies(given=True))
    trusted = tool(sandbox="inprocess")(closure)
    assert confined([trusted], sandboxes) == [trusted]
    assert confined([closure], sandboxes, usual="inprocess")[0].function is closure


async def test_the_operator_goes_before_the_tool(tools):
    said = {"describe": Confinement(sandbox="inprocess"), "twice": Confinement(limits=Limits(seconds=2))}
    placed = confined([tools.describe, tools.twice], Sandboxes(), terms=said)
    assert not isinstance(placed[0], ConfinedTool)
    assert placed[1].confinement == Confinement(sandbox="pool", limits=Limits(seconds=2))
    with pytest.raises(UsageError):
        Confinement(sandbox="cellar")
    with pytest.raises(UsageError):
        Confinement(grants=Grants(hosts=("http://x",)))


async def test_what_a_tool_prints_is_logged_and_not_told_to_the_model(tools, caplog):
    tracer = sdk_trace.TracerProvider()
    spans = InMemorySpanExporter()
    tracer.add_span_processor(SimpleSpanProcessor(spans))
    granted = {"speak": Confinement(grants=Grants(secrets=("SBX_KEY",)))}
    turns = [[ToolCall(id=key, name="speak", arguments={"key": key})] for key in ("well", "fail")]
    model = ScriptedModel.by_turn([*turns, "Done."])
    caplog.set_level("INFO", "agentkit.tools")
    async with Sandboxes(secrets={"SBX_KEY": "s3cret"}) as sandboxes:
        told = confined([tools.speak], sandboxes, terms=granted)
        agent = Agent(model, tools=told, telemetry=Telemetry(tracer_provider=tracer))
        outcome = await agent.run("go", run_id="r1")
    assert isinstance(outcome, Completed)
    lines = [
        record.getMessage()
        for record in caplog.records
        if record.name == "agentkit.tools" and " of run r1, " in record.getMessage()
    ]
    output = r"tool speak of run r1, output: key [secret SBX_KEY]\nforged\u001b[2J\u202e"
    errors = "tool speak of run r1, errors: " + "x" * 2000 + " … and 3001 more"
    assert lines == [output, errors] * 2
    assert "forged" not in str([each.step for each in outcome.transcript])
    lengths = [
        (span.attributes["agentkit.tool.stdout.length"], span.attributes["agentkit.tool.stderr.length"])
        for span in spans.get_finished_spans()
        if span.name == "execute_tool speak"
    ]
    assert lengths == [(len("key [secret SBX_KEY]\nforged\x1b[2J\u202e\n"), 5001)] * 2


async def test_names_that_another_process_finds(tools):
    assert import_name(tools.describe) == "sandboxed.tools:describe"
    assert import_name(tool(tools.twice)) == "sandboxed.tools:twice"
    assert import_name(tool(tools.Place.model_validate)) is None


@JAILED
async def test_a_model_runs_python_and_commands_in_the_jail():
    assert python_tool().spec.effect is Effect.IDEMPOTENT
    assert python_tool(Confinement(grants=Grants(hosts=("example.com",)))).spec.effect is Effect.UNSAFE
    calls = [
        ToolCall(id="a", name="python", arguments={"code": "print(sum(range(10)))\nraise SystemExit(3)"}),
        ToolCall(id="b", name="shell", arguments={"command": "echo $((6 * 7)); cat /etc/shadow"}),
    ]
    model = ScriptedModel.by_turn([calls, "Done."])
    async with Sandboxes() as sandboxes:
        agent = Agent(model, tools=confined([python_tool(), shell_tool()], sandboxes))
        outcome = await asyncio.wait_for(agent.run("go"), 60)
    told: Any = {
        each.step.tool: each.step.output for each in outcome.transcript if isinstance(each.step, ToolReturned)
    }
    assert told["python"] == {"exit_code": 3, "stdout": "45\n", "stderr": ""}
    assert (told["shell"]["stdout"], told["shell"]["exit_code"]) == ("42\n", 1)


async def test_programs_start_in_the_folder_of_the_files_that_they_may_use(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.txt").write_text("from the project", encoding="utf-8")
    for folder in (tmp_path, tmp_path / "data"):
        folder.chmod(0o755)
    calls = [
        ToolCall(id="a", name="python", arguments={"code": "print(open('data/notes.txt').read())"}),
        ToolCall(id="b", name="shell", arguments={"command": "cat data/notes.txt; pwd"}),
    ]
    model = ScriptedModel.by_turn([calls, "Done."])
    terms = Confinement(grants=Grants(read=(tmp_path / "data",)), folder=str(tmp_path))
    async with Sandboxes() as sandboxes:
        tools = confined([python_tool(), shell_tool()], sandboxes, terms={"python": terms, "shell": terms})
        outcome = await asyncio.wait_for(Agent(model, tools=tools).run("go"), 60)
    told: Any = [each.step.output for each in outcome.transcript if isinstance(each.step, ToolReturned)]
    assert sorted(one["stdout"] for one in told) == ["from the project\n", f"from the project{tmp_path}\n"], (
        told
    )
    for description in (each.description for each in model.requests[0].tools):
        assert "relative paths are from there" in description
        assert "empty folder" not in description
