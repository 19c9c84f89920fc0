"""Route of a tenant's spending."""

from __future__ import annotations

from fastapi import FastAPI

from ops_core.api.openapi import API, reading
from ops_core.client import Operations
from ops_core.schemas import SpendingBody


class SpendingRoutes:
    """What was spent today.

    Args:
        verbs: of the platform.
    """

    def __init__(self, verbs: Operations) -> None:
        self._verbs = verbs

    def add_to(self, app: FastAPI) -> None:
        """Add it to ``app``."""
        app.add_api_route(f"{API}/spending", self.get, **reading("get_spending"))

    async def get(self) -> SpendingBody:
        """What the tenant has spent today (UTC) and may still spend.

        It is kept only where there is a limit (`[spending]`).
        """
        return await self._verbs.spending()
