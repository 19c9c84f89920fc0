"""What `/metrics` shows, read by the parser of Prometheus's own client."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from agentkit import Agent
from agentkit.testing.models import ScriptedModel
from ops_core.api.metrics import OTHER
from ops_core.api.metrics_server import observable
from ops_core.errors import ConfigError, StoreUnavailable
from ops_core.observability.metrics import Metrics, RunOutcome, watching_the_loop
from ops_core.observability.store_gauges import StoreGauges
from ops_core.ports import Activity, Oldest, Stats
from ops_core.task import DEFAULT_TENANT, NewTask, TaskStatus
from ops_core.testing import open_test_ops

from .api_support import Stage, staged  # type: ignore[import-not-found]

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
PROCESS = "process_"


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as found:
        yield found


class Samples(dict[str, float]):
    """Values by name and labels: ``name{label="value"}``, labels sorted."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        for family in self.families:
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                key = f"{sample.name}{{{labels}}}" if labels else sample.name
                assert key not in self, "twice"
                self[key] = sample.value


async def scraped(stage: Stage) -> Samples:
    answer = await stage.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Samples(answer.text)


async def test_runs_are_counted_by_agent_and_outcome(stage):
    for agent, status in (("quick", "completed"), ("failing", "failed"), ("asking", "waiting")):
        await stage.until((await stage.submit(agent))["id"], status)
    await stage.submit("held")
    await stage.until((await stage.submit("held"))["id"], "running")
    found = await scraped(stage)
    assert found['opspawn_runs_total{agent="quick",outcome="completed"}'] == 1
    assert found['opspawn_runs_total{agent="failing",outcome="failed"}'] == 1
    assert found['opspawn_runs_total{agent="asking",outcome="waiting"}'] == 1
    assert found['opspawn_run_seconds_count{agent="quick"}'] == 1
    assert (found["opspawn_runs_carried"], found["opspawn_run_slots"]) == (2, 100)
    assert found["opspawn_claimed_tasks_total"] == found["opspawn_queue_wait_seconds_count"] == 5
    assert found["opspawn_queue_wait_seconds_sum"] < 5
    assert found['opspawn_steps_total{kind="finished"}'] == 2
    assert found['opspawn_steps_total{kind="approval_asked"}'] == 1
    assert found["opspawn_wakeups_sent_total"] >= 5 > 0 < found["opspawn_wakeups_heard_total"]
    assert found["opspawn_claims_total"] >= 1


async def test_the_store_is_shown_as_it_is(stage):
    await stage.until((await stage.submit("asking"))["id"], "waiting")
    await stage.until((await stage.submit("held"))["id"], "running")
    await stage.submit("quick", run_at="2999-01-01T00:00:00Z")
    found = await scraped(stage)
    tasks = {
        status: found[f'opspawn_tasks{{status="{status}"}}'] for status in ("pending", "running", "waiting")
    }
    assert tasks == {"pending": 1, "running": 1, "waiting": 1}
    assert (found["opspawn_store_up"], found["opspawn_workers"], found["opspawn_expired_leases"]) == (1, 1, 0)
    assert (found["opspawn_tasks_due"], found["opspawn_oldest_due_task_age_seconds"]) == (0, 0)
    assert found['opspawn_living_workers{state="busy"}'] == 1
    assert found['opspawn_living_workers{state="idle"}'] == 0
    for status, agent in (("running", "held"), ("waiting", "asking")):
        assert 0 <= found[f'opspawn_oldest_task_age_seconds{{agent="{agent}",status="{status}"}}'] < 10


