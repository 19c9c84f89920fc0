"""Metrics of a process in Prometheus' format. docs/reference/metrics.md lists them.

A registry belongs to one open platform and is passed in; there is none for the whole process. No label ever holds what
a caller can choose (a task, a tenant, a path): the number of series is bounded by the program and its catalog.

Nothing here waits, and nothing raises; a count costs less than a microsecond. Any thread may count.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agentkit.models.resilience.circuit_breaker import CircuitState
from agentkit.models.resilience.provider_state import CallEnded

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""Of what :meth:`Metrics.exposed` returns."""

SHORT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds for what should take milliseconds."""

LONG_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""Bounds for what may take an hour."""

LOOK_SECONDS = 0.5
"""How often the event loop is looked at."""

RunOutcome: TypeAlias = Literal[
    "completed", "failed", "cancelled", "waiting", "retried", "released", "lost", "left"
]
"""How a run is let go of; what each means is in docs/reference/metrics.md."""

BATCHES = (1, 2, 5, 10, 20, 50, 100, 200, 500)


class Metrics:
    """Everything that one platform counts and measures.

    Attributes:
        runs: claims, runs, steps, leases.
        upkeep: sweeps, wake-ups, the event loop.
        writer: transactions of the store's writer.
        http: requests.
        models: calls of models, and how their providers stand.
        mcp: calls of MCP servers, and the connections to them.
        registry: where more can be added.
    """

    def __init__(self) -> None:
        self.registry: CollectorRegistry = _Registry()
        self.runs = RunMetrics(self.registry)
        self.upkeep = UpkeepMetrics(self.registry)
        self.writer = WriterMetrics(self.registry)
        self.http = HttpMetrics(self.registry)
        self.models = ModelMetrics(self.registry)
        self.mcp = McpMetrics(self.registry)
        ProcessCollector(registry=self.registry)

    def exposed(self) -> bytes:
        """All of it, as :data:`CONTENT_TYPE`."""
        return generate_latest(self.registry)


