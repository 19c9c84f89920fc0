"""A runner at work, and agents that it carries."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from agentkit.agent import Agent
from agentkit.messages import ToolCall
from agentkit.testing.models import ScriptedModel
from agentkit.tools import tool
from ops_core.config.catalog import Catalog
from ops_core.engine import Engine
from ops_core.runner import Runner, RunnerOptions
from ops_core.sweeper import sweep_forever
from ops_core.task import NewTask, RetryPolicy, Task, TaskStatus

SOON = 30.0
FOR_EVER = 1e9
QUICK = RetryPolicy(first_seconds=0.01, max_seconds=0.02)
numbers = itertools.count(1)


@asynccontextmanager
async def working(
    engine: Engine, *agents: Agent[Any, Any], catalog: Catalog | None = None, **options: Any
) -> AsyncGenerator[Runner]:
    """A runner at work; leaving stops it in good order."""
    quick = {
        "owner": f"worker-{next(numbers)}",
        "poll_seconds": 0.02,
        "grace_seconds": 0.2,
        "lease_seconds": 30.0,
    }
    catalog = Catalog(agents) if catalog is None else catalog
    runner = Runner(engine, catalog, RunnerOptions(**{**quick, "retry": QUICK, **options}))
    running = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        runner.stop()
        await running


@asynccontextmanager
async def sweeping(engine: Engine) -> AsyncGenerator[None]:
    sweeper = asyncio.create_task(sweep_forever(engine, 0.02, FOR_EVER))
    try:
        yield
    finally:
        sweeper.cancel()
        await asyncio.wait({sweeper})


async def submit(engine: Engine, agent: str = "agent", **fields: Any) -> Task:
    return (await engine.submit(NewTask(agent=agent, input="Go on.", **fields))).task


async def until(engine: Engine, task: Task, found: Callable[[Task], bool]) -> Task:
    """The task, once it is so."""
    async with asyncio.timeout(SOON):
        while not found(now := await engine.get(task.tenant, task.id)):
            await asyncio.sleep(0.005)
    return now


async def ended(engine: Engine, task: Task) -> Task:
    now = await engine.until_ended(task.tenant, task.id, SOON)
    assert now.status.terminal, now
    return now


def is_(status: TaskStatus) -> Callable[[Task], bool]:
    return lambda task: task.status is status


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(id=f"call_{next(numbers)}", name=name, arguments=arguments)


class Hanging:
    """A model or a tool that begins and never returns."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.go_on = asyncio.Event()
        self.calls = 0

    async def reply(self, _request: object = None) -> str:
        self.calls += 1
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "went on"

    def tool(self, **options: Any) -> Any:
        @tool(**options)
        async def hang() -> str:
            """Hangs."""
            return await self.reply()

        return hang


class Stubborn(Hanging):
    """A tool that ignores that it is cancelled."""

    async def reply(self, _request: object = None) -> str:
        self.calls += 1
        self.begun.set()
        for _ in range(5):  # not for ever: the event loop of a test that fails has to end
            try:
                await self.go_on.wait()
                break
            except asyncio.CancelledError:
                self.cancelled.set()
        return "at last"

    def agent(self) -> Agent[Any, Any]:
        return Agent(ScriptedModel.by_turn([call("hang"), "Done."]), name="agent", tools=[self.tool()])


@tool(effect="pure")
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


def adding(name: str = "agent") -> Agent[Any, Any]:
    model = ScriptedModel.by_turn([call("add", a=1, b=2), "Three."])
    return Agent(model, name=name, tools=[add])
