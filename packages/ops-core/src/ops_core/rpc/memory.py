"""Services of agents' notes and of spending."""

from __future__ import annotations

from ops_core.assembly import Ops
from ops_core.protocol.notes import note_out, spending_out
from ops_core.protocol.v1 import memory_service_pb2 as messages
from ops_core.protocol.v1 import spending_service_pb2
from ops_core.protocol.v1.memory_service_pb2_grpc import MemoryServiceServicer
from ops_core.protocol.v1.spending_service_pb2_grpc import SpendingServiceServicer
from ops_core.rpc.call_guard import Answering, Context
from ops_core.schemas import RecallRequest
from ops_core.schemas.queries import PAGE_DEFAULT, PAGE_MOST
from ops_core.service import LocalClient


class MemoryService(MemoryServiceServicer):
    """``opspawn.v1.MemoryService``.

    Args:
        ops: the platform.
    """

    def __init__(self, ops: Ops) -> None:
        self._verbs = LocalClient(ops.engine, ops.catalog)
        self._answering = Answering(ops.settings.max_body_bytes)

    async def ListNotes(  # noqa: N802  (the contract names it)
        self, request: messages.ListNotesRequest, context: Context
    ) -> messages.ListNotesResponse:
        """A page of notes."""
        async with self._answering(request, context):
            page = await self._verbs.notes(
                agent=request.agent if request.HasField("agent") else None,
                key=request.key if request.HasField("key") else None,
                cursor=request.page_token or None,
                limit=min(request.page_size or PAGE_DEFAULT, PAGE_MOST),
            )
            return messages.ListNotesResponse(
                notes=[note_out(note) for note in page.items], next_page_token=page.next_cursor or ""
            )

    async def RecallNotes(  # noqa: N802  (as above)
        self, request: messages.RecallNotesRequest, context: Context
    ) -> messages.RecallNotesResponse:
        """The most similar notes."""
        async with self._answering(request, context):
            given = {"agent": request.agent, "query": request.query, "key": request.key}
            limit = {"limit": request.limit} if request.limit else {}
            found = await self._verbs.recall(RecallRequest.model_validate({**given, **limit}))
            return messages.RecallNotesResponse(notes=[note_out(note) for note in found])

    async def ForgetNotes(  # noqa: N802  (as above)
        self, request: messages.ForgetNotesRequest, context: Context
    ) -> messages.ForgetNotesResponse:
        """Delete notes."""
        async with self._answering(request, context):
            forgotten = await self._verbs.forget(
                agent=request.agent if request.HasField("agent") else None,
                key=request.key if request.HasField("key") else None,
                ids=tuple(request.ids),
                everything=request.all,
            )
            return messages.ForgetNotesResponse(notes=forgotten)


class SpendingService(SpendingServiceServicer):
    """``opspawn.v1.SpendingService``.

    Args:
        ops: the platform.
    """

    def __init__(self, ops: Ops) -> None:
        self._verbs = LocalClient(ops.engine, ops.catalog)
        self._answering = Answering(ops.settings.max_body_bytes)

    async def GetSpending(  # noqa: N802  (the contract names it)
        self, request: spending_service_pb2.GetSpendingRequest, context: Context
    ) -> spending_service_pb2.GetSpendingResponse:
        """What was spent today."""
        async with self._answering(request, context):
            return spending_service_pb2.GetSpendingResponse(
                spending=spending_out(await self._verbs.spending())
            )
