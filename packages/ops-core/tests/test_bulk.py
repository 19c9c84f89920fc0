"""Tasks are cancelled and retried by a filter, at every door alike; each task by its own rules."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from pydantic import ValidationError

from agentkit import Agent
from ops_core.bulk import BulkVerb, TaskSelection
from ops_core.cli.commands import bulk
from ops_core.cli.options import CancelOptions, RetryOptions
from ops_core.client import Operations
from ops_core.errors import InvalidRequest, StoreUnavailable
from ops_core.schemas import BulkRequest
from ops_core.service import LocalClient
from ops_core.task import TaskStatus
from ops_core.testing import open_test_ops

from .api_support import FAR, Stage, staged  # type: ignore[import-not-found]
from .client_support import item, request  # type: ignore[import-not-found]


@pytest.fixture
async def stage(tmp_path) -> AsyncGenerator[Stage]:
    async with staged(tmp_path) as opened:
        yield opened


async def submit(client: Operations, count: int, **fields: Any) -> list[str]:
    results = await client.submit_many([item(run_at=FAR, **fields) for _ in range(count)])
    return [result.task_id for result in results if result.task_id is not None]


async def test_what_fits_is_counted_and_cancelled(client: Operations):
    await submit(client, 3, labels={"team": "blue"})
    [other] = await submit(client, 1, labels={"team": "red"})
    counted = await client.cancel_many(BulkRequest(label="team=blue", dry_run=True))
    assert (counted.matched, counted.done, counted.next_cursor) == (3, {}, None)
    assert counted.oldest_at is not None
    assert counted.newest_at is not None
    assert counted.oldest_at <= counted.newest_at
    assert {task.status for task in (await client.list()).items} == {"pending"}
    done = await client.cancel_many(BulkRequest(label="team=blue"))
    assert (done.matched, done.done, done.skipped, done.next_cursor) == (None, {"cancelled": 3}, {}, None)
    assert [task.id for task in (await client.list(status=["pending"])).items] == [other]
    again = await client.cancel_many(BulkRequest(label="team=blue"))
    assert (again.done, again.skipped) == ({}, {})
    none = await client.cancel_many(BulkRequest(agent="nobody", dry_run=True))
    assert (none.matched, none.oldest_at, none.newest_at) == (0, None, None)


async def test_a_running_task_is_asked_to_end(client: Operations, stage):
    task = await client.submit(request("held"))
    await stage.until(task.id, "running")
    done = await client.cancel_many(BulkRequest(agent="held", status=[TaskStatus.RUNNING]))
    assert done.done == {"cancelling": 1}
    assert (await client.wait_for_end(task.id, 20)).status == "cancelled"


async def test_each_task_is_retried_once(client: Operations):
    failed = await client.submit(request("failing"), wait=20)
    [cancelled] = await submit(client, 1, agent="failing")
    await client.cancel(cancelled)
    done = await client.retry_many(BulkRequest(agent="failing"))
    assert done.done == {"retried": 1}  # what somebody has cancelled is not meant, unless it is named
    assert (await client.get(failed.id)).retried_as is not None
    done = await client.retry_many(BulkRequest(agent="failing", status=[TaskStatus.CANCELLED]))
    assert done.done == {"retried": 1}
    done = await client.retry_many(BulkRequest(agent="failing", status=[TaskStatus.CANCELLED]))
    assert (done.done, done.skipped) == ({}, {"retried_before": 1})


async def test_a_request_looks_at_a_thousand_tasks_and_says_how_to_go_on(stage):
    client = LocalClient(stage.ops.engine, stage.agents)
    await submit(client, 1000)
    await submit(client, 5)
    first = await client.cancel_many(BulkRequest(all=True))
    assert (first.done, first.next_cursor is None) == ({"cancelled": 1000}, False)
    with pytest.raises(InvalidRequest) as raised:
        await client.cancel_many(BulkRequest(agent="quick", cursor=first.next_cursor))
    assert raised.value.field == "cursor"
    last = await client.cancel_many(BulkRequest(all=True, cursor=first.next_cursor))
    assert (last.done, last.next_cursor) == ({"cancelled": 5}, None)


@pytest.mark.parametrize(
    "fields, field",
    [
        ({}, "all"),
        ({"all": True, "agent": "quick"}, "all"),
        ({"status": ["completed"]}, "status"),
        ({"label": "a b"}, "label"),
        ({"agent": "quick", "cursor": "x"}, "cursor"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_its_name(client: Operations, fields, field):
    for handle in (client.cancel_many, client.retry_many):
        with pytest.raises(InvalidRequest) as raised:
            await handle(BulkRequest.model_validate(fields))
        assert raised.value.field == field


@pytest.mark.parametrize("older", [0, -1, "2h", float("nan"), 1e12])
def test_an_age_is_a_number_of_seconds(older):
    with pytest.raises(ValidationError):
        BulkRequest(older_than_seconds=older)


async def test_rest_names_the_field(stage):
    for verb in ("cancel", "retry"):
        problem = await stage.json("POST", f"/api/v1/tasks:{verb}", json={}, expected=422)
        assert problem["field"] == "all"
        problem = await stage.json("POST", f"/api/v1/tasks:{verb}", json={"state": ["x"]}, expected=422)
        assert problem["field"] == "state"


async def test_what_was_done_is_told_where_the_store_fails_behind_it(monkeypatch):
    async with open_test_ops(Agent("offline:planner", name="quick")) as ops:
        client = LocalClient(ops.engine, ops.catalog)
        await submit(client, 150)
        select = ops.engine.store.select

        async def failing(tenant: str, selection: TaskSelection, limit: int) -> Any:
            if selection.after is not None:
                raise StoreUnavailable("away")
            return await select(tenant, selection, limit)

        monkeypatch.setattr(ops.engine.store, "select", failing)
        first = await client.cancel_many(BulkRequest(all=True))
        assert (first.done, first.next_cursor is None) == ({"cancelled": 100}, False)
        with pytest.raises(StoreUnavailable):
            await client.cancel_many(BulkRequest(all=True, cursor=first.next_cursor))
        monkeypatch.undo()
        last = await client.cancel_many(BulkRequest(all=True, cursor=first.next_cursor))
        assert (last.done, last.next_cursor) == ({"cancelled": 50}, None)
        everything = TaskSelection(verb=BulkVerb.CANCEL, status=(TaskStatus.CANCELLED,))
        assert (await ops.engine.count("default", everything)).tasks == 150


async def test_the_command_line_counts_asks_and_tells(stage, capsys):
    client = LocalClient(stage.ops.engine, stage.agents)
    await submit(client, 3)
    options = CancelOptions(agent="quick", status=["pending"], url=stage.url)
    with pytest.raises(InvalidRequest, match=r"would cancel 3 tasks, submitted .* ago: say --yes"):
        await bulk.cancel(options)
    await bulk.cancel(CancelOptions(agent="quick", dry_run=True, url=stage.url))
    assert capsys.readouterr().out.startswith("3 tasks, submitted ")
    await bulk.cancel(CancelOptions(agent="quick", older_than="1d", yes=True, url=stage.url))
    assert capsys.readouterr().out == "no task fits\n"
    await bulk.cancel(CancelOptions(agent="quick", yes=True, url=stage.url))
    assert capsys.readouterr().out == "3 tasks cancelled\n"
    retried = RetryOptions(agent="quick", status=["cancelled"], yes=True, url=stage.url, as_json=True)
    await bulk.retry(retried)
    assert json.loads(capsys.readouterr().out)["done"] == {"retried": 3}
    await bulk.retry(RetryOptions(agent="quick", status=["cancelled"], yes=True, url=stage.url))
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "left out: 3 tasks, retried before\n")
    with pytest.raises(InvalidRequest) as raised:
        await bulk.cancel(CancelOptions(status=["done"], url=stage.url))
    assert raised.value.field == "status.0"
