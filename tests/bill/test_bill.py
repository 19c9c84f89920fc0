"""Workers are killed in the middle of calls that are streamed and go wrong; then every cent is looked for.

The books of the provider are the oracle: of each call that it has begun to answer it knows what it charges.
"""

import asyncio
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Self

import pytest

from agentkit.messages import Usage
from agentkit.money import nanos, usd
from agentkit.transcript.steps import ModelAsked, ModelFailed, ModelReplied, Recorded
from agentkit.transcript.usage import RunningUsage
from ops_core.cli.commands.serve import show_spending
from ops_core.cli.commands.tasks import show_task
from ops_core.dispatchers import LocalDispatcher
from ops_core.engine import Engine
from ops_core.schemas import TaskBody
from ops_core.spending import day_of
from ops_core.stores import migrations, open_store
from ops_core.task import NewTask, Task, TaskStatus

from .provider import TURNS, Provider

HERE = Path(__file__).parent
TASKS = 8
KILLS = {3: "asked", 9: "midway", 15: "resting", 21: "answered"}
"""When the call of this number comes to this moment, all workers are killed; so far apart that each kill is one."""
FAULTS = {2: "429", 5: "cut", 15: "429", 26: "cut"}
"""The last one comes when nothing is killed any more, so that it is recorded."""
LIMIT_USD = 0.5
CONFIG = """
[endpoints.till]
base_url = "{url}"
[prices."till:tiny-1"]
input_usd_per_million = 1
output_usd_per_million = 1
max_output_tokens = 400
[spending]
usd_per_day = {limit}
[agents.payer]
model = "till:tiny-1"
tools = ["agentkit.tools.builtin.calculator:calculator"]
budget.usd = 0.05
retries.first_seconds = 0.01
"""


