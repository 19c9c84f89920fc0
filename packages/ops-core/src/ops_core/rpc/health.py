"""Standard gRPC health service: whether the server can work. The database is asked each time."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ops_core.errors import OpsError
from ops_core.ports import Store
from ops_core.rpc.call_guard import Context

LOOK_SECONDS = 5.0
"""Whoever watches is told of a change within this time; of the end of the server at once."""

Answer = health_pb2.HealthCheckResponse


class HealthService(health_pb2_grpc.HealthServicer):
    """``grpc.health.v1.Health``.

    Args:
        store: without it nothing can be done.
        names: of the services; the empty one, for the whole server, is known anyway.
        closing: set when the server stops.
    """

    def __init__(self, store: Store, names: Collection[str], closing: asyncio.Event) -> None:
        self._store = store
        self._names = frozenset(("", *names))
        self._closing = closing

    async def Check(  # noqa: N802  (the contract names it)
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> Answer:
        """Whether a service can work now."""
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no service of this name")
        return Answer(status=await self._status(request.service))

    async def Watch(  # noqa: N802  (as above)
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> None:
        """Whether it can work now, and each time that this changes."""
        told, ending = None, False
        while not ending:
            ending = self._closing.is_set()
            status = await self._status(request.service)
            if status != told:
                await context.write(Answer(status=status))
                told = status
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._closing.wait()

    async def _status(self, service: str) -> int:
        if service not in self._names:
            return Answer.SERVICE_UNKNOWN
        if self._closing.is_set():
            return Answer.NOT_SERVING
        try:
            await self._store.check(writes=True)
        except OpsError:
            return Answer.NOT_SERVING
        return Answer.SERVING
