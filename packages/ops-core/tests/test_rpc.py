"""The gRPC surface: what is told when something fails, and what is left when somebody goes away."""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from grpc import aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from agentkit.transcript.codec import recorded_to_json
from agentkit.transcript.steps import Recorded, ToolReturned
from ops_core.assembly import open_ops
from ops_core.concurrency.shutdown import Closing, until_closing
from ops_core.errors import ConfigError, StoreUnavailable
from ops_core.problem_details import STATUSES, FieldProblem, Problem
from ops_core.protocol.errors import DETAILS, details_of, message_of
from ops_core.protocol.v1 import agent_service_pb2 as agents
from ops_core.protocol.v1 import task_pb2
from ops_core.protocol.v1 import task_service_pb2 as messages
from ops_core.protocol.v1.agent_service_pb2_grpc import AgentServiceStub
from ops_core.protocol.v1.task_service_pb2_grpc import TaskServiceStub
from ops_core.rpc import health
from ops_core.rpc.serve import serving
from ops_core.settings import Settings

from .api_support import NOWHERE, Agents, Stage, staged  # type: ignore[import-not-found]

FAR = Timestamp(seconds=32_472_144_000)
TEXT = '"go"'


@dataclass(kw_only=True)
class Calls:
    """The stubs of a server, and what is behind it."""

    stage: Stage
    tasks: Any  # the types of the stubs are those of threads and of asyncio at once
    agents: Any
    health: Any

    async def create(self, agent: str = "quick", **fields) -> task_pb2.Task:
        asked = messages.CreateTaskRequest(agent=agent, input_json=TEXT, **fields)
        return (await self.tasks.CreateTask(asked)).task

    async def nobody_watches(self) -> None:
        async with asyncio.timeout(10):
            while self.stage.ops.engine._watchers or self.stage.ops.engine._waiters:
                await asyncio.sleep(0.005)

    async def watched(self, task_id: str) -> None:
        async with asyncio.timeout(10):
            while task_id not in self.stage.ops.engine._watchers:
                await asyncio.sleep(0.005)


@pytest.fixture
async def calls(tmp_path: Path) -> AsyncGenerator[Calls]:
    async with staged(tmp_path, max_body_bytes=2048, max_batch_bytes=8192) as stage:
        target = stage.grpc_url.removeprefix("grpc://")
        async with aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            yield Calls(
                stage=stage,
                tasks=TaskServiceStub(channel),
                agents=AgentServiceStub(channel),
                health=HealthStub(channel),
            )


def told(error: aio.AioRpcError) -> tuple[ErrorInfo, dict[str, str]]:
    """The details of an error: what it is, and the fields at fault."""
    info, bad = ErrorInfo(), BadRequest()
    status = Status.FromString(dict(error.trailing_metadata())[DETAILS])
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
    assert info.domain == "opspawn"
    return info, {violation.field: violation.description for violation in bad.field_violations}


def health_stub(channel: aio.Channel) -> Any:
    return HealthStub(channel)


async def refused(call) -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as raised:
        async with asyncio.timeout(10):
            await call
    return raised.value


# --- errors -------------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "agent": ({"agent": "nobody"}, "AGENT_NOT_FOUND"),
    "input_json": ({"input_json": "12"}, "INVALID_REQUEST"),
    "input_json.a.1": ({"input_json": '{"a": [1, NaN]}'}, "INVALID_REQUEST"),
    "input_json.a": ({"input_json": '{"a": 1, "a": 2}'}, "INVALID_REQUEST"),
    "labels.a b": ({"labels": {"a b": ""}}, "INVALID_REQUEST"),
    "priority": ({"priority": 1001}, "INVALID_REQUEST"),
    "run_at": ({"run_at": Timestamp(seconds=2**62)}, "INVALID_REQUEST"),
    "timeout_seconds": ({"timeout_seconds": float("nan")}, "INVALID_REQUEST"),
    "max_attempts": ({"max_attempts": 0}, "INVALID_REQUEST"),
    "budget.steps": ({"budget": task_pb2.Budget(steps=0)}, "INVALID_REQUEST"),
    "idempotency_key": ({"idempotency_key": ""}, "INVALID_REQUEST"),
    "wait_seconds": ({"wait_seconds": -1}, "INVALID_REQUEST"),
}


