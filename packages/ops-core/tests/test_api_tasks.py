import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .api_support import FAR, NOWHERE, Stage, staged  # type: ignore[import-not-found]

TASKS = "/api/v1/tasks"


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as opened:
        yield opened


async def test_a_task_is_accepted_found_and_carried_to_its_end(stage):
    answer = await stage.http.post(
        TASKS, json={"agent": "quick", "input": {"a": [1, None, "ü"]}, "labels": {"k": "v"}}
    )
    assert answer.status_code == 202
    task = answer.json()
    assert answer.headers["location"] == f"{TASKS}/{task['id']}"
    assert answer.headers["cache-control"] == "no-store"
    ended = await stage.until(task["id"], "completed")
    assert (ended["output"], ended["input"], ended["labels"]) == ("done", {"a": [1, None, "ü"]}, {"k": "v"})
    assert ended["usage"]["model_calls"] == 1


async def test_prefer_wait_answers_when_the_task_has_ended(stage):
    answer = await stage.http.post(
        TASKS, json={"agent": "quick", "input": "go"}, headers={"Prefer": "foo, wait=20"}
    )
    assert (answer.status_code, answer.json()["status"]) == (202, "completed")
    assert answer.headers["preference-applied"] == "wait=20"


async def test_prefer_wait_is_capped_and_ends_with_the_time_or_the_server(stage):
    held = {"agent": "held", "input": "go"}
    answer = await stage.http.post(TASKS, json=held, headers={"Prefer": "wait=0"})
    assert answer.json()["status"] in ("pending", "running")
    waiting = asyncio.ensure_future(stage.http.post(TASKS, json=held, headers={"Prefer": "wait=999"}))
    while len((await stage.json("GET", f"{TASKS}?agent=held"))["items"]) < 2:
        await asyncio.sleep(0.01)
    stage.closing.set()
    answer = await waiting
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=60")
    assert answer.json()["finished_at"] is None


async def test_a_key_makes_one_task_however_often_and_however_it_is_written(stage):
    body = {"agent": "quick", "input": "go", "run_at": FAR}
    first = await stage.http.post(TASKS, json=body, headers={"Idempotency-Key": "a key"})
    quoted = await stage.http.post(
        TASKS, json={**body, "priority": 0}, headers={"Idempotency-Key": '"a key"'}
    )
    assert (first.status_code, quoted.status_code) == (202, 200)
    assert first.json() == quoted.json()
    assert quoted.headers["location"] == first.headers["location"]
    other = {**body, "input": "stay"}
    told = await stage.json("POST", TASKS, json=other, headers={"Idempotency-Key": "a key"}, expected=422)
    assert (told["code"], told["field"]) == ("idempotency_conflict", "Idempotency-Key")


