"""Lists that come page by page."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection

from ops_core.client.protocol import Client
from ops_core.listing import PAGE_MOST
from ops_core.wire import TaskBody


async def all_tasks(
    client: Client, status: Collection[str], agent: str | None, label: str | None
) -> AsyncGenerator[TaskBody, None]:
    """All tasks, newest first."""
    cursor: str | None = None
    while True:
        page = await client.list(status=status, agent=agent, label=label, cursor=cursor, limit=PAGE_MOST)
        for task in page.items:
            yield task
        cursor = page.next_cursor
        if cursor is None:
            return
