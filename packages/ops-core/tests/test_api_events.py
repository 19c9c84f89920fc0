import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ops_core.api.events import KEEP_ALIVE, events

from .api_support import FAR, Stage, staged  # type: ignore[import-not-found]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncGenerator[Stage]:
    async with staged(tmp_path) as opened:
        yield opened


def path_of(task: dict[str, Any]) -> str:
    return f"/api/v1/tasks/{task['id']}/events"


async def events_of(stage: Stage, task: dict[str, Any], **options: Any) -> list[httpx2.ServerSentEvent]:
    async with stage.http.stream("GET", path_of(task), **options) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        return [event async for event in httpx2.EventSource(response)]


async def test_steps_come_as_they_are_recorded_and_the_end_with_the_status(stage):
    task = await stage.submit("held")
    kinds: list[str] = []
    async with stage.http.stream("GET", path_of(task)) as response:
        async for event in httpx2.EventSource(response):
            if event.event == "step":
                step = json.loads(event.data)
                assert event.id == str(step["seq"]) == str(len(kinds))
                kinds.append(step["kind"])
                stage.agents.gate.set()  # nothing goes on before the first step was seen
            else:
                assert (event.event, json.loads(event.data)) == ("end", {"status": "completed"})
                kinds.append("end")
    assert kinds == ["run_started", "model_replied", "finished", "end"]
    listed = (await stage.json("GET", f"/api/v1/tasks/{task['id']}/steps"))["items"]
    assert [step["kind"] for step in listed] == kinds[:-1]


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, [0, 1, 2]),
        ({"headers": {"Last-Event-ID": "0"}}, [1, 2]),
        ({"params": {"after": "1"}}, [2]),
        ({"params": {"after": "-1"}}, [0, 1, 2]),
        ({"params": {"after": "-1"}, "headers": {"Last-Event-ID": "1"}}, [2]),
        ({"headers": {"Last-Event-ID": "2"}}, []),
        ({"headers": {"Last-Event-ID": "2147483647"}}, []),
    ],
)
async def test_a_stream_resumes_after_the_end_too(stage, options, expected):
    task = await stage.submit()
    await stage.until(task["id"], "completed")
    *steps, end = await events_of(stage, task, **options)
    assert [json.loads(event.data)["seq"] for event in steps] == expected
    assert end.event == "end"


async def test_the_end_has_no_id_of_its_own(stage):
    task = await stage.submit()
    await stage.until(task["id"], "completed")
    answer = await stage.http.get(path_of(task), headers={"Last-Event-ID": "2"})
    assert answer.text == 'event: end\ndata: {"status":"completed"}\n\n'


@pytest.mark.parametrize("seen", ["", "x", "1.0", "-1", "2147483648", "9" * 40])
async def test_a_number_that_no_step_has_is_refused(stage, seen):
    task = await stage.submit(run_at=FAR)
    told = await stage.json("GET", path_of(task), headers={"Last-Event-ID": seen}, expected=422)
    assert told["field"] == "Last-Event-ID"


async def test_a_task_that_never_ran_ends_with_its_cancellation(stage):
    task = await stage.submit(run_at=FAR)
    streaming = asyncio.ensure_future(events_of(stage, task))
    while not stage.ops.engine._watchers:
        await asyncio.sleep(0.01)
    await stage.json("POST", f"/api/v1/tasks/{task['id']}/cancel")
    [step, end] = await streaming
    assert json.loads(step.data)["kind"] == "finished"
    assert json.loads(end.data) == {"status": "cancelled"}


async def test_a_client_that_goes_leaves_nothing_behind(stage):
    task = await stage.submit(run_at=FAR)
    async with stage.http.stream("GET", path_of(task)):
        while not stage.ops.engine._watchers:
            await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        while stage.ops.engine._watchers:
            await asyncio.sleep(0.01)


async def test_streams_end_without_an_end_event_when_the_server_stops(stage):
    task = await stage.submit(run_at=FAR)
    streaming = asyncio.ensure_future(events_of(stage, task))
    while not stage.ops.engine._watchers:
        await asyncio.sleep(0.01)
    stage.closing.set()
    assert await streaming == []


async def test_a_silent_stream_shows_that_it_lives(stage):
    task = await stage.submit(run_at=FAR)
    stream: AsyncIterator[bytes] = events(stage.ops.engine, task["id"], -1, asyncio.Event(), 0.01)
    assert [await anext(stream), await anext(stream)] == [KEEP_ALIVE, KEEP_ALIVE]
    await stream.aclose()  # type: ignore[attr-defined]
    assert not stage.ops.engine._watchers
