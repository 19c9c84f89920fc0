"""The REST API under ``/api/v1``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fastapi import FastAPI
from starlette.routing import BaseRoute

from ops_core import __version__
from ops_core.api.agents import AgentRoutes
from ops_core.api.bodies import Bodies, BodyRoute
from ops_core.api.docs import add_docs
from ops_core.api.errors import add_error_handlers
from ops_core.api.events import EventRoutes
from ops_core.api.guard import Guard
from ops_core.api.halts import HaltRoutes
from ops_core.api.head_requests import Heads
from ops_core.api.health import HealthRoutes
from ops_core.api.metrics import Counted, MetricsRoute
from ops_core.api.notes import NoteRoutes
from ops_core.api.openapi import TASKS, Application
from ops_core.api.spending import SpendingRoutes
from ops_core.api.tasks import BulkRoutes, TaskRoutes
from ops_core.api.threads import ThreadRoutes
from ops_core.api.workers import WorkerRoutes
from ops_core.assembly import Ops
from ops_core.concurrency.offload import Offload
from ops_core.service import LocalClient

DESCRIPTION = """Opspawn runs LLM agents so that they finish.

A task that is accepted is durable. Errors are `application/problem+json` (RFC 9457): `code` is a stable word for
programs, `field` names what is wrong, `actor` says who must act. Fields and parameters that are not known are refused.
"""


def create_api(ops: Ops, closing: asyncio.Event | None = None, routes: Sequence[BaseRoute] = ()) -> FastAPI:
    """The application that answers for ``ops``, which must be open as long as it is used.

    Args:
        ops: the platform.
        closing: set when the server stops: streams of events end, and whoever waits for a task is answered.
        routes: that are no part of the REST API, behind the same guard.
    """
    closing = asyncio.Event() if closing is None else closing
    app = Application(
        title="Opspawn",
        version=__version__,
        description=DESCRIPTION,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.router.route_class = BodyRoute
    add_error_handlers(app)
    offload = Offload()
    TaskRoutes(ops, closing, offload).add_to(app)
    ThreadRoutes(ops.engine).add_to(app)
    EventRoutes(ops.engine, closing).add_to(app)
    AgentRoutes(ops.catalog).add_to(app)
    verbs = LocalClient(ops.engine, ops.catalog)
    BulkRoutes(verbs).add_to(app)
    NoteRoutes(verbs).add_to(app)
    HaltRoutes(verbs).add_to(app)
    SpendingRoutes(verbs).add_to(app)
    WorkerRoutes(verbs).add_to(app)
    HealthRoutes(ops.engine.store).add_to(app)
    MetricsRoute(ops.metrics, ops.gauges).add_to(app)
    add_docs(app)
    app.router.routes.extend(routes)
    larger = {f"{TASKS}:batch": ops.settings.max_batch_bytes}
    app.add_middleware(Heads)
    app.add_middleware(Bodies, max_bytes=ops.settings.max_body_bytes, max_bytes_at=larger, offload=offload)
    app.add_middleware(Guard)
    app.add_middleware(Counted, metrics=ops.metrics.http)  # the last one added is the outermost
    return app
