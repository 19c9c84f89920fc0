"""Bodies of a caller's size: bounded in values, and read and written beside the event loop."""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from ops_core.concurrency.offload import SMALL_BYTES, Offload
from ops_core.protocol.v1 import task_service_pb2 as messages
from ops_core.protocol.v1.task_service_pb2_grpc import TaskServiceStub
from ops_core.strict_json import MAX_VALUES, NotStrict, parse

from .api_support import FAR, Stage, staged  # type: ignore[import-not-found]

TASKS = "/api/v1/tasks"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncGenerator[Stage]:
    async with staged(tmp_path) as opened:
        yield opened


def values(count: int) -> str:
    """An object that holds so many values, itself counted."""
    return json.dumps({"zeros": [0] * (count - 2)}, separators=(",", ":"))


def task(given: str) -> str:
    return f'{{"agent": "quick", "run_at": "{FAR}", "input": {given}}}'


@pytest.mark.parametrize(
    "text", ["[" + "[],{}," * 4 + "0]", '{"a": 1, "b": [1, "x,[{:", {"c": "\\\\\\","}]}', "[]", "1", '"[,{"']
)
def test_every_value_counts_and_punctuation_in_strings_does_not(text):
    def count(value):
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return 1 + sum(count(item) for item in inner)

    exact = count(json.loads(text))
    containers = text.count("[]") + text.count("{}")  # an empty one counts as if it held something
    parse(text.encode(), max_values=exact + containers)
    with pytest.raises(NotStrict, match="more than"):
        parse(text.encode(), max_values=exact - 1)


async def test_a_body_is_bounded_in_values(stage):
    allowed = MAX_VALUES - 3  # the body itself and its other fields
    await stage.json("POST", TASKS, content=task(values(allowed)), headers=JSON, expected=202)
    body = task(values(MAX_VALUES))
    refused = await stage.json("POST", TASKS, content=body, headers=JSON, expected=400)
    assert (refused["code"], refused["detail"]) == (
        "malformed_body",
        "The body holds more than 100000 values.",
    )


async def test_a_batch_may_hold_more_values(stage):
    batch = f'{{"tasks": [{", ".join([task(values(MAX_VALUES - 10))] * 2)}]}}'
    told = await stage.json("POST", f"{TASKS}:batch", content=batch, headers=JSON)
    assert [item["status"] for item in told["items"]] == [202, 202]


async def test_a_message_of_grpc_is_bounded_in_values(stage):
    async with aio.insecure_channel(stage.grpc_url.removeprefix("grpc://")) as channel:
        asked = messages.CreateTaskRequest(agent="quick", input_json=values(MAX_VALUES + 1))
        with pytest.raises(aio.AioRpcError) as refused:
            await TaskServiceStub(channel).CreateTask(asked)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_text_full_of_punctuation_is_one_value(stage):
    text = "[{a, b}], " * 60_000
    made = await stage.json("POST", TASKS, content=task(json.dumps(text)), headers=JSON, expected=202)
    assert made["input"] == text


async def test_large_pieces_of_work_leave_the_loop_and_wait_for_each_other():
    run, running, most = Offload(), 0, 0

    def work() -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        running -= 1
        return threading.get_ident()

    where = await asyncio.gather(*(run(SMALL_BYTES + 1, work) for _ in range(20)))
    assert (threading.get_ident() in where, most) == (False, 1)
    assert await run(SMALL_BYTES, work) == threading.get_ident()


async def test_errors_of_offloaded_work_arrive():
    with pytest.raises(ZeroDivisionError):
        await Offload()(SMALL_BYTES + 1, lambda: 1 // 0)


class Beside(ThreadPoolExecutor):
    """The threads beside the event loop, and how often it has given work to them."""

    def __init__(self) -> None:
        super().__init__(max_workers=2)
        self.given = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.given += 1
        return super().submit(fn, *args, **kwargs)


@pytest.fixture
async def beside() -> Beside:
    made = Beside()
    asyncio.get_running_loop().set_default_executor(made)  # the loop shuts it down
    return made


@pytest.mark.parametrize("path", [TASKS, f"{TASKS}:batch"])
async def test_a_large_body_is_read_beside_the_loop(beside, stage, path):
    for text, given in (("x", 0), ("x" * SMALL_BYTES, 2)):  # it is parsed, and validated
        body = task(json.dumps(text))
        if path != TASKS:
            body = f'{{"tasks": [{body}]}}'
        before = beside.given
        answered = await stage.http.post(path, content=body, headers=JSON)
        assert answered.status_code in {200, 202}
        assert beside.given - before == given


async def test_pages_are_written_beside_the_loop(beside, stage):
    made = await stage.submit(run_at=FAR)
    before = beside.given
    await stage.json("GET", TASKS)
    await stage.json("GET", f"{TASKS}/{made['id']}/steps")
    assert beside.given - before == 2


async def test_a_list_of_large_tasks_comes_in_pages_that_lead_on(stage):
    text = "x" * 900_000
    made = [(await stage.submit(run_at=FAR, input=text))["id"] for _ in range(5)][::-1]
    seen, cursor = list[list[str]](), dict[str, str]()
    while True:
        page = await stage.json("GET", TASKS, params={"limit": 200, **cursor})
        seen.append([item["id"] for item in page["items"]])
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == [made[:3], made[3:]]
    basic = await stage.json("GET", TASKS, params={"view": "basic"})
    assert [(item["id"], item["input"]) for item in basic["items"]] == [(id_, None) for id_ in made]
    told = await stage.json("GET", TASKS, params={"view": "tiny"}, expected=422)
    assert told["field"] == "view"


async def test_every_client_lists_without_texts(client):
    page = await client.list(view="basic")
    assert page.items == []


async def test_a_list_that_goes_on_keeps_its_view(stage):
    for _ in range(3):
        await stage.submit(run_at=FAR)
    first = await stage.json("GET", TASKS, params={"limit": 2, "view": "basic"})
    rest = await stage.json("GET", TASKS, params={"view": "full", "cursor": first["next_cursor"]})
    assert [item["input"] for item in rest["items"]] == ["go"]