class _Registry(CollectorRegistry):
    """Without a second series for each one, that says when it began."""

    def collect(self) -> Iterable[Metric]:
        for metric in super().collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class RunMetrics:
    """What a runner does."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._claims = Counter("opspawn_claims", "Times that tasks were asked for.", registry=registry)
        self._claimed = Counter("opspawn_claimed_tasks", "Tasks that were claimed.", registry=registry)
        self._queue_wait = Histogram(
            "opspawn_queue_wait_seconds",
            "From the moment a task is due to its claim, by the database's clock.",
            registry=registry,
            buckets=LONG_SECONDS,
        )
        self._slots = Gauge("opspawn_run_slots", "Runs that can be carried at a time.", registry=registry)
        self._carried = Gauge("opspawn_runs_carried", "Runs that are being carried.", registry=registry)
        self._runs = Counter(
            "opspawn_runs", "Runs that were let go of, by how.", ["agent", "outcome"], registry=registry
        )
        self._seconds = Histogram(
            "opspawn_run_seconds",
            "From claim to letting go.",
            ["agent"],
            registry=registry,
            buckets=LONG_SECONDS,
        )
        self._steps = Counter("opspawn_steps", "Steps recorded by runs.", ["kind"], registry=registry)
        # looking a label up costs more than counting
        self._runs_of = cache(self._runs.labels)
        self._seconds_of = cache(self._seconds.labels)
        self._steps_of = cache(self._steps.labels)
        self._lost = Counter(
            "opspawn_lease_losses", "Runs that stopped because their lease was lost.", registry=registry
        )
        self._lag = Histogram(
            "opspawn_heartbeat_lag_seconds",
            "How much later than due the leases were renewed.",
            registry=registry,
            buckets=SHORT_SECONDS,
        )
        self._unrenewed = Counter(
            "opspawn_heartbeat_failures", "Heartbeats that the store refused.", registry=registry
        )

    def set_capacity(self, slots: int) -> None:
        """So many runs at a time."""
        self._slots.set(slots)

    def asked(self, waits: Sequence[float]) -> None:
        """Tasks were asked for; ``waits`` holds for each that was got how many seconds it had been due."""
        self._claims.inc()
        self._claimed.inc(len(waits))
        for wait in waits:
            self._queue_wait.observe(max(0.0, wait))

    def began(self) -> None:
        """A run is being carried."""
        self._carried.inc()

    def ended(self, agent: str, outcome: RunOutcome, seconds: float) -> None:
        """A run was let go of. The agent is one of the catalog."""
        self._carried.dec()
        self._runs_of(agent, outcome).inc()
        self._seconds_of(agent).observe(seconds)

    def recorded(self, kind: str) -> None:
        """A run has recorded a step of this kind."""
        self._steps_of(kind).inc()

    def lost(self) -> None:
        """A lease was lost."""
        self._lost.inc()

    def renewed(self, late_seconds: float) -> None:
        """All leases were renewed, so much later than they were due."""
        self._lag.observe(max(0.0, late_seconds))

    def not_renewed(self) -> None:
        """The store has refused a heartbeat."""
        self._unrenewed.inc()


class UpkeepMetrics:
    """What goes on beside the runs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._sweeps = Counter("opspawn_sweeps", "Sweeps, by how they ended.", ["outcome"], registry=registry)
        self._swept = Counter(
            "opspawn_swept_tasks", "Tasks a sweep released or ended.", ["what"], registry=registry
        )
        self._sent = Counter("opspawn_wakeups_sent", "Wake-ups given to the dispatcher.", registry=registry)
        self._heard = Counter("opspawn_wakeups_heard", "Wake-ups heard by the worker.", registry=registry)
        self._lag = Histogram(
            "opspawn_event_loop_lag_seconds",
            "How much later than asked for the event loop wakes up; looked at twice a second.",
            registry=registry,
            buckets=SHORT_SECONDS,
        )
        for outcome in ("done", "failed"):  # there from the beginning: a rate needs a first value
            self._sweeps.labels(outcome)
        for what in ("released", "ended"):
            self._swept.labels(what)

    def swept(self, released: int, ended: int) -> None:
        """A sweep was done."""
        self._sweeps.labels("done").inc()
        self._swept.labels("released").inc(released)
        self._swept.labels("ended").inc(ended)

    def sweep_failed(self) -> None:
        """The store has refused a sweep."""
        self._sweeps.labels("failed").inc()

    def woke(self) -> None:
        """A wake-up was given to the dispatcher."""
        self._sent.inc()

    def heard(self) -> None:
        """A wake-up was heard."""
        self._heard.inc()

    def loop_lagged(self, seconds: float) -> None:
        """The event loop woke up so much later than asked for."""
        self._lag.observe(max(0.0, seconds))


class WriterMetrics:
    """What the writer of a store does; its thread is the one that counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._writes = Histogram(
            "opspawn_writer_batch_writes",
            "Writes that were committed together.",
            registry=registry,
            buckets=BATCHES,
        )
        self._seconds = Histogram(
            "opspawn_writer_commit_seconds",
            "From the begin of a transaction to the end of its commit.",
            registry=registry,
            buckets=SHORT_SECONDS,
        )
        self._failed = Counter(
            "opspawn_writer_failures", "Transactions that were not committed.", registry=registry
        )
        self._queued = Gauge(
            "opspawn_writer_queue_writes", "Writes that wait for the writer.", registry=registry
        )

    def committed(self, writes: int, seconds: float) -> None:
        """So many writes were committed together; begin, statements and commit took so long."""
        self._writes.observe(writes)
        self._seconds.observe(seconds)

    def failed(self) -> None:
        """A transaction was not committed."""
        self._failed.inc()

    def queue(self, length: Callable[[], int]) -> None:
        """Ask ``length`` for the number of waiting writes whenever somebody looks."""
        self._queued.set_function(length)


class ModelMetrics:
    """Calls of models. The models are those of the catalog."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "opspawn_model_calls",
            "Calls of models, by how they ended: `ok`, or the code of the error.",
            ["model", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "opspawn_model_call_seconds",
            "From a call of a model to its end.",
            ["model"],
            registry=registry,
            buckets=LONG_SECONDS,
        )
        self._registry = registry
        self._calls_of = cache(self._calls.labels)
        self._seconds_of = cache(self._seconds.labels)

    def called(self, call: CallEnded) -> None:
        """A call has ended."""
        self._calls_of(call.model, call.error or "ok").inc()
        self._seconds_of(call.model).observe(call.seconds)

    def watch(
        self, circuits: Callable[[], Mapping[str, str]], queues: Callable[[], Mapping[str, tuple[int, int]]]
    ) -> None:
        """Ask these, whenever somebody looks, how each model stands and who waits for a turn."""
        self._registry.register(_TrafficGauges(circuits, queues))


