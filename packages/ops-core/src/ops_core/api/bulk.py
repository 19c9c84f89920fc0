"""The routes of verbs on many tasks at once."""

from __future__ import annotations

from fastapi import FastAPI

from ops_core.api.openapi import TASKS, writing
from ops_core.client import Client
from ops_core.wire import BulkBody, BulkRequest


class BulkRoutes:
    """Cancel and retry by filter.

    Args:
        verbs: of the platform.
    """

    def __init__(self, verbs: Client) -> None:
        self._verbs = verbs

    def add_to(self, app: FastAPI) -> None:
        """Add them to ``app``."""
        app.add_api_route(f"{TASKS}:cancel", self.cancel, **writing("cancel_tasks"))
        app.add_api_route(f"{TASKS}:retry", self.retry, **writing("retry_tasks"))

    async def cancel(self, request: BulkRequest) -> BulkBody:
        """Cancel the tasks that fit a filter, or count them.

        At most 1,000 are looked at, in transactions of 100; `next_cursor` leads on. A request may be repeated: what has
        ended is left out. With `dry_run` nothing is changed.
        """
        return await self._verbs.cancel_many(request)

    async def retry(self, request: BulkRequest) -> BulkBody:
        """Carry on the tasks that fit a filter by new ones, or count them.

        Each is retried once, as by `POST /tasks/{task_id}/retry`; a request may be repeated: what was retried is left
        out. At most 1,000 are looked at, the oldest first; `next_cursor` leads on.
        """
        return await self._verbs.retry_many(request)
