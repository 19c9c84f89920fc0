"""Submitting, for every surface: what must hold before a task is accepted."""

from __future__ import annotations

from ops_core.catalog import Catalog
from ops_core.engine import Engine
from ops_core.ports import Inserted
from ops_core.wire import TaskRequest


async def accept(
    engine: Engine, catalog: Catalog, request: TaskRequest, idempotency_key: str | None
) -> Inserted:
    """Accept a task that can be run here; it is durable when this returns.

    Raises:
        AgentNotFound: it cannot.
        IdempotencyConflict: the key was used for another request.
    """
    catalog.get(request.agent)
    return await engine.submit(request.as_new_task(idempotency_key))