class McpMetrics:
    """Calls of MCP servers. The servers are those of the catalog."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "opspawn_mcp_calls",
            "Calls of MCP servers, by how they ended.",
            ["server", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "opspawn_mcp_call_seconds",
            "From a call of an MCP server to its end.",
            ["server"],
            registry=registry,
            buckets=LONG_SECONDS,
        )
        self._opened = Counter(
            "opspawn_mcp_connections_opened",
            "Connections to MCP servers that were opened, or not.",
            ["server", "outcome"],
            registry=registry,
        )
        self._open = Gauge(
            "opspawn_mcp_connections",
            "Connections to MCP servers that are open.",
            ["server"],
            registry=registry,
        )

    def called(self, server: str, outcome: str, seconds: float, /) -> None:
        """A call has ended."""
        self._calls.labels(server, outcome).inc()
        self._seconds.labels(server).observe(seconds)

    def opened(self, server: str, error: str | None, /) -> None:
        """A connection was opened, or not."""
        self._opened.labels(server, error or "ok").inc()
        if error is None:
            self._open.labels(server).inc()

    def closed(self, server: str, /) -> None:
        """A connection has ended."""
        self._open.labels(server).dec()


class _TrafficGauges(Collector):
    def __init__(
        self, circuits: Callable[[], Mapping[str, str]], queues: Callable[[], Mapping[str, tuple[int, int]]]
    ) -> None:
        self._circuits = circuits
        self._queues = queues

    def collect(self) -> Iterable[Metric]:
        states = GaugeMetricFamily(
            "opspawn_model_circuit",
            "1 for the state in which the circuit of a model is.",
            labels=["model", "state"],
        )
        for model, found in self._circuits().items():
            for state in CircuitState:
                states.add_metric([model, state.value], found == state)
        yield states
        under_way = GaugeMetricFamily(
            "opspawn_model_calls_under_way", "Calls that a limiter has let through.", labels=["limit"]
        )
        waiting = GaugeMetricFamily(
            "opspawn_model_calls_waiting", "Calls that wait for their limiter.", labels=["limit"]
        )
        for name, (now, later) in self._queues().items():
            under_way.add_metric([name], now)
            waiting.add_metric([name], later)
        yield under_way
        yield waiting


class HttpMetrics:
    """What the API answers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "opspawn_http_requests",
            "Requests that were answered.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "opspawn_http_request_seconds",
            "From a request to the beginning of its answer.",
            ["route"],
            registry=registry,
            buckets=SHORT_SECONDS,
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered. Method and route are of those that the program knows."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


@asynccontextmanager
async def watching_the_loop(metrics: UpkeepMetrics) -> AsyncGenerator[None]:
    """While the context lasts, look twice a second how late the event loop is."""
    loop = asyncio.get_running_loop()

    async def look() -> None:
        while True:
            due = loop.time() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            metrics.loop_lagged(loop.time() - due)

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.wait({looking})
