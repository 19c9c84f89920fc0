"""What the fleet runs: agents of several turns whose effects are counted outside of the platform.

This file is copied beside each process, which imports it by name (``--app agents:catalog``).
"""

import asyncio
import os
import random
import select
import time
from functools import cache
from pathlib import Path
from typing import Any

from agentkit import Agent, ToolCall, tool
from agentkit.messages import ModelReply, ModelRequest, StopReason, Text, Usage
from agentkit.ports import ToolContext
from agentkit.testing import ScriptedModel

try:
    from ops_core.config.catalog import Catalog
    from ops_core.config.sandbox import Sandboxing
except ModuleNotFoundError:  # release 0.1.0, which test_versions.py runs beside this one
    from ops_core.catalog import Catalog  # type: ignore[import-not-found, no-redef, unused-ignore]

    TRUSTED: dict[str, Any] = {}
else:
    TRUSTED = {"sandboxing": Sandboxing(default="inprocess")}

EFFECTS = Path("effects.log")
LONGEST_TOOL = 0.12
BLOCKED_SECONDS = 2.5
USAGE = Usage(input_tokens=11, output_tokens=3, cost_usd=0.25)


@cache
def effects_file() -> int:
    """Opened once: a process without descriptors can still say what it has done."""
    return os.open(EFFECTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def note(what: str, effect: str, key: str) -> None:
    """One write with O_APPEND: lines of several processes never mix, and a kill loses none that was written."""
    os.write(effects_file(), f"{what} {effect} {key} {os.getpid()} {time.monotonic():.6f}\n".encode())


async def take_effect(effect: str, key: str) -> None:
    """Somewhere in between the effect is there, and its record is not."""
    await asyncio.sleep(random.uniform(0, LONGEST_TOOL))
    note("start", effect, key)
    await asyncio.sleep(random.uniform(0, LONGEST_TOOL))
    note("end", effect, key)


@tool(effect="pure")
async def read(page: str, context: ToolContext[None]) -> str:
    """Read a page."""
    await take_effect("pure", context.idempotency_key)
    return f"text of {page}"


@tool(effect="idempotent")
async def store(page: str, context: ToolContext[None]) -> str:
    """Store a page under the call's key."""
    await take_effect("idempotent", context.idempotency_key)
    return f"stored {page}"


@tool(effect="unsafe")
async def send(to: str, context: ToolContext[None]) -> str:
    """Send a letter, which cannot be taken back."""
    await take_effect("unsafe", context.idempotency_key)
    return f"sent to {to}"


@tool(effect="idempotent")
async def block(context: ToolContext[None]) -> str:
    """Block the event loop of the whole worker, longer than a lease; a second time it does not."""
    note("start", "idempotent", context.idempotency_key)
    marker = Path(f"blocked-{context.idempotency_key.replace(':', '-')}")
    if not marker.exists():
        marker.touch()
        select.select([], [], [], BLOCKED_SECONDS)  # time.sleep does not work where the clock is moved
    note("end", "idempotent", context.idempotency_key)
    return "blocked"


def said(*parts: ToolCall | Text):
    """A reply that takes a moment and costs something."""

    async def reply(_request: ModelRequest) -> ModelReply:
        await asyncio.sleep(random.uniform(0, LONGEST_TOOL / 3))
        calls = any(isinstance(part, ToolCall) for part in parts)
        return ModelReply(
            parts=parts, stop_reason=StopReason.TOOL_CALLS if calls else StopReason.END, usage=USAGE
        )

    return reply


def call(name: str, call_id: str, **arguments: str) -> ToolCall:
    return ToolCall(id=call_id, name=name, arguments=arguments)


CLERK = {
    "a": "pure", "b": "idempotent", "c": "idempotent",
    "d": "idempotent", "e": "unsafe",
    "f": "unsafe",
}  # fmt: skip
"""The calls of a clerk by id, and their effects: three at once, two at once, one."""

HOG = {"a": "idempotent", "b": "unsafe"}


def catalog() -> Catalog:
    """A clerk with three turns of tool calls, and a hog that blocks its worker."""
    clerk = ScriptedModel.by_turn(
        [
            said(call("read", "a", page="a"), call("store", "b", page="b"), call("store", "c", page="c")),
            said(call("store", "d", page="d"), call("send", "e", to="anna")),
            said(call("send", "f", to="bert")),
            said(Text(text="All done.")),
        ]
    )
    hog = ScriptedModel.by_turn(
        [said(call("block", "a")), said(call("send", "b", to="anna")), said(Text(text="All done."))]
    )
    return Catalog(
        [
            Agent(clerk, name="clerk", tools=[read, store, send]),
            Agent(hog, name="hog", tools=[block, send]),
        ],
        **TRUSTED,
    )