@pytest.mark.parametrize("field", WRONG)
async def test_a_wrong_field_is_named(calls: Calls, field):
    wrong, reason = WRONG[field]
    fields: dict[str, Any] = {"agent": "quick", "input_json": TEXT, **wrong}
    asked = messages.CreateTaskRequest(**fields)
    error = await refused(calls.tasks.CreateTask(asked))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    info, violations = told(error)
    assert (info.reason, info.metadata["actor"]) == (reason, "user")
    assert list(violations) == [field] == [info.metadata["field"]]
    assert violations[field]
    assert (await calls.tasks.ListTasks(messages.ListTasksRequest())).tasks == []


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
@pytest.mark.parametrize("method", ["CreateTask", "GetTask", "ListSteps", "WatchTask"])
async def test_a_message_that_cannot_be_decoded_is_a_wrong_argument(calls: Calls, caplog, method, data):
    async with aio.insecure_channel(calls.stage.grpc_url.removeprefix("grpc://")) as channel:
        path = f"/opspawn.v1.TaskService/{method}"
        streams = method == "WatchTask"
        call: Any = channel.unary_stream(path)(data).read() if streams else channel.unary_unary(path)(data)
        error = await refused(call)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    info, _violations = told(error)
    assert info.reason == "MALFORMED_BODY"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_json_that_is_nested_too_deep_is_refused_as_over_http(calls: Calls):
    for depth, fine in ((62, True), (63, False), (900, False)):
        text = '{"a":' + "[" * depth + "]" * depth + "}"
        asked = messages.CreateTaskRequest(agent="quick", input_json=text, run_at=FAR)
        if fine:
            await calls.tasks.CreateTask(asked)
        else:
            assert "nested deeper" in str((await refused(calls.tasks.CreateTask(asked))).details())
        body = f'{{"agent": "quick", "input": {text}, "run_at": "2999-01-01T00:00:00Z"}}'
        headers = {"Content-Type": "application/json"}
        answer = await calls.stage.http.post("/api/v1/tasks", content=body, headers=headers)
        assert answer.status_code == (202 if fine else 400)


