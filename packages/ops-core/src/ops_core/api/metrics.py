"""Metrics route for Prometheus, and the counting of requests."""

from __future__ import annotations

from time import monotonic

from fastapi import FastAPI, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ops_core.observability.metrics import CONTENT_TYPE, HttpMetrics, Metrics
from ops_core.observability.store_gauges import StoreGauges

OTHER = "other"
"""A path that is no route, and a method that nobody knows: what a caller invents makes no series."""

METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})


class MetricsRoute:
    """``GET /metrics``.

    Args:
        metrics: what this process counts.
        gauges: what its store says.
    """

    def __init__(self, metrics: Metrics, gauges: StoreGauges) -> None:
        self._metrics = metrics
        self._gauges = gauges

    def add_to(self, app: FastAPI) -> None:
        """Add it to ``app``; it is for operators, and not a part of the API's document."""
        app.add_api_route("/metrics", self.metrics, methods=["GET"], include_in_schema=False)

    async def metrics(self) -> Response:
        """All metrics. Without the store, those of this process."""
        await self._gauges.refresh()
        return Response(self._metrics.exposed(), media_type=CONTENT_TYPE)


class Counted:
    """Counts requests by route and status, up to the beginning of the answer: a stream may last for hours.

    Args:
        app: what comes next.
        metrics: told.
    """

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and count."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = monotonic()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in METHODS else OTHER
                route: str = getattr(scope.get("route"), "path", OTHER)
                self._metrics.answered(method, route, message["status"], monotonic() - began)
            await send(message)

        await self._app(scope, receive, counted)
