"""Platforms and stores for tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from agentkit.agent import Agent
from ops_core.assembly import Ops, open_ops
from ops_core.config.catalog import Catalog
from ops_core.config.sandbox import Sandboxing
from ops_core.ports import Clock
from ops_core.settings import Settings
from ops_core.stores import SqlStore, migrations, open_store


class FakeClock:
    """A clock that stands still until it is told to go on.

    Args:
        now: seconds since the epoch.
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@asynccontextmanager
async def open_test_store(url: str = "sqlite://", clock: Clock = time.time) -> AsyncGenerator[SqlStore]:
    """A store with its schema, by default in memory.

    Args:
        url: see :func:`ops_core.stores.open_store`.
        clock: the database's clock.
    """
    store = open_store(url, clock=clock)
    await asyncio.to_thread(migrations.upgrade, store)
    async with store:
        yield store


@asynccontextmanager
async def open_test_ops(*agents: Agent[Any, Any], **settings: Any) -> AsyncGenerator[Ops]:
    """A whole platform, by default in memory, that looks for work often and waits for nothing long.

    ::

        async with open_test_ops(Agent(model, name="assistant")) as ops, ops.working():
            inserted = await ops.engine.submit(NewTask(agent="assistant", input="Hello"))
            task = await ops.engine.until_ended("default", inserted.task.id)

    Args:
        agents: what it can run; their tools run in this process, where nothing else is said of them.
        settings: fields of :class:`~ops_core.settings.Settings`.
    """
    quick = {"store_url": "sqlite://", "poll_seconds": 0.05, "sweep_seconds": 0.05, "grace_seconds": 0.5}
    catalog = Catalog(agents, sandboxing=Sandboxing(default="inprocess"))
    async with open_ops(Settings.model_validate({**quick, **settings}), catalog) as ops:
        yield ops