async def test_what_is_not_there_is_not_found(calls: Calls):
    after = {"task_id": NOWHERE}
    for call in (
        calls.tasks.GetTask(messages.GetTaskRequest(**after)),
        calls.tasks.CancelTask(messages.CancelTaskRequest(**after)),
        calls.tasks.RetryTask(messages.RetryTaskRequest(**after)),
        calls.tasks.ListSteps(messages.ListStepsRequest(**after)),
        calls.tasks.WatchTask(messages.WatchTaskRequest(**after)).read(),
        calls.tasks.GetTask(messages.GetTaskRequest(task_id="no UUID")),
    ):
        error = await refused(call)
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert told(error)[0].reason == "TASK_NOT_FOUND"
    error = await refused(calls.agents.GetAgent(agents.GetAgentRequest(name="nobody")))
    assert (error.code(), told(error)[0].reason) == (grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND")


async def test_a_status_that_does_not_allow_it_is_a_failed_precondition(calls: Calls):
    task = await calls.create(run_at=FAR)
    error = await refused(calls.tasks.RetryTask(messages.RetryTaskRequest(task_id=task.id)))
    assert (error.code(), told(error)[0].reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "TRANSITION_REFUSED",
    )


async def test_an_answer_must_be_given(calls: Calls):
    asked = messages.AnswerApprovalRequest(task_id=NOWHERE, approval_id="a")
    error = await refused(calls.tasks.AnswerApproval(asked))
    assert told(error)[1] == {"approved": "Field required"}


async def test_pages(calls: Calls):
    made = [(await calls.create(run_at=FAR)).id for _ in range(3)]
    first = await calls.tasks.ListTasks(messages.ListTasksRequest(page_size=2))
    assert [task.id for task in first.tasks] == made[:0:-1]
    rest = messages.ListTasksRequest(page_size=2**31 - 1, page_token=first.next_page_token)
    last = await calls.tasks.ListTasks(rest)
    assert ([task.id for task in last.tasks], last.next_page_token) == (made[:1], "")
    refusals: dict[str, dict[str, Any]] = {
        "page_size": {"page_size": -1},
        "page_token": {"page_token": "x"},
        "statuses": {"statuses": [task_pb2.TASK_STATUS_UNSPECIFIED]},
        "label": {"label": "a b"},
    }
    for field, wrong in refusals.items():
        error = await refused(calls.tasks.ListTasks(messages.ListTasksRequest(**wrong)))
        assert list(told(error)[1]) == [field]
    steps = await refused(calls.tasks.ListSteps(messages.ListStepsRequest(task_id=made[0], after=-2)))
    assert list(told(steps)[1]) == ["after"]


async def test_a_field_of_a_newer_release_is_refused(calls: Calls):
    newer = messages.CreateTaskRequest(agent="quick", input_json=TEXT)
    newer.budget.MergeFromString(b"\x98\x06\x01")  # field 99
    error = await refused(calls.tasks.CreateTask(newer))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Budget has no field of number 99" in str(error.details())


async def test_a_message_is_bounded(calls: Calls):
    asked = messages.CreateTaskRequest(agent="quick", input_json=json.dumps("x" * 2048))
    error = await refused(calls.tasks.CreateTask(asked))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert told(error)[0].reason == "BODY_TOO_LARGE"
    batch = messages.BatchCreateTasksRequest(requests=[asked])
    assert (await calls.tasks.BatchCreateTasks(batch)).results[0].task_id
    batch = messages.BatchCreateTasksRequest(requests=[asked] * 4)
    error = await refused(calls.tasks.BatchCreateTasks(batch))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_batch_is_bounded_and_waits_for_nothing(calls: Calls):
    for requests in ([], [messages.CreateTaskRequest()] * 1001):
        error = await refused(
            calls.tasks.BatchCreateTasks(messages.BatchCreateTasksRequest(requests=requests))
        )
        assert list(told(error)[1]) == ["requests"]
    waiting = messages.CreateTaskRequest(agent="quick", input_json=TEXT, wait_seconds=1)
    answer = await calls.tasks.BatchCreateTasks(messages.BatchCreateTasksRequest(requests=[waiting]))
    assert answer.results[0].refusal.field == "wait_seconds"


def test_every_error_has_a_status_of_both_wires():
    assert {status.grpc for status in STATUSES.values()} <= set(grpc.StatusCode.__members__)


async def test_a_mistake_of_the_server_tells_nothing(calls: Calls, monkeypatch, caplog):
    async def broken(*_args: object) -> None:
        raise ZeroDivisionError("the password is hunter2")

    monkeypatch.setattr(calls.stage.ops.engine.store, "get", broken)
    error = await refused(calls.tasks.GetTask(messages.GetTaskRequest(task_id=NOWHERE)))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert told(error)[0].reason == "INTERNAL"
    assert "hunter2" not in str(error) + caplog.text
    assert "unexpected ZeroDivisionError at " in caplog.text

    async def gone(*_args: object) -> None:
        raise StoreUnavailable("the file of the store is gone")

    monkeypatch.setattr(calls.stage.ops.engine.store, "get", gone)
    error = await refused(calls.tasks.GetTask(messages.GetTaskRequest(task_id=NOWHERE)))
    assert (error.code(), error.details()) == (
        grpc.StatusCode.UNAVAILABLE,
        "The database does not answer.",
    )
    assert "the file of the store is gone" in caplog.text


def test_the_details_of_an_error_fit_into_a_header():
    many = [FieldProblem(field=f"labels.{n}" + "ü" * 900, message="Ω" * 1000) for n in range(100)]
    problem = Problem(title="x", status=422, detail="Ω" * 1000, code="invalid_request", errors=many)
    assert len(details_of(problem, 3)) + 3 * len(message_of(problem).encode()) < 6000


# --- time ---------------------------------------------------------------------------------------------------------


async def test_a_deadline_ends_a_wait_and_leaves_nobody_waiting(calls: Calls):
    asked = messages.CreateTaskRequest(agent="quick", input_json=TEXT, run_at=FAR, wait_seconds=60)
    error = await refused(calls.tasks.CreateTask(asked, timeout=0.3))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await calls.nobody_watches()
    [task] = (await calls.tasks.ListTasks(messages.ListTasksRequest())).tasks  # it was accepted, and stays so
    error = await refused(
        calls.tasks.WatchTask(messages.WatchTaskRequest(task_id=task.id), timeout=0.2).read()
    )
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await calls.nobody_watches()


async def test_a_watcher_who_goes_away_is_let_go(calls: Calls, caplog):
    task = await calls.create(run_at=FAR)
    watching = calls.tasks.WatchTask(messages.WatchTaskRequest(task_id=task.id))
    await calls.watched(task.id)
    watching.cancel()
    await calls.nobody_watches()
    assert caplog.records == []


async def test_a_cancelled_create_is_stored_or_not(calls: Calls):
    for turns in range(0, 40, 4):
        key = f"key-{turns}"
        asked = messages.CreateTaskRequest(
            agent="quick", input_json=TEXT, run_at=FAR, idempotency_key=key, labels={"key": key}
        )
        call = calls.tasks.CreateTask(asked)
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        again = await calls.tasks.CreateTask(asked)
        found = await calls.tasks.ListTasks(messages.ListTasksRequest(label=f"key={key}"))
        assert [task.id for task in found.tasks] == [again.task.id]


async def test_a_slow_watcher_holds_the_reading_up(calls: Calls, monkeypatch):
    """Steps of 100 MB together: what is not asked for is not read."""
    total, read = 1000, 0
    step = ToolReturned(call_id="c", tool="t", output="x" * 100_000)

    async def watch(_tenant: str, _task_id: str, after: int) -> AsyncGenerator[Recorded]:
        nonlocal read
        for seq in range(after + 1, total):
            read = seq
            yield Recorded(seq=seq, at=0.0, step=step)

    task = await calls.create(run_at=FAR)
    monkeypatch.setattr(calls.stage.ops.engine, "watch", watch)
    watching = calls.tasks.WatchTask(messages.WatchTaskRequest(task_id=task.id))
    assert (await watching.read()).step.seq == 0
    before = -1
    while before != read:  # until nothing moves any more
        before = read
        await asyncio.sleep(0.3)
    assert read < total / 5
    for seq in range(1, total):
        assert (await watching.read()).step.seq == seq
    assert (await watching.read()).HasField("end")


async def test_a_slow_watcher_who_goes_away_is_no_error(calls: Calls, monkeypatch, caplog):
    gone = asyncio.Event()
    step = ToolReturned(call_id="c", tool="t", output="x" * 1_000_000)

    async def watch(_tenant: str, _task_id: str, _after: int) -> AsyncGenerator[Recorded]:
        try:
            for seq in range(1000):
                yield Recorded(seq=seq, at=0.0, step=step)
        finally:
            gone.set()

    task = await calls.create(run_at=FAR)
    monkeypatch.setattr(calls.stage.ops.engine, "watch", watch)
    watching = calls.tasks.WatchTask(messages.WatchTaskRequest(task_id=task.id))
    await watching.read()
    watching.cancel()
    async with asyncio.timeout(10):
        await gone.wait()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_stopping_tells_watchers_and_answers_who_waits(calls: Calls):
    task = await calls.create(run_at=FAR)
    watching = calls.tasks.WatchTask(messages.WatchTaskRequest(task_id=task.id))
    waiting = asyncio.ensure_future(calls.create(run_at=FAR, wait_seconds=60))
    well = calls.health.Watch(HealthCheckRequest())
    assert (await well.read()).status == HealthCheckResponse.SERVING
    await calls.watched(task.id)
    async with asyncio.timeout(10):
        while not calls.stage.ops.engine._waiters:
            await asyncio.sleep(0.005)
    calls.stage.closing.set()
    error = await refused(watching.read())
    assert (error.code(), told(error)[0].reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_UNAVAILABLE")
    assert (await waiting).status == task_pb2.TASK_STATUS_PENDING
    assert (await well.read()).status == HealthCheckResponse.NOT_SERVING


async def test_until_closing_leaves_other_timeouts_alone():
    closing = asyncio.Event()
    with pytest.raises(TimeoutError):
        async with until_closing(closing):
            raise TimeoutError
    async with until_closing(closing):
        pass
    closing.set()
    with pytest.raises(Closing):
        async with until_closing(closing):
            await asyncio.sleep(60)


# --- values -------------------------------------------------------------------------------------------------------


async def test_a_task_is_told_as_over_http(calls: Calls):
    task = await calls.create("failing", wait_seconds=20, labels={"a": "b"})
    body = await calls.stage.json("GET", f"/api/v1/tasks/{task.id}")
    assert task.error.code == body["error"]["code"]
    assert not task.HasField("output_json")
    assert not task.usage.HasField("cost_usd")
    created = datetime.fromisoformat(body["created_at"])
    assert task.created_at.ToDatetime(tzinfo=UTC) == created
    done = await calls.create(wait_seconds=20)
    assert done.output_json == '"done"'
    assert done.status == task_pb2.TASK_STATUS_COMPLETED


async def test_the_steps_and_the_end_are_told(calls: Calls):
    task = await calls.create(wait_seconds=20)
    events = [event async for event in calls.tasks.WatchTask(messages.WatchTaskRequest(task_id=task.id))]
    assert events.pop().end == task_pb2.TASK_STATUS_COMPLETED
    stored = await calls.stage.ops.engine.steps("default", task.id)
    assert [json.loads(event.step.step_json) for event in events] == [recorded_to_json(one) for one in stored]
    assert [event.step.kind for event in events] == ["run_started", "model_replied", "finished"]
    assert [event.step.seq for event in events] == [0, 1, 2]
    assert events[0].step.at.ToDatetime(tzinfo=UTC).timestamp() == pytest.approx(stored[0].at, abs=1e-6)
    page = await calls.tasks.ListSteps(messages.ListStepsRequest(task_id=task.id, after=0, page_size=1))
    assert ([step.seq for step in page.steps], page.next_after) == ([1], 1)
    page = await calls.tasks.ListSteps(messages.ListStepsRequest(task_id=task.id, after=1))
    assert ([step.seq for step in page.steps], page.HasField("next_after")) == ([2], False)


# --- the server ---------------------------------------------------------------------------------------------------


async def test_health_is_that_of_the_store(calls: Calls, monkeypatch):
    for name in ("", "opspawn.v1.TaskService", "opspawn.v1.AgentService"):
        answer = await calls.health.Check(HealthCheckRequest(service=name))
        assert answer.status == HealthCheckResponse.SERVING
    error = await refused(calls.health.Check(HealthCheckRequest(service="another")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    unknown = calls.health.Watch(HealthCheckRequest(service="another"))
    assert (await unknown.read()).status == HealthCheckResponse.SERVICE_UNKNOWN

    monkeypatch.setattr(health, "LOOK_SECONDS", 0.01)
    watching = calls.health.Watch(HealthCheckRequest())
    assert (await watching.read()).status == HealthCheckResponse.SERVING

    async def gone(**_given: object) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(calls.stage.ops.engine.store, "check", gone)
        assert (await watching.read()).status == HealthCheckResponse.NOT_SERVING
        assert (await calls.health.Check(HealthCheckRequest())).status == HealthCheckResponse.NOT_SERVING
    assert (await watching.read()).status == HealthCheckResponse.SERVING


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
async def test_the_addresses_that_are_announced_answer(tmp_path, host):
    settings = Settings(store_url=f"sqlite:///{tmp_path}/ops.db", host=host, grpc_port=0)
    async with open_ops(settings, Agents()) as ops, serving(ops) as addresses:
        assert addresses
        for address in addresses:
            async with aio.insecure_channel(address.removeprefix("grpc://")) as channel:
                answer = await health_stub(channel).Check(HealthCheckRequest())
                assert answer.status == HealthCheckResponse.SERVING


async def test_a_port_that_is_taken_is_a_plain_error(tmp_path, capfd):
    first = Settings(store_url=f"sqlite:///{tmp_path}/ops.db", grpc_port=0)
    async with open_ops(first, Agents()) as ops, serving(ops) as [address]:
        port = int(address.rpartition(":")[2])
        second = ops.settings.model_copy(update={"grpc_port": port})
        async with open_ops(second, Agents()) as other:
            with pytest.raises(ConfigError, match=f"port {port} for gRPC: it is taken"):
                async with serving(other):
                    pass
    capfd.readouterr()  # gRPC says it in its own words, too


def test_the_port_of_grpc_is_the_one_after_that_of_http():
    for port, wanted in ((8700, 8701), (0, 0), (65535, 0)):
        assert Settings(port=port).listening_grpc_port == wanted
    assert Settings(port=8700, grpc_port=0).listening_grpc_port == 0
