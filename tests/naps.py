"""Agents for tests with several worker processes. What they do is noted in a file outside of the platform."""

import asyncio
import os
import signal
import time
from pathlib import Path

from agentkit import Agent, ToolCall, tool
from agentkit.ports import ToolContext
from agentkit.testing import ScriptedModel
from ops_core.config.catalog import Catalog
from ops_core.config.sandbox import Sandboxing

NOTES = Path("notes.log")
GO = Path("go")
BLOCKED = Path("blocked")


def note(what: str, context: ToolContext[None]) -> None:
    """One write call with O_APPEND, so that lines of several processes never mix."""
    handle = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, f"{what} {os.getpid()} {context.idempotency_key}\n".encode())
    finally:
        os.close(handle)


@tool(effect="idempotent")
async def nap(context: ToolContext[None]) -> str:
    """Wait until there is a file."""
    note("began", context)
    while not GO.exists():
        await asyncio.sleep(0.02)
    note("ended", context)
    return "rested"


@tool(effect="idempotent")
async def crash(context: ToolContext[None]) -> str:
    """Kill the process."""
    note("began", context)
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


@tool(effect="idempotent")
async def hog(context: ToolContext[None]) -> str:
    """Block the event loop for longer than the lease, the first time."""
    first = not BLOCKED.exists()
    BLOCKED.touch()
    note("began", context)
    if first:
        time.sleep(3)
    note("ended", context)
    return "zombie" if first else "fresh"


def agent(name: str, *tools) -> Agent:
    """It calls each tool once, one after another."""
    turns = [ToolCall(id=one.name, name=one.name, arguments={}) for one in tools]
    return Agent(ScriptedModel.by_turn([*turns, "done"]), name=name, tools=list(tools))


def catalog() -> Catalog:
    return Catalog(
        [agent("napper", nap), agent("killer", crash), agent("hog", hog)],
        sandboxing=Sandboxing(default="inprocess"),
    )
