"""Routes of threads."""

from __future__ import annotations

from fastapi import FastAPI

from ops_core.api.openapi import THREADS, deleting, reading
from ops_core.api.parameters import Cursor, PageLimit, ThreadIdPath
from ops_core.engine import Engine
from ops_core.schemas import ThreadBody, ThreadDeleted, ThreadPage
from ops_core.schemas.queries import PAGE_DEFAULT, thread_filter, thread_id_of
from ops_core.task import DEFAULT_TENANT


class ThreadRoutes:
    """Conversations. They begin and go on with tasks that name them.

    Args:
        engine: where they are.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add_to(self, app: FastAPI) -> None:
        """Add them to ``app``."""
        one = f"{THREADS}/{{thread_id}}"
        app.add_api_route(THREADS, self.list_threads, **reading("list_threads"))
        app.add_api_route(one, self.get, **reading("get_thread", 404))
        app.add_api_route(one, self.delete, **deleting("delete_thread", 404, 409))

    async def list_threads(self, cursor: Cursor = None, limit: PageLimit = PAGE_DEFAULT) -> ThreadPage:
        """Threads, those first in which something happened last."""
        asked = thread_filter(cursor=cursor, limit=limit)
        return ThreadPage.of(await self._engine.threads(DEFAULT_TENANT, asked), asked)

    async def get(self, thread_id: ThreadIdPath) -> ThreadBody:
        """One thread; `GET /tasks?thread_id=…` lists its tasks."""
        return ThreadBody.of(await self._engine.thread(DEFAULT_TENANT, thread_id_of(thread_id)))

    async def delete(self, thread_id: ThreadIdPath) -> ThreadDeleted:
        """Delete a thread with its tasks and all that is recorded of them.

        Refused (409) while a task of it has not ended: cancel that first.
        """
        deleted = await self._engine.forget_thread(DEFAULT_TENANT, thread_id_of(thread_id))
        return ThreadDeleted(tasks=deleted)
