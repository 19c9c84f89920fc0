"""Service of the kill switch."""

from __future__ import annotations

from ops_core.assembly import Ops
from ops_core.protocol.halts import halt_out, halt_request_in
from ops_core.protocol.v1 import halt_service_pb2 as messages
from ops_core.protocol.v1.halt_service_pb2_grpc import HaltServiceServicer
from ops_core.rpc.call_guard import Answering, Context
from ops_core.schemas import LiftRequest
from ops_core.schemas.queries import PAGE_DEFAULT, PAGE_MOST
from ops_core.service import LocalClient


class HaltService(HaltServiceServicer):
    """``opspawn.v1.HaltService``.

    Args:
        ops: the platform.
    """

    def __init__(self, ops: Ops) -> None:
        self._verbs = LocalClient(ops.engine, ops.catalog)
        self._answering = Answering(ops.settings.max_body_bytes)

    async def CreateHalt(  # noqa: N802  (the contract names it)
        self, request: messages.CreateHaltRequest, context: Context
    ) -> messages.CreateHaltResponse:
        """Halt something."""
        async with self._answering(request, context):
            key = request.idempotency_key if request.HasField("idempotency_key") else None
            halt = await self._verbs.halt(halt_request_in(request), idempotency_key=key)
            return messages.CreateHaltResponse(halt=halt_out(halt))

    async def ListHalts(  # noqa: N802  (as above)
        self, request: messages.ListHaltsRequest, context: Context
    ) -> messages.ListHaltsResponse:
        """A page of halts."""
        async with self._answering(request, context):
            page = await self._verbs.halts(
                in_force=not request.lifted,
                cursor=request.page_token or None,
                limit=min(request.page_size or PAGE_DEFAULT, PAGE_MOST),
            )
            return messages.ListHaltsResponse(
                halts=[halt_out(halt) for halt in page.items], next_page_token=page.next_cursor or ""
            )

    async def LiftHalt(  # noqa: N802  (as above)
        self, request: messages.LiftHaltRequest, context: Context
    ) -> messages.LiftHaltResponse:
        """Lift a halt."""
        async with self._answering(request, context):
            given = LiftRequest(reason=request.reason, by=request.by)
            return messages.LiftHaltResponse(halt=halt_out(await self._verbs.lift(request.halt_id, given)))
