"""Code that is not ours and raises what is no Exception: an error of that code, never the end of the task around it."""

import asyncio
import gc
import sys
from typing import Any

import pytest

from agentkit import Agent, Completed, tool
from agentkit.memories import AgentMemory
from agentkit.messages import ModelReply, Text
from agentkit.ports import Allow
from agentkit.testing import ScriptedModel
from agentkit.testing.journals import Crash
from agentkit.untrusted.boundary import guarded, task_here

from .loop_support import add, call  # type: ignore[import-not-found]


class Panic(BaseException):
    """As an extension written in Rust raises it."""


def leave() -> None:
    sys.exit(3)


def panic() -> None:
    raise Panic


def interrupt() -> None:
    raise KeyboardInterrupt


def close() -> None:
    raise GeneratorExit


def group() -> None:
    raise BaseExceptionGroup("several", [Panic(), ValueError()])


RAISERS = [leave, panic, interrupt, close, group]


class Foreign:
    """A part of an agent that raises: a policy, a toolset, a memory or a model."""

    name = "foreign:m"

    def __init__(self, raiser: Any) -> None:
        self.raiser = raiser

    async def decide(self, question):
        self.raiser()
        return Allow()

    async def specs(self):
        self.raiser()
        return []

    async def call(self, call, context):
        raise AssertionError

    async def recall(self, scope, query, limit, meter=None):
        self.raiser()
        return []

    async def reply(self, request, on_delta=None):
        self.raiser()
        return ModelReply(parts=(Text(text="hi"),))


@pytest.mark.parametrize("raiser", RAISERS)
@pytest.mark.parametrize("part", ["policy", "toolset", "memory", "model"])
async def test_what_a_part_raises_ends_its_run_alone(part, raiser):
    foreign: Any = Foreign(raiser)
    model: Any = foreign if part == "model" else ScriptedModel.by_turn([call("add", a=1, b=2), "Done."])
    more: dict[str, Any] = {
        "policy": {"policy": foreign, "tools": [add]},
        "toolset": {"tools": [foreign]},
        "memory": {"memory": AgentMemory(memory=foreign)},
        "model": {},
    }[part]
    with pytest.raises(RuntimeError, match=r"(policy|toolset|memory|model).* raised ") as error:
        await asyncio.create_task(Agent(model, **more).run("go"))
    assert isinstance(error.value.__cause__, BaseException)


@pytest.mark.parametrize("raiser", RAISERS)
async def test_a_watcher_harms_nothing_but_what_it_shows(raiser):
    outcome = await Agent(ScriptedModel(["Done."])).run("go", on_event=lambda _event: raiser())
    assert isinstance(outcome, Completed)


async def test_what_is_meant_for_the_task_passes():
    began = asyncio.Event()

    async def wait():
        with guarded("the policy"):
            began.set()
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await began.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(Crash), guarded("the journal"):
        raise Crash


def test_there_may_be_no_task():
    assert task_here() is None


async def test_a_tool_of_a_run_that_is_dropped_closes():
    """An event loop that is closed drops its tasks: a tool's coroutine is closed, and nothing is awaited any more."""
    closed: list[str] = []

    @tool(effect="pure")
    async def hang() -> None:
        """Never return."""
        try:
            await asyncio.Event().wait()
        finally:
            closed.append("tool")

    def in_another_loop() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(Agent(ScriptedModel([call("hang")]), tools=[hang]).run("go"))
        for _ in range(50):
            loop.call_soon(loop.stop)
            loop.run_forever()
        loop.close()
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        del task
        gc.collect()

    await asyncio.to_thread(in_another_loop)
    assert closed == ["tool"]