async def test_a_key_sent_many_times_at_once_makes_one_task(stage):
    body, headers = {"agent": "quick", "input": "go"}, {"Idempotency-Key": "k"}
    answers = await asyncio.gather(*(stage.http.post(TASKS, json=body, headers=headers) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1


@pytest.mark.parametrize("key", ["x" * 255, '"' + "x" * 255 + '"', r'"a \" b \\ c"', "~"])
async def test_a_key_may_be_long_or_quoted(stage, key):
    body = {"agent": "quick", "input": "go"}
    await stage.json("POST", TASKS, json=body, headers={"Idempotency-Key": key}, expected=202)


async def test_a_list_is_filtered_and_paged_to_its_end(stage):
    for number in range(5):
        await stage.submit(labels={"n": str(number), "odd": str(number % 2)}, run_at=FAR)
    await stage.submit("a/b", run_at=FAR)
    seen: list[str] = []
    cursor = ""
    while True:
        page = await stage.json("GET", f"{TASKS}?limit=2&agent=quick{cursor}")
        seen += [task["labels"]["n"] for task in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ["4", "3", "2", "1", "0"]
    odd = await stage.json("GET", f"{TASKS}?label=odd%3D1")
    assert [task["labels"]["n"] for task in odd["items"]] == ["3", "1"]
    assert len((await stage.json("GET", f"{TASKS}?label=n"))["items"]) == 5
    cancelled = odd["items"][0]["id"]
    await stage.json("POST", f"{TASKS}/{cancelled}/cancel")
    for query in ("status=cancelled&status=failed", "status=failed,cancelled"):
        assert [task["id"] for task in (await stage.json("GET", f"{TASKS}?{query}"))["items"]] == [cancelled]


async def test_parameters_are_known_on_every_operation(stage):
    task = await stage.submit(run_at=FAR)
    for path in (f"{TASKS}/{task['id']}", "/api/v1/agents", "/health/live", f"{TASKS}/{task['id']}/steps"):
        assert (await stage.json("GET", f"{path}?x=1", expected=422))["field"] == "x"


async def test_steps_come_in_pages(stage):
    task = await stage.submit()
    await stage.until(task["id"], "completed")
    whole = await stage.json("GET", f"{TASKS}/{task['id']}/steps")
    assert [step["kind"] for step in whole["items"]] == ["run_started", "model_replied", "finished"]
    assert whole["next_after"] is None
    part = await stage.json("GET", f"{TASKS}/{task['id']}/steps?after=0&limit=1")
    assert (part["items"], part["next_after"]) == ([whole["items"][1]], 1)
    assert (await stage.json("GET", f"{TASKS}/{task['id']}/steps?after=2147483647"))["items"] == []
    for after in ("-2", "2147483648", "99999999999999999999", "one", "1_0"):
        told = await stage.json("GET", f"{TASKS}/{task['id']}/steps?after={after}", expected=422)
        assert told["field"] == "after"


async def test_cancel_may_be_repeated_and_stops_a_running_task(stage):
    task = await stage.submit("held")
    await stage.until(task["id"], "running")
    await stage.json("POST", f"{TASKS}/{task['id']}/cancel")
    ended = await stage.until(task["id"], "cancelled")
    assert await stage.json("POST", f"{TASKS}/{task['id']}/cancel") == ended


async def test_retry_makes_a_new_task_of_one_that_failed(stage):
    task = await stage.submit("failing")
    failed = await stage.until(task["id"], "failed")
    assert failed["error"]["code"] == "model_bad_request"
    answer = await stage.http.post(f"{TASKS}/{task['id']}/retry")
    assert answer.status_code == 202
    assert answer.headers["location"] == f"{TASKS}/{answer.json()['id']}" != f"{TASKS}/{task['id']}"
    done = await stage.submit()
    await stage.until(done["id"], "completed")
    told = await stage.json("POST", f"{TASKS}/{done['id']}/retry", expected=409)
    assert told["code"] == "transition_refused"


async def test_an_approval_is_given_once(stage):
    task = await stage.submit("asking")
    await stage.until(task["id"], "waiting")
    steps = (await stage.json("GET", f"{TASKS}/{task['id']}/steps"))["items"]
    [asked] = [step for step in steps if step["kind"] == "approval_asked"]
    approvals = f"{TASKS}/{task['id']}/approvals"
    told = await stage.json("POST", f"{approvals}/other", json={"approved": True}, expected=404)
    assert told["code"] == "approval_not_found"
    for wrong in ({}, {"approved": "yes"}, {"approved": 1}, {"approved": True, "x": 1}):
        await stage.json("POST", f"{approvals}/{asked['approval_id']}", json=wrong, expected=422)
    given = {"approved": True, "reason": "fine", "by": "kim"}
    await stage.json("POST", f"{approvals}/{asked['approval_id']}", json=given)
    assert (await stage.until(task["id"], "completed"))["output"] == "launched"
    again = await stage.json("POST", f"{approvals}/{asked['approval_id']}", json=given)  # an answer was lost
    assert again["status"] == "completed"
    other = {**given, "by": "lee"}
    told = await stage.json("POST", f"{approvals}/{asked['approval_id']}", json=other, expected=409)
    assert (told["code"], told["detail"]) == ("approval_conflict", "it was approved by kim before")


async def test_a_body_where_none_belongs_is_refused(stage):
    task = await stage.submit(run_at=FAR)
    for verb in ("cancel", "retry"):
        told = await stage.json("POST", f"{TASKS}/{task['id']}/{verb}", json={"force": True}, expected=422)
        assert told["field"] == "body"
    assert (await stage.json("GET", f"{TASKS}/{task['id']}"))["status"] == "pending"


async def test_agents_are_listed_and_found(stage):
    listed = (await stage.json("GET", "/api/v1/agents"))["items"]
    assert [agent["name"] for agent in listed] == [*("quick", "failing", "asking", "held", "a/b", "knowing")]
    [found] = listed[2]["tools"]
    parameters = found.pop("parameters")
    assert found == {"name": "launch", "description": "Launch a rocket.", "effect": "pure", "approval": True}
    assert (parameters["type"], listed[2]["output_schema"]) == ("object", None)
    for path in ("a/b", "a%2Fb"):
        assert (await stage.json("GET", f"/api/v1/agents/{path}"))["instructions"] == "A name with a slash."
    assert (await stage.json("GET", "/api/v1/agents/nobody", expected=404))["code"] == "agent_not_found"


async def test_head_is_answered_as_get_without_the_body(stage):
    task = await stage.submit("held")
    there = [
        TASKS,
        f"{TASKS}/{task['id']}",
        "/api/v1/agents",
        "/health/live",
        "/metrics",
        "/openapi.json",
        "/docs",
    ]
    for path in (*there, f"{TASKS}/{NOWHERE}", f"{TASKS}?limit=0", "/nowhere"):
        head, got = await stage.http.head(path), await stage.http.get(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        told = {
            name: got.headers[name] for name in ("content-type", "content-security-policy", "cache-control")
        }
        assert {name: head.headers[name] for name in told} == told
        assert "content-length" in head.headers
    stream = await stage.http.head(f"{TASKS}/{task['id']}/events")  # of a task that has not ended
    assert (stream.status_code, stream.headers["content-type"].split(";")[0]) == (200, "text/event-stream")
    refused = await stage.http.head(f"{TASKS}/{task['id']}/cancel")
    assert (refused.status_code, refused.headers["allow"], refused.content) == (405, "POST", b"")
    counted = (await stage.http.get("/metrics")).text
    assert 'method="HEAD",route="/api/v1/tasks/{task_id}"' in counted.replace(" ", "")