async def test_requests_are_counted_by_route_and_a_caller_makes_no_series(stage):
    task = await stage.submit()
    for _ in range(3):
        await stage.http.get(f"/api/v1/tasks/{task['id']}")
    for path in ("/.env", "/wp-login.php", "/api/v1/tasks/none/steps/x"):
        await stage.http.get(path)
    await stage.http.request("BREW", "/coffee")
    await stage.http.get("/metrics", headers={"Host": "evil.example"})
    found = await scraped(stage)
    route = "/api/v1/tasks/{task_id}"
    assert found[f'opspawn_http_requests_total{{method="GET",route="{route}",status="200"}}'] >= 3
    assert found[f'opspawn_http_request_seconds_count{{route="{route}"}}'] >= 3
    assert found[f'opspawn_http_requests_total{{method="GET",route="{OTHER}",status="404"}}'] == 3
    assert found[f'opspawn_http_requests_total{{method="{OTHER}",route="{OTHER}",status="404"}}'] == 1
    assert found[f'opspawn_http_requests_total{{method="GET",route="{OTHER}",status="421"}}'] == 1
    text = " ".join(found)
    assert not any(word in text for word in ("env", "wp-login", "BREW", "coffee", task["id"]))


async def test_a_stream_is_counted_when_it_begins(stage):
    task = await stage.submit("held")
    async with stage.http.stream("GET", f"/api/v1/tasks/{task['id']}/events") as events:
        assert events.status_code == 200
        found = await scraped(stage)
    route = "/api/v1/tasks/{task_id}/events"
    assert found[f'opspawn_http_requests_total{{method="GET",route="{route}",status="200"}}'] == 1


