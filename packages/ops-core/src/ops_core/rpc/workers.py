"""Service of workers."""

from __future__ import annotations

from ops_core.assembly import Ops
from ops_core.protocol.v1 import worker_service_pb2 as messages
from ops_core.protocol.v1.worker_service_pb2_grpc import WorkerServiceServicer
from ops_core.protocol.workers import worker_out
from ops_core.rpc.call_guard import Answering, Context
from ops_core.service import LocalClient


class WorkerService(WorkerServiceServicer):
    """``opspawn.v1.WorkerService``.

    Args:
        ops: the platform.
    """

    def __init__(self, ops: Ops) -> None:
        self._verbs = LocalClient(ops.engine, ops.catalog)
        self._answering = Answering(ops.settings.max_body_bytes)

    async def ListWorkers(  # noqa: N802  (the contract names it)
        self, request: messages.ListWorkersRequest, context: Context
    ) -> messages.ListWorkersResponse:
        """All workers."""
        async with self._answering(request, context):
            found = await self._verbs.workers()
            return messages.ListWorkersResponse(workers=[worker_out(worker) for worker in found])
