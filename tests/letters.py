"""An agent for tests with real processes: its effects are lines in a file outside of the platform."""

import asyncio
import os
import random
from pathlib import Path

from agentkit import Agent, ToolCall, tool
from agentkit.ports import ToolContext
from agentkit.testing import ScriptedModel
from ops_core.config.catalog import Catalog
from ops_core.config.sandbox import Sandboxing

EFFECTS = Path("effects.log")


def note(effect: str, key: str) -> None:
    """One write call with O_APPEND: lines of several processes never mix, and a kill loses none that was written."""
    handle = os.open(EFFECTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, f"{effect} {key}\n".encode())
    finally:
        os.close(handle)


@tool(effect="idempotent")
async def store(page: str, context: ToolContext[None]) -> str:
    """Store a page."""
    await asyncio.sleep(random.uniform(0, 0.15))
    note("store", context.idempotency_key)
    await asyncio.sleep(random.uniform(0, 0.05))
    return f"stored {page}"


@tool(effect="unsafe")
async def send(to: str, context: ToolContext[None]) -> str:
    """Send a letter."""
    note("send", context.idempotency_key)
    await asyncio.sleep(random.uniform(0, 0.1))
    return f"sent to {to}"


def catalog() -> Catalog:
    """One agent: two pages are stored at once, then a letter is sent."""
    model = ScriptedModel.by_turn(
        [
            [
                ToolCall(id="a", name="store", arguments={"page": "a"}),
                ToolCall(id="b", name="store", arguments={"page": "b"}),
            ],
            ToolCall(id="c", name="send", arguments={"to": "anna"}),
            "All done.",
        ]
    )
    return Catalog(
        [Agent(model, name="clerk", tools=[store, send])], sandboxing=Sandboxing(default="inprocess")
    )
