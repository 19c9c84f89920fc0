"""Health routes: whether the server is alive, and whether it can work."""

from __future__ import annotations

from typing import Literal

from fastapi import FastAPI
from pydantic import BaseModel

from ops_core.api.openapi import reading
from ops_core.ports import Store


class Health(BaseModel):
    """It is well."""

    status: Literal["ok"] = "ok"


class HealthRoutes:
    """For whoever watches over the process.

    Args:
        store: without it nothing can be done.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def add_to(self, app: FastAPI) -> None:
        """Add them to ``app``."""
        app.add_api_route("/health/live", self.live, **reading("health_live"))
        app.add_api_route("/health/ready", self.ready, **reading("health_ready"))

    async def live(self) -> Health:
        """The process answers."""
        return Health()

    async def ready(self) -> Health:
        """The database answers, takes writes and has the schema of this release; 503 where not."""
        await self._store.check(writes=True)
        return Health()
