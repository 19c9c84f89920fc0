"""Service of threads."""

from __future__ import annotations

from ops_core.assembly import Ops
from ops_core.protocol.tasks import thread_out
from ops_core.protocol.v1 import thread_service_pb2 as messages
from ops_core.protocol.v1.thread_service_pb2_grpc import ThreadServiceServicer
from ops_core.rpc.call_guard import Answering, Context
from ops_core.schemas.queries import PAGE_DEFAULT, PAGE_MOST
from ops_core.service import LocalClient


class ThreadService(ThreadServiceServicer):
    """``opspawn.v1.ThreadService``.

    Args:
        ops: the platform.
    """

    def __init__(self, ops: Ops) -> None:
        self._verbs = LocalClient(ops.engine, ops.catalog)
        self._answering = Answering(ops.settings.max_body_bytes)

    async def ListThreads(  # noqa: N802  (the contract names it)
        self, request: messages.ListThreadsRequest, context: Context
    ) -> messages.ListThreadsResponse:
        """A page of threads."""
        async with self._answering(request, context):
            limit = min(request.page_size or PAGE_DEFAULT, PAGE_MOST)
            page = await self._verbs.threads(cursor=request.page_token or None, limit=limit)
            return messages.ListThreadsResponse(
                threads=[thread_out(thread) for thread in page.items], next_page_token=page.next_cursor or ""
            )

    async def GetThread(  # noqa: N802  (as above)
        self, request: messages.GetThreadRequest, context: Context
    ) -> messages.GetThreadResponse:
        """One thread."""
        async with self._answering(request, context):
            return messages.GetThreadResponse(thread=thread_out(await self._verbs.thread(request.thread_id)))

    async def DeleteThread(  # noqa: N802  (as above)
        self, request: messages.DeleteThreadRequest, context: Context
    ) -> messages.DeleteThreadResponse:
        """Delete a thread and its tasks."""
        async with self._answering(request, context):
            return messages.DeleteThreadResponse(tasks=await self._verbs.delete_thread(request.thread_id))