async def test_every_metric_is_in_the_reference_and_the_other_way_round(stage):
    for agent in ("quick", "failing"):
        await stage.until((await stage.submit(agent))["id"], "completed", "failed")
    found = await scraped(stage)
    exposed = {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in found.families
        if not family.name.startswith(PROCESS)
    }
    rows = re.findall(r"^\| `(opspawn_\w+)` \| (\w+) \|", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(rows) == exposed
    assert len(rows) == len(exposed)
    assert all(family.documentation.endswith(".") for family in found.families)
    assert {"process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"} <= found.keys()


def test_the_reference_says_what_each_outcome_means():
    words = re.findall(r"^- `(\w+)`: ", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)
    assert tuple(words) == get_args(RunOutcome)


async def test_two_platforms_in_one_process_count_apart():
    async with (
        open_test_ops(Agent(ScriptedModel.by_turn(["done"]), name="quick")) as one,
        open_test_ops(Agent(ScriptedModel.by_turn(["done"]), name="quick")) as other,
        one.working(),
    ):
        task = (await one.engine.submit(NewTask(agent="quick", input="go"))).task
        await one.engine.until_ended(DEFAULT_TENANT, task.id, 10)
        counted = [
            Samples(ops.metrics.exposed().decode())["opspawn_claimed_tasks_total"] for ops in (one, other)
        ]
    assert counted == [1, 0]


# --- the store's gauges -------------------------------------------------------------------------------------------


class Store:
    """Answers what it is told to, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.now = Activity()
        self.answer: Stats | Exception = Stats(
            tasks=dict.fromkeys((TaskStatus.PENDING, TaskStatus.RUNNING, TaskStatus.WAITING), 7),
            due=5,
            oldest_due_seconds=12.5,
            expired_leases=3,
            workers=2,
            moment=1.0,
        )

    async def stats(self) -> Stats:
        self.asked += 1
        await asyncio.sleep(0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def activity(self) -> Activity:
        return self.now


def shown(gauges: StoreGauges) -> dict[str, float]:
    metrics = Metrics()
    metrics.registry.register(gauges)
    found = Samples(metrics.exposed().decode())
    return {name: value for name, value in found.items() if name.split("{")[0] in GAUGES}


GAUGES = (
    *("opspawn_store_up", "opspawn_tasks", "opspawn_tasks_due", "opspawn_oldest_due_task_age_seconds"),
    *("opspawn_expired_leases", "opspawn_workers"),
)


async def test_many_that_look_at_once_cost_one_statement():
    store = Store()
    gauges = StoreGauges(store)
    await asyncio.gather(*(gauges.refresh() for _ in range(20)))
    assert store.asked == 1
    assert shown(gauges)["opspawn_oldest_due_task_age_seconds"] == 12.5
    assert shown(gauges)['opspawn_tasks{status="waiting"}'] == 7


async def test_agents_beyond_the_first_fifty_share_a_series():
    store = Store()
    ages = [Oldest(agent=f"agent-{n}", status=TaskStatus.WAITING, seconds=n) for n in range(1, 61)]
    store.now = Activity(
        idle=3, busy=1, oldest=[*ages, Oldest(agent="a", status=TaskStatus.RUNNING, seconds=2)]
    )
    gauges = StoreGauges(store)
    await gauges.refresh()
    metrics = Metrics()
    metrics.registry.register(gauges)
    found = Samples(metrics.exposed().decode())
    name = "opspawn_oldest_task_age_seconds"
    of = {key: value for key, value in found.items() if key.startswith(name)}
    assert len(of) == 52
    assert of[f'{name}{{agent="a",status="running"}}'] == 2
    assert of[f'{name}{{agent="agent-60",status="waiting"}}'] == 60
    assert of[f'{name}{{agent="(others)",status="waiting"}}'] == 10
    assert found['opspawn_living_workers{state="idle"}'] == 3
    assert found['opspawn_living_workers{state="busy"}'] == 1


async def test_a_store_that_is_away_shows_no_old_values(monkeypatch):
    store = Store()
    gauges = StoreGauges(store)
    assert shown(gauges) == {"opspawn_store_up": 0}
    await gauges.refresh()
    assert len(shown(gauges)) == 8
    monkeypatch.setattr("ops_core.observability.store_gauges.FRESH_SECONDS", 0)
    gauges = StoreGauges(store)
    await gauges.refresh()
    store.answer = StoreUnavailable("away")
    await gauges.refresh()
    assert shown(gauges) == {"opspawn_store_up": 0}


async def test_a_loop_that_is_blocked_is_seen(monkeypatch):
    monkeypatch.setattr("ops_core.observability.metrics.LOOK_SECONDS", 0.01)
    metrics = Metrics()
    async with watching_the_loop(metrics.upkeep):
        await asyncio.sleep(0)
        time.sleep(0.06)
        await asyncio.sleep(0.02)
    assert Samples(metrics.exposed().decode())["opspawn_event_loop_lag_seconds_sum"] >= 0.05


# --- without an API -----------------------------------------------------------------------------------------------


async def test_a_process_without_an_api_shows_its_metrics_and_its_health_and_nothing_else():
    async with (
        open_test_ops(Agent(ScriptedModel.by_turn(["done"]), name="quick")) as ops,
        ops.working(),
        observable(ops, 0) as url,
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20) as http,
    ):
        task = (await ops.engine.submit(NewTask(agent="quick", input="go"))).task
        await ops.engine.until_ended(DEFAULT_TENANT, task.id, 10)
        found = Samples((await http.get("/metrics")).text)
        codes = {
            path: (await http.get(path)).status_code
            for path in ("/health/live", "/health/ready", "/docs", "/openapi.json", "/api/v1/tasks")
        }
        rebound = await http.get("/metrics", headers={"Host": "evil.example"})
    assert found['opspawn_runs_total{agent="quick",outcome="completed"}'] == 1
    assert found["opspawn_store_up"] == 1
    assert list(codes.values()) == [200, 200, 404, 404, 404]
    assert rebound.status_code == 421
    assert url.startswith("http://127.0.0.1:")


async def test_of_several_processes_each_takes_the_next_free_port():
    async with open_test_ops() as ops, observable(ops, 0) as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(ConfigError, match="cannot listen"):
            async with observable(ops, port):
                pass
        async with observable(ops, port, others=20) as other:
            assert port < int(other.rpartition(":")[2]) <= port + 20