class Workers:
    """Processes that carry tasks, all of which are killed and started together.

    Args:
        folder: where they run.
        store_url: of their store.
    """

    def __init__(self, folder: Path, store_url: str) -> None:
        self._folder = folder
        ours = {"LEASE_SECONDS": "1", "SWEEP_SECONDS": "0.1", "POLL_SECONDS": "0.05", "CONCURRENCY": "2"}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OPSPAWN_")}
        self.environment = inherited | {f"OPSPAWN_{name}": value for name, value in ours.items()}
        self.environment["OPSPAWN_STORE_URL"] = store_url
        self._pids: list[int] = []
        self._all_killed = asyncio.Event()
        self._starter: asyncio.subprocess.Process
        self.kills = 0

    async def __aenter__(self) -> Self:
        with (self._folder / "log").open("wb") as log:
            self._starter = await asyncio.create_subprocess_exec(
                sys.executable, str(HERE / "worker.py"), cwd=self._folder, env=self.environment,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        await self._told()
        await self._start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.kill()
        self._starter.kill()
        await self._starter.wait()

    async def _told(self) -> str:
        assert self._starter.stdout is not None
        line = await self._starter.stdout.readline()
        assert line, (self._folder / "log").read_text()
        return line.decode()

    async def _start(self) -> None:
        assert self._starter.stdin is not None
        for _ in range(2):
            self._starter.stdin.write(b"\n")
            self._pids.append(int(await self._told()))

    def kill(self) -> None:
        """Kill all of them, at once."""
        self._all_killed.set()
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._pids = []

    async def replace(self) -> None:
        """Start others, whenever they were killed."""
        while True:
            await self._all_killed.wait()
            self._all_killed.clear()
            self.kills += 1
            await self._start()


@dataclass(slots=True)
class Bill:
    """What the steps of a task say about its calls.

    Attributes:
        announced: calls that were announced.
        known: nano-dollars that calls have cost of which it is known.
        replies: number, as the provider counts, and usage of the calls that were recorded with their reply.
        lost: the announcements of calls that a killed worker made, or was about to make.
        unknown: the announcements of calls that failed with a bill that nobody knows.
        of_days: nano-dollars that count, by the day of the announcement.
    """

    announced: int = 0
    known: int = 0
    replies: list[tuple[int, Usage]] = field(default_factory=list[tuple[int, Usage]])
    lost: list[ModelAsked] = field(default_factory=list[ModelAsked])
    unknown: list[ModelAsked] = field(default_factory=list[ModelAsked])
    of_days: Counter[int] = field(default_factory=Counter[int])

    @classmethod
    def of(cls, steps: Sequence[Recorded]) -> "Bill":
        bill, under_way = cls(), None
        for at, step in ((recorded.at, recorded.step) for recorded in steps):
            if isinstance(step, ModelAsked):
                if under_way is not None:
                    bill._ended(*under_way, None)
                under_way = (at, step)
                bill.announced += 1
            elif isinstance(step, ModelReplied | ModelFailed):
                assert under_way is not None, "a call that nobody has announced"
                bill._ended(*under_way, step)
                under_way = None
        assert under_way is None, "a run has not ended with a call"
        return bill

    def _ended(self, at: float, asked: ModelAsked, end: ModelReplied | ModelFailed | None) -> None:
        used = None if end is None else end.usage
        counts = nanos(asked.reserved_usd)
        if used is not None:
            assert used.cost_usd is not None
            counts = nanos(used.cost_usd)
            self.known += counts
        self.of_days[day_of(at)] += counts
        if isinstance(end, ModelReplied):
            name = end.tool_calls[0].id if end.tool_calls else end.text
            self.replies.append((int(re.split("[_ ]", name)[-1]), end.usage))
        elif used is None:
            (self.lost if end is None else self.unknown).append(asked)

    @property
    def unsettled(self) -> int:
        return sum(nanos(asked.reserved_usd) for asked in (*self.lost, *self.unknown))


@asynccontextmanager
async def engine_of(store_url: str) -> AsyncGenerator[Engine]:
    store = open_store(store_url)
    await asyncio.to_thread(migrations.upgrade, store)
    async with store:
        yield Engine(store, LocalDispatcher())


async def ended(engine: Engine, tasks: list[Task]) -> list[Task]:
    async with asyncio.timeout(60):
        for task in tasks:
            while not (await engine.get(task.tenant, task.id)).status.terminal:
                await asyncio.sleep(0.02)  # between two looks
    return [await engine.get(task.tenant, task.id) for task in tasks]


@pytest.mark.timeout(120)
async def test_the_bill_is_right_whenever_the_workers_are_killed(tmp_path, store_url, monkeypatch, capsys):
    workers = Workers(tmp_path, store_url)

    def moment(number: int, name: str) -> None:
        if KILLS.get(number) == name:
            workers.kill()

    async with Provider(FAULTS, moment) as provider, engine_of(store_url) as engine:
        (tmp_path / "opspawn.toml").write_text(CONFIG.format(url=provider.url, limit=LIMIT_USD))
        inputs = [f"task {number}" for number in range(TASKS)]
        tasks = [(await engine.submit(NewTask(agent="payer", input=each))).task for each in inputs]
        async with workers:
            replacing = asyncio.create_task(workers.replace())
            done = await ended(engine, tasks)
            replacing.cancel()
        assert workers.kills == len(KILLS)
        assert Counter(task.status for task in done) == {TaskStatus.COMPLETED: TASKS}
        steps = {task.input: await engine.steps(task.tenant, task.id) for task in tasks}
    bills = {name: Bill.of(recorded) for name, recorded in steps.items()}

    # every reply that was recorded is one that the provider has given, as it has given it, and no other one's
    replies = dict(reply for bill in bills.values() for reply in bill.replies)
    assert len(replies) == TASKS * (TURNS + 1) == sum(len(bill.replies) for bill in bills.values())
    books = {call.number: call for call in provider.calls}
    for number, used in replies.items():
        assert books[number].answered
        assert (books[number].read, books[number].written) == (used.input_tokens, used.output_tokens)

    # every call was announced; what was not recorded counts with all that it can have cost, never with nothing
    for task in done:
        bill, calls = bills[task.input], [call for call in provider.calls if call.task == task.input]
        assert len(calls) <= bill.announced
        assert nanos(task.tokens.cost_usd or 0.0) == bill.known
        assert (
            RunningUsage.of(steps[task.input]).unsettled
            == bill.unsettled
            == nanos(TaskBody.of(task).usage.unsettled_usd)
        )
        assert all(asked.reserved_usd > 0 for asked in (*bill.lost, *bill.unknown))
        assert 0 <= sum(call.charged for call in calls) - bill.known <= bill.unsettled
    assert sum(len(bill.lost) for bill in bills.values()) >= 2  # killed before there was a whole reply
    assert sum(len(bill.unknown) for bill in bills.values()) >= 1

    # a person is told
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPSPAWN_STORE_URL", store_url)
    uncertain = next(task for task in done if task.unsettled)
    assert await show_task(uncertain.id, None, as_json=False) == 0
    assert f"${usd(uncertain.unsettled):.4f} unsettled" in " ".join(capsys.readouterr().out.split())

    # the tenant's day is the sum of its tasks, and the limit has held
    assert await show_spending(None, as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    day = date.fromisoformat(told["day"]).toordinal() - date(1970, 1, 1).toordinal()
    assert nanos(told["spent_usd"]) == sum(bill.of_days[day] for bill in bills.values())
    assert told["reserved_usd"] == 0
    assert sum(call.charged for call in provider.calls) <= nanos(told["spent_usd"]) <= nanos(LIMIT_USD)
