"""Money across runs, workers and databases; and that a provider's faults cost no attempts that were none."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import pytest
from sqlalchemy import text

from agentkit.agent import Agent
from agentkit.budget.limits import Limits
from agentkit.budget.prices import Price, Prices
from agentkit.errors import ModelOverloaded, ModelTimeout
from agentkit.memories import AgentMemory, HashEmbeddings, LocalMemory
from agentkit.messages import ModelReply, ModelRequest, Text, ToolCall, Usage
from agentkit.models.resilience.circuit_breaker import CircuitSettings
from agentkit.models.resilience.retry import Retries
from agentkit.money import nanos
from agentkit.ports import UNCOUNTED
from agentkit.testing.models import ScriptedModel
from agentkit.tools import tool
from agentkit.transcript.steps import ModelAsked, ModelFailed, ModelReplied, ToolReturned
from agentkit.transcript.usage import RunningUsage
from ops_core import spending as till
from ops_core.config.catalog import Catalog
from ops_core.config.model_terms import ModelTerms
from ops_core.dispatchers import LocalDispatcher
from ops_core.engine import Engine
from ops_core.runner import Runner, RunnerOptions
from ops_core.spending import Spending, day_of
from ops_core.task import DEFAULT_TENANT, NewTask, RetryPolicy, Task, TaskStatus
from ops_core.testing import open_test_store

PRICE = Price(input_usd_per_million=1, output_usd_per_million=1, max_output_tokens=400)
QUICK = RetryPolicy(first_seconds=0.01, max_seconds=0.02)
numbers = itertools.count(1)


@tool(effect="pure")
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


class Provider:
    """Answers, and keeps a journal of what it has charged; it sees all calls of all workers.

    Attributes:
        charged: nano-dollars, for calls that were answered.
        faults: raised, one after the other, in place of replies.
        hold: calls are not answered before it is set.
    """

    name = "test:till"

    def __init__(self, *, turns: int = 3, faults: Sequence[Exception] = ()) -> None:
        self.charged = self.calls = 0
        self.faults = list(faults)
        self.hold = asyncio.Event()
        self.hold.set()
        self.called = asyncio.Event()
        self._turns = turns

    async def reply(self, request: ModelRequest, on_delta: Any = None) -> ModelReply:
        self.calls += 1
        self.called.set()
        await self.hold.wait()
        await asyncio.sleep(0)
        if self.faults:
            raise self.faults.pop(0)
        said = sum(type(message).__name__ == "AssistantMessage" for message in request.messages)
        part = (
            ToolCall(id=f"c{said}", name="add", arguments={"a": said, "b": 1})
            if said < self._turns
            else Text(text="done")
        )
        used = Usage(input_tokens=100, output_tokens=100)
        self.charged += PRICE.of(used) or 0
        return ModelReply(parts=(part,), usage=used)


@asynccontextmanager
async def engine_on(url: str) -> AsyncGenerator[Engine]:
    async with open_test_store(url) as store:
        yield Engine(store, LocalDispatcher())


@asynccontextmanager
async def working(engine: Engine, agent: Agent[Any, Any], **terms: Any) -> AsyncGenerator[Runner]:
    options = RunnerOptions(
        owner=f"worker-{next(numbers)}", poll_seconds=0.02, grace_seconds=0.2, lease_seconds=30.0, retry=QUICK
    )
    catalog = Catalog([agent], terms=ModelTerms(**{"prices": {Provider.name: PRICE}, **terms}))
    runner = Runner(engine, catalog, options)
    running = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        runner.stop()
        await running


async def submit(engine: Engine, **fields: Any) -> Task:
    return (await engine.submit(NewTask(agent="agent", input="Go on.", **fields))).task


async def ended(engine: Engine, task: Task) -> Task:
    now = await engine.until_ended(task.tenant, task.id, 10.0)
    assert now.status.terminal, now
    return now


async def until_error(engine: Engine, task: Task) -> Task:
    async with asyncio.timeout(5.0):
        while True:
            now = await engine.get(task.tenant, task.id)
            if now.error is not None and now.status is not TaskStatus.RUNNING:
                return now
            await asyncio.sleep(0.005)


def agent_of(provider: Provider, **more: Any) -> Agent[Any, Any]:
    return Agent(provider, name="agent", tools=[add], **more)


async def steps(engine: Engine, task: Task, kind: type) -> list[Any]:
    found = await engine.steps(task.tenant, task.id)
    return [recorded.step for recorded in found if isinstance(recorded.step, kind)]


# --- a tenant's day ------------------------------------------------------------------------------------------------


async def test_two_workers_never_overspend_together(url, monkeypatch):
    monkeypatch.setattr(till, "SETTLING_SECONDS", 0.05)
    provider = Provider()
    limit = 0.01
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(engine_on(url)) for _ in range(2)]
        tasks = [await submit(engines[0]) for _ in range(20)]
        for engine in engines:
            await stack.enter_async_context(
                working(engine, agent_of(provider), spending=Spending(usd_per_day=limit))
            )
        done = [await ended(engines[0], task) for task in tasks]
        spent = await engines[1].spent(DEFAULT_TENANT)
    assert provider.charged <= nanos(limit)
    assert (spent.spent, spent.reserved) == (provider.charged, 0)
    assert nanos(limit) - spent.spent < 2_000_000  # less than a call may cost
    failed = [task for task in done if task.status is TaskStatus.FAILED]
    assert failed
    assert {task.error.code for task in failed} == {"day_limit_reached"}
    assert sum(nanos(task.tokens.cost_usd or 0.0) for task in done) == provider.charged


async def test_a_run_may_wait_for_the_next_day_and_it_is_no_attempt(url):
    provider = Provider()
    async with engine_on(url) as engine:
        task = await submit(engine)
        spending = Spending(usd_per_day=0.0001, when_reached="wait")
        async with working(engine, agent_of(provider), spending=spending):
            waits = await until_error(engine, task)
        assert (waits.status, waits.error.code, waits.attempt) == (TaskStatus.PENDING, "day_limit_reached", 0)
        assert waits.run_after == pytest.approx((day_of(time.time()) + 1) * 86_400, abs=60)
        assert provider.calls == 0
        async with working(engine, agent_of(provider), spending=Spending(tenants={"other": 1})):
            await cast("Any", engine.store)._write(  # the day is over
                lambda writing: writing.execute(text("UPDATE task SET run_after = 0"))
            )
            await engine.dispatcher.wake()
            assert (await ended(engine, task)).status is TaskStatus.COMPLETED


async def test_a_worker_that_dies_in_a_call_has_spent_what_was_reserved(url):
    provider = Provider(turns=0)
    provider.hold.clear()
    terms = {"spending": Spending(usd_per_day=1)}
    async with engine_on(url) as engine:
        task = await submit(engine)
        async with working(engine, agent_of(provider), **terms) as runner:
            async with asyncio.timeout(5):
                await provider.called.wait()
            runner.stop(at_once=True)  # in the middle of the call
        lost = await engine.spent(DEFAULT_TENANT)
        assert (lost.spent, lost.reserved > 0) == (0, True)
        provider.hold.set()
        async with working(engine, agent_of(provider), **terms):
            assert (await ended(engine, task)).status is TaskStatus.COMPLETED
        spent = await engine.spent(DEFAULT_TENANT)
        assert (spent.spent, spent.reserved) == (provider.charged + lost.reserved, 0)
        assert RunningUsage.of(await engine.steps(task.tenant, task.id)).spent == spent.spent


class PaidEmbeddings(HashEmbeddings):
    """As if a provider had made them."""

    name = "test:vectors"
    charged = 0
    dies = False

    async def embed(self, texts, meter=UNCOUNTED):
        async with meter.call(self.name, texts) as call:
            if self.dies:
                await asyncio.Event().wait()
            vectors = await super().embed(texts)
            call.usage = Usage(input_tokens=100)
            self.charged += PRICE.of(call.usage) or 0
        return vectors


async def test_what_a_tasks_memory_spends_is_spent_by_its_tenant(url):
    """Also where another tool has ended while the worker died in the middle of a call of embeddings."""
    embeddings = PaidEmbeddings()
    provider = Provider(turns=0)
    memory = AgentMemory(memory=LocalMemory(embeddings), remember="tool", recall=0)
    agent = agent_of(provider, memory=memory)
    both: list[Any] = [
        ToolCall(id="c0", name="remember", arguments={"text": "x"}),
        ToolCall(id="c1", name="add", arguments={"a": 1, "b": 1}),
    ]
    asked: Iterator[list[Any]] = iter(
        [[ToolCall(id="r", name="remember", arguments={"text": "y"})], both, [Text(text="done")]]
    )

    async def reply(request: ModelRequest, on_delta: Any = None) -> ModelReply:
        parts = next(asked)
        embeddings.dies = parts is both
        return ModelReply(parts=tuple(parts), usage=Usage(cost_usd=0.0))

    provider.reply = reply  # type: ignore[method-assign]
    terms = {
        "prices": {Provider.name: PRICE, PaidEmbeddings.name: PRICE},
        "spending": Spending(usd_per_day=1),
    }
    async with engine_on(url) as engine:
        task = await submit(engine)
        async with working(engine, agent, **terms) as runner:
            async with asyncio.timeout(5):
                while not (embeddings.dies and len(await steps(engine, task, ToolReturned)) == 2):
                    await asyncio.sleep(0.005)
                while (
                    sum(step.model == embeddings.name for step in await steps(engine, task, ModelAsked)) < 2
                ):
                    await asyncio.sleep(0.005)
            runner.stop(at_once=True)
        lost = await engine.spent(DEFAULT_TENANT)
        assert (lost.spent, lost.reserved > 0) == (embeddings.charged, True)
        embeddings.dies = False
        async with working(engine, agent, **terms):
            assert (await ended(engine, task)).status is TaskStatus.COMPLETED
        spent = await engine.spent(DEFAULT_TENANT)
        assert (spent.spent, spent.reserved) == (embeddings.charged + lost.reserved, 0)
        assert RunningUsage.of(await engine.steps(task.tenant, task.id)).spent == spent.spent


async def test_a_day_that_lost_calls_have_used_up_is_over(url):
    """What a dead worker has reserved comes back to nobody: to wait for it would be to wait until midnight."""
    provider = Provider(turns=0)
    provider.hold.clear()
    async with engine_on(url) as engine:
        task = await submit(engine)
        terms = {"spending": Spending(usd_per_day=0.003)}  # for one call, not for two
        async with working(engine, agent_of(provider), **terms) as runner:
            async with asyncio.timeout(5):
                await provider.called.wait()
            runner.stop(at_once=True)
        lost = await engine.spent(DEFAULT_TENANT)
        assert nanos(0.0015) < lost.reserved < nanos(0.003)
        provider.hold.set()
        async with working(engine, agent_of(provider), **terms):
            done = await ended(engine, task)
            assert (done.status, done.error.code) == (TaskStatus.FAILED, "day_limit_reached")
            assert (await ended(engine, await submit(engine))).error.code == "day_limit_reached"
        spent = await engine.spent(DEFAULT_TENANT)
        assert (spent.spent, spent.reserved) == (lost.reserved, 0)
    assert provider.calls == 1


async def test_a_call_from_before_there_was_a_limit_is_spent_and_gives_nothing_back(url):
    provider = Provider(turns=0)
    provider.hold.clear()
    async with engine_on(url) as engine:
        task = await submit(engine, budget=Limits(usd=1))
        async with working(engine, agent_of(provider)) as runner:
            async with asyncio.timeout(5):
                await provider.called.wait()
            runner.stop(at_once=True)
        provider.hold.set()
        async with working(engine, agent_of(provider), spending=Spending(usd_per_day=1)):
            await ended(engine, task)
        spent = await engine.spent(DEFAULT_TENANT)
        assert (spent.spent, spent.reserved) == (
            RunningUsage.of(await engine.steps(task.tenant, task.id)).spent,
            0,
        )


@pytest.mark.parametrize("limited", [True, False], ids=["with a tenant's limit", "without"])
async def test_a_task_tells_what_it_leaves_unsettled(url, limited):
    """Under way, cut, failed without a bill, settled, and begun anew: always the sum that its steps have."""
    faults = [ModelTimeout("nobody knows"), ModelOverloaded("not begun")]
    provider = Provider(turns=1)
    provider.hold.clear()
    terms = {"spending": Spending(usd_per_day=1)} if limited else {}
    agent = agent_of(provider, retries=Retries(tries=3, first_seconds=0))

    async with engine_on(url) as engine:

        async def unsettled(task: Task) -> int:
            found = (await engine.get(task.tenant, task.id)).unsettled
            assert found == RunningUsage.of(await engine.steps(task.tenant, task.id)).unsettled
            return found

        task = await submit(engine, budget=Limits(usd=1))
        assert await unsettled(task) == 0
        async with working(engine, agent, **terms) as runner:
            async with asyncio.timeout(5):
                await provider.called.wait()
            under_way = await unsettled(task)
            runner.stop(at_once=True)
        assert await unsettled(task) == under_way > 0
        provider.faults += faults
        provider.hold.set()
        async with working(engine, agent, **terms):
            assert (await ended(engine, task)).status is TaskStatus.COMPLETED
        assert await unsettled(task) == 2 * under_way


async def test_a_call_that_is_cancelled_has_spent_what_was_reserved(url):
    provider = Provider(turns=0)
    provider.hold.clear()
    async with engine_on(url) as engine:
        task = await submit(engine)
        async with working(engine, agent_of(provider), spending=Spending(usd_per_day=1)):
            async with asyncio.timeout(5):
                await provider.called.wait()
            await engine.cancel(task.tenant, task.id)
            await ended(engine, task)
        spent = await engine.spent(DEFAULT_TENANT)
        tally = RunningUsage.of(await engine.steps(task.tenant, task.id))
    assert (spent.spent, spent.reserved) == (tally.unsettled, 0)
    assert tally.unsettled > 0


async def test_a_failed_call_without_a_bill_counts_in_full(url):
    provider = Provider(turns=0, faults=[ModelTimeout("nobody knows"), ModelOverloaded("not begun")])
    async with engine_on(url) as engine:
        task = await submit(engine)
        agent = agent_of(provider, retries=Retries(tries=3, first_seconds=0))
        async with working(engine, agent, spending=Spending(usd_per_day=1)):
            await ended(engine, task)
        unknown, unbilled = await steps(engine, task, ModelFailed)
        first, *_others = await steps(engine, task, ModelAsked)
        spent = await engine.spent(DEFAULT_TENANT)
    assert (unknown.usage, unbilled.usage) == (None, Usage(cost_usd=0.0))
    assert (spent.spent, spent.reserved) == (provider.charged + nanos(first.reserved_usd), 0)


async def test_without_a_limit_nothing_is_kept_and_nothing_costs_more(url):
    provider = Provider()
    async with engine_on(url) as engine:
        task = await submit(engine)
        async with working(engine, agent_of(provider)):
            done = await ended(engine, task)
        assert await steps(engine, task, ModelAsked) == []
        assert (await engine.spent(None)).spent == 0
    assert nanos(done.tokens.cost_usd or 0.0) == provider.charged


# --- one task ------------------------------------------------------------------------------------------------------


async def test_a_tasks_budget_holds_over_attempts(url):
    provider = Provider(turns=50)
    async with engine_on(url) as engine:
        task = await submit(engine, budget=Limits(usd=0.002))
        async with working(engine, agent_of(provider, limits=Limits(usd=5))):
            done = await ended(engine, task)
    assert done.error.code == "limit_reached"
    assert provider.charged <= nanos(0.002)
    assert nanos(done.tokens.cost_usd or 0.0) == provider.charged


async def test_tries_and_attempts_are_added_not_multiplied(url):
    provider = Provider(faults=[ModelOverloaded(f"try {number}") for number in range(99)])
    async with engine_on(url) as engine:
        task = await submit(engine, max_attempts=4)
        patient = CircuitSettings(failures=99)
        agent = agent_of(provider, retries=Retries(tries=3, first_seconds=0))
        async with working(engine, agent, breaking=patient):
            done = await ended(engine, task)
        failed = await steps(engine, task, ModelFailed)
    assert done.error.code == "model_overloaded"
    assert provider.calls == len(failed) == 3 + 4 - 1


async def test_an_open_circuit_uses_no_attempt_up(url):
    provider = Provider(turns=0, faults=[ModelOverloaded("down")] * 2)
    breaking = CircuitSettings(failures=2, seconds=0.2)
    async with engine_on(url) as engine:
        first = await submit(engine, max_attempts=1)
        agent = agent_of(provider, retries=Retries(tries=2, first_seconds=0))
        async with working(engine, agent, breaking=breaking):
            assert (await ended(engine, first)).error.code == "model_overloaded"
            second = await submit(engine, max_attempts=1)
            assert (await ended(engine, second)).status is TaskStatus.COMPLETED
        assert len(await steps(engine, second, ModelReplied)) == 1
        assert await steps(engine, second, ModelFailed) == []
    assert provider.calls == 3


async def test_an_agent_inside_a_tool_spends_the_money_of_the_task_and_of_its_tenant(url: str):
    """Its calls are reserved and settled in the transcript of the task, side by side."""
    inner = Provider(turns=0)
    helper = Agent(inner, name="helper", prices=Prices({Provider.name: PRICE}))

    @tool(effect="pure")
    async def ask() -> str:
        """Ask another agent."""
        return (await helper.run("Well?")).unwrap()

    calls = [ToolCall(id=name, name="ask") for name in ("a", "b")]
    outer = Agent(ScriptedModel.by_turn([calls, "done"], name=Provider.name), name="agent", tools=[ask])
    async with engine_on(url) as engine, working(engine, outer, spending=Spending(usd_per_day=1000.0)):
        now = await ended(engine, await submit(engine))
        spent = await engine.spent(DEFAULT_TENANT)
    assert (now.status, now.output, inner.calls, now.model_calls) == (TaskStatus.COMPLETED, "done", 2, 4)
    assert nanos(now.tokens.cost_usd or 0.0) == inner.charged
    assert (spent.spent, spent.reserved) == (inner.charged, 0)
