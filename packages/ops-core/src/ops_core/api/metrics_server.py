"""HTTP server for metrics and health in a process that has no API."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI

from ops_core.api.connections import http_config
from ops_core.api.errors import add_error_handlers
from ops_core.api.guard import Guard
from ops_core.api.head_requests import Heads
from ops_core.api.health import HealthRoutes
from ops_core.api.metrics import MetricsRoute
from ops_core.api.serve import _address, _listen, _Server
from ops_core.assembly import Ops
from ops_core.errors import ConfigError

log = logging.getLogger("ops_core.api")


@asynccontextmanager
async def observable(ops: Ops, port: int, others: int = 0) -> AsyncGenerator[str]:
    """``/metrics`` and ``/health`` on the loopback while the context lasts; gives the address, which is ready.

    Args:
        ops: the platform, open.
        port: where to listen; 0 for any free one.
        others: so many processes beside this one were told the same port: each takes the next one that is free.

    Raises:
        ConfigError: none of these can be listened on.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_error_handlers(app)
    HealthRoutes(ops.engine.store).add_to(app)
    MetricsRoute(ops.metrics, ops.gauges).add_to(app)
    app.add_middleware(Heads)
    app.add_middleware(Guard)
    listening = _first_free(ops.settings.host, port, others)
    server = _Server(http_config(app, drain_seconds=1))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(listening))
            await server.accepting.wait()
            address = _address(listening[0])
            log.info("metrics can be read", extra={"url": f"{address}/metrics"})
            try:
                yield address
            finally:
                server.should_exit = True
    finally:
        for one in listening:
            one.close()


def _first_free(host: str, port: int, others: int) -> list[socket.socket]:
    last = port if port == 0 else min(port + others, 65535)
    for candidate in range(port, last):
        with suppress(ConfigError):
            return _listen(host, candidate)
    return _listen(host, last)
