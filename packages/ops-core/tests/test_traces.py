"""A trace goes from whoever submits over every wire to the worker, and through all attempts."""

import asyncio
import io
import logging
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentkit import Agent
from agentkit.errors import ModelBadRequest, ModelOverloaded
from agentkit.run.telemetry import Telemetry
from agentkit.testing.models import ScriptedModel
from agentkit.tracing import Trace
from ops_core.assembly import Ops, open_ops
from ops_core.client import Operations, open_client
from ops_core.config.catalog import Catalog
from ops_core.observability.logs import Lines
from ops_core.processes.server import serving_all
from ops_core.runner import Runner, RunnerOptions
from ops_core.schemas import BatchItem, TaskRequest
from ops_core.service import LocalClient
from ops_core.settings import Settings
from ops_core.task import DEFAULT_TENANT, RetryPolicy, TaskStatus

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class World:
    """A server without a worker, and a worker beside it whose spans are kept."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("caller")
        self.ops: Ops
        self.urls: list[str]

    def agent(self, name: str, replies: Any) -> Agent[Any, Any]:
        telemetry = Telemetry(tracer_provider=self.provider)
        return Agent(ScriptedModel(replies), name=name, telemetry=telemetry)

    def runs(self, task: str) -> list[ReadableSpan]:
        return [
            span
            for span in self.exporter.get_finished_spans()
            if span.name.startswith("invoke_agent") and span.attributes["gen_ai.conversation.id"] == task
        ]

    async def ended(self, task: str) -> TaskStatus:
        return (await self.ops.engine.until_ended(DEFAULT_TENANT, task, 20)).status


@pytest.fixture
async def world(tmp_path) -> AsyncGenerator[World]:
    world = World()
    catalog = Catalog(
        [
            world.agent("patient", [ModelOverloaded("not now"), "done"]),
            world.agent("failing", [ModelBadRequest("no"), "done"]),
        ]
    )
    settings = Settings(store_url=f"sqlite:///{tmp_path}/ops.db", port=0)
    options = RunnerOptions(owner="w", poll_seconds=0.02, retry=RetryPolicy(first_seconds=0.01))
    async with open_ops(settings, catalog) as ops, serving_all(ops, asyncio.Event(), worker=False) as urls:
        world.ops, world.urls = ops, list(urls)
        runner = Runner(ops.engine, catalog, options)
        running = asyncio.create_task(runner.run())
        yield world
        runner.stop()
        await running


@pytest.fixture(params=["http", "grpc", "local"])
async def client(request, world: World) -> AsyncGenerator[Operations]:
    if request.param == "local":
        yield LocalClient(world.ops.engine, world.ops.catalog)
        return
    async with open_client(world.urls[0 if request.param == "http" else 1]) as made:
        yield made


async def test_all_attempts_belong_to_the_trace_of_whoever_submitted(client: Operations, world: World):
    with world.tracer.start_as_current_span("caller") as caller:
        task = await client.submit(TaskRequest(agent="patient", input="go"))
    assert await world.ended(task.id) is TaskStatus.COMPLETED
    of = caller.get_span_context()
    runs = world.runs(task.id)
    assert [run.parent.span_id for run in runs] == [of.span_id, of.span_id]
    spans = [span for span in world.exporter.get_finished_spans() if span.name != "caller"]
    assert len(spans) == 4  # two calls of the model, too
    assert {span.context.trace_id for span in spans} == {of.trace_id}


async def test_what_is_retried_goes_on_in_the_trace(client: Operations, world: World):
    with world.tracer.start_as_current_span("caller") as caller:
        (result,) = await client.submit_many([BatchItem(agent="failing", input="go")])
    assert result.task_id is not None
    assert await world.ended(result.task_id) is TaskStatus.FAILED
    again = await client.retry(result.task_id)
    assert await world.ended(again.id) is TaskStatus.COMPLETED
    for task in (result.task_id, again.id):
        (run,) = world.runs(task)
        assert run.context.trace_id == caller.get_span_context().trace_id


async def test_without_a_span_there_is_no_trace(client: Operations, world: World):
    task = await client.submit(TaskRequest(agent="patient", input="go"))
    await world.ended(task.id)
    assert (await world.ops.engine.get(DEFAULT_TENANT, task.id)).trace is None
    assert [run.parent for run in world.runs(task.id)] == [None, None]


@pytest.mark.parametrize(
    "headers, kept",
    [
        ({"traceparent": PARENT, "tracestate": "a=b"}, Trace(PARENT, "a=b")),
        ({"traceparent": PARENT, "tracestate": "x" * 600}, Trace(PARENT)),
        ({"traceparent": "00-nonsense"}, None),
        ({"tracestate": "a=b"}, None),
    ],
)
async def test_a_malformed_header_is_ignored(world: World, headers, kept):
    body = {"agent": "patient", "input": "go", "run_at": "2999-01-01T00:00:00Z"}
    async with httpx2.AsyncClient(base_url=world.urls[0], trust_env=False) as http:
        answer = await http.post("/api/v1/tasks", json=body, headers=headers)
    assert answer.status_code == 202
    assert (await world.ops.engine.get(DEFAULT_TENANT, answer.json()["id"])).trace == kept


async def test_the_log_names_the_trace(world: World, caplog):
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(Lines("json"))
    caplog.set_level("INFO", "ops_core.runner")
    logging.getLogger("ops_core.runner").addHandler(handler)
    try:
        new = TaskRequest(agent="patient", input="go").as_new_task(trace=Trace(PARENT))
        task = (await world.ops.engine.submit(new)).task
        await world.ended(task.id)
    finally:
        logging.getLogger("ops_core.runner").removeHandler(handler)
    lines = [line for line in written.getvalue().splitlines() if "run began" in line]
    assert lines
    assert all(f'"{Trace(PARENT).id}"' in line for line in lines)
