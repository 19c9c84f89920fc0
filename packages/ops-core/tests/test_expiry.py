"""A task that no worker has started in time is not started any more; said at every door alike."""

from collections.abc import AsyncGenerator

import pytest
from pydantic import ValidationError

from ops_core.cli.commands.tasks import ListOptions, _list_tasks, _submit
from ops_core.cli.inputs import seconds_in
from ops_core.cli.options import SubmitOptions
from ops_core.client import Operations
from ops_core.errors import InvalidRequest
from ops_core.schemas import TaskRequest
from ops_core.task import NewTask, Task

from .api_support import FAR, Stage, staged  # type: ignore[import-not-found]
from .client_support import item, request  # type: ignore[import-not-found]


@pytest.fixture
async def stage(tmp_path) -> AsyncGenerator[Stage]:
    async with staged(tmp_path) as opened:
        yield opened


async def unserved(stage: Stage, expires: float) -> str:
    """A task for which no worker is here."""
    new = NewTask(agent="of another host", input="go", expires_seconds=expires)
    task: Task = (await stage.ops.engine.submit(new)).task
    return task.id


async def test_a_task_that_nobody_serves_ends_as_expired(client: Operations, stage):
    task = await client.wait_for_end(await unserved(stage, 0.01), 20)
    assert task.error is not None
    assert (task.status, task.error.code, task.started_at) == ("failed", "expired", None)
    listed = (await client.list()).items[0]
    assert listed.error is not None
    assert (listed.id, listed.error.code) == (task.id, "expired")
    again = await client.retry(task.id)
    assert (again.status, again.expires_at) == ("pending", None)


async def test_the_moment_is_told_until_the_task_is_started(client: Operations):
    waiting = await client.submit(request(run_at=FAR, expires_seconds=90.5))
    assert waiting.run_after is not None
    assert waiting.expires_at is not None
    assert (waiting.expires_at - waiting.run_after).total_seconds() == 90.5
    assert (await client.get(waiting.id)).expires_at == waiting.expires_at
    assert (await client.submit(request(run_at=FAR))).expires_at is None
    done = await client.submit(request(expires_seconds=600), wait=20)
    assert (done.status, done.expires_at) == ("completed", None)
    [result] = await client.submit_many([item(run_at=FAR, expires_seconds=5)])
    assert result.task_id is not None
    assert (await client.get(result.task_id)).expires_at is not None


@pytest.mark.parametrize("bad", [0, -1, 1e12, "10m", True, float("nan"), float("inf")])
def test_a_bad_value_is_refused_with_the_name_of_the_field(bad):
    with pytest.raises(ValidationError) as raised:
        request(expires_seconds=bad)
    assert raised.value.errors()[0]["loc"] == ("expires_seconds",)


async def test_a_bad_value_is_refused_over_rest(stage):
    body = {"agent": "quick", "input": "go", "expires_seconds": 0}
    problem = await stage.json("POST", "/api/v1/tasks", json=body, expected=422)
    assert problem["field"] == "expires_seconds"


def test_the_engine_refuses_it_too():
    for bad in (0.0, -1.0, float("nan"), float("inf"), 1e12):
        with pytest.raises(InvalidRequest) as raised:
            NewTask(agent="a", input=1, expires_seconds=bad)
        assert raised.value.field == "expires_seconds"


def test_a_request_that_does_not_expire_has_the_fingerprint_that_it_had_before():
    plain = TaskRequest(agent="a", input="x")
    assert plain.fingerprint() == TaskRequest(agent="a", input="x", expires_seconds=None).fingerprint()
    assert plain.fingerprint() == "872bd3e601e631a58f7335ab3acbf0e02bde8935afe2cc43248c2cddc46a1e40"
    assert plain.fingerprint() != TaskRequest(agent="a", input="x", expires_seconds=5).fingerprint()
    ten = TaskRequest.model_validate_json('{"agent": "a", "input": "x", "expires_seconds": 10}')
    assert ten.fingerprint() == TaskRequest(agent="a", input="x", expires_seconds=10.0).fingerprint()


async def test_the_command_line_takes_a_duration(stage, capsys, monkeypatch):
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "80"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    await _submit(SubmitOptions(goal="go", agent="quick", run_at=FAR, expires="1h30m", url=stage.url))
    printed = capsys.readouterr().out.split()[0]
    task = await stage.json("GET", f"/api/v1/tasks/{printed}")
    assert task["expires_at"] == "2999-01-01T01:30:00Z"
    ended = await unserved(stage, 0.01)
    await stage.until(ended, "failed")
    await _list_tasks(ListOptions(url=stage.url, status=["failed"]))
    assert "  [expired] go" in capsys.readouterr().out


@pytest.mark.parametrize("bad", ["", "10", "m", "-5m", "5 m", "1e3s", "5w", "٥m", "1h30", "9" * 99 + "s"])
def test_what_is_no_duration_is_refused_with_the_name_of_the_option(bad):
    with pytest.raises(InvalidRequest, match="--expires takes a number and a unit") as raised:
        seconds_in(bad, "expires")
    assert raised.value.field == "expires"


def test_durations():
    assert [seconds_in(text, "x") for text in ("90s", "45m", "12h", "30d", "1.5h", "1h30m")] == [
        *(90, 2700, 43_200, 2_592_000),
        *(5400, 5400),
    ]
