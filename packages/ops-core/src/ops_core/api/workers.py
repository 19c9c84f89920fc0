"""Route of workers."""

from __future__ import annotations

from fastapi import FastAPI

from ops_core.api.openapi import API, reading
from ops_core.client import Operations
from ops_core.schemas import WorkerPage


class WorkerRoutes:
    """Who works, and what each worker holds.

    Args:
        verbs: of the platform.
    """

    def __init__(self, verbs: Operations) -> None:
        self._verbs = verbs

    def add_to(self, app: FastAPI) -> None:
        """Add it to ``app``."""
        app.add_api_route(f"{API}/workers", self.list_workers, **reading("list_workers"))

    async def list_workers(self) -> WorkerPage:
        """Workers by name: idle and busy ones, and those that fell silent lately, with the tasks that they hold."""
        return WorkerPage(items=list(await self._verbs.workers()))
