"""gRPC server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ops_core.assembly import Ops
from ops_core.errors import ConfigError
from ops_core.protocol.v1 import (
    agent_service_pb2,
    halt_service_pb2,
    memory_service_pb2,
    spending_service_pb2,
    task_service_pb2,
    thread_service_pb2,
    worker_service_pb2,
)
from ops_core.protocol.v1.agent_service_pb2_grpc import add_AgentServiceServicer_to_server
from ops_core.protocol.v1.halt_service_pb2_grpc import add_HaltServiceServicer_to_server
from ops_core.protocol.v1.memory_service_pb2_grpc import add_MemoryServiceServicer_to_server
from ops_core.protocol.v1.spending_service_pb2_grpc import add_SpendingServiceServicer_to_server
from ops_core.protocol.v1.task_service_pb2_grpc import add_TaskServiceServicer_to_server
from ops_core.protocol.v1.thread_service_pb2_grpc import add_ThreadServiceServicer_to_server
from ops_core.protocol.v1.worker_service_pb2_grpc import add_WorkerServiceServicer_to_server
from ops_core.rpc.agents import AgentService
from ops_core.rpc.call_guard import Decoding
from ops_core.rpc.halts import HaltService
from ops_core.rpc.health import HealthService
from ops_core.rpc.memory import MemoryService, SpendingService
from ops_core.rpc.tasks import TaskService
from ops_core.rpc.threads import ThreadService
from ops_core.rpc.workers import WorkerService

DRAIN_SECONDS = 3.0
"""When stopping, so long an answer that has begun may take to reach its end."""

MAX_ANSWER_BYTES = 64 << 20
"""The largest message that is sent. Pages are bounded below; one task or step may be larger than a page."""

SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (task_service_pb2, "TaskService"),
        (agent_service_pb2, "AgentService"),
        (thread_service_pb2, "ThreadService"),
        (memory_service_pb2, "MemoryService"),
        (spending_service_pb2, "SpendingService"),
        (halt_service_pb2, "HaltService"),
        (worker_service_pb2, "WorkerService"),
    )
)


@asynccontextmanager
async def serving(ops: Ops, closing: asyncio.Event | None = None) -> AsyncGenerator[Sequence[str]]:
    """The services while the context lasts; gives the addresses, which are ready.

    Args:
        ops: the platform, open.
        closing: set when the context is left, or by the caller before that: from then on nothing new is accepted,
            watchers are told that the server stops, and other calls have :data:`DRAIN_SECONDS` to end.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    closing = asyncio.Event() if closing is None else closing
    server = aio.server(interceptors=[Decoding()], options=_options(ops.settings.max_batch_bytes))
    add_TaskServiceServicer_to_server(TaskService(ops, closing), server)
    add_AgentServiceServicer_to_server(AgentService(ops), server)
    add_ThreadServiceServicer_to_server(ThreadService(ops), server)
    add_MemoryServiceServicer_to_server(MemoryService(ops), server)
    add_SpendingServiceServicer_to_server(SpendingService(ops), server)
    add_HaltServiceServicer_to_server(HaltService(ops), server)
    add_WorkerServiceServicer_to_server(WorkerService(ops), server)
    health = HealthService(ops.engine.store, SERVICES, closing)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    standard = (health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
    reflection.enable_server_reflection((*SERVICES, *standard), server)
    try:
        addresses = _listen(server, ops.settings.host, ops.settings.listening_grpc_port)
        await server.start()
        draining = asyncio.create_task(_drain(server, closing))
        try:
            yield addresses
        finally:
            closing.set()
            await draining
    finally:
        await server.stop(None)


async def _drain(server: aio.Server, closing: asyncio.Event) -> None:
    await closing.wait()
    await server.stop(DRAIN_SECONDS)


def _options(max_bytes: int) -> Sequence[tuple[str, int]]:
    return (
        ("grpc.max_receive_message_length", max_bytes),
        ("grpc.max_send_message_length", MAX_ANSWER_BYTES),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.max_concurrent_streams", 1_000),  # calls of one connection
        ("grpc.so_reuseport", 0),  # a port that is taken is an error, not shared
        ("grpc.keepalive_time_ms", 30_000),  # a watcher whose machine is gone is found out, and let go
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # a watcher may ask as often whether we are
        ("grpc.keepalive_permit_without_calls", 1),
    )


def _listen(server: aio.Server, host: str, port: int) -> list[str]:
    """Listen on each address of ``host``, all on one port.

    Raises:
        ConfigError: it is taken, or may not be used.
    """
    addresses: list[str] = []
    for name in _names(host):
        try:
            port = server.add_insecure_port(
                f"{name}:{port}"
            )  # where it was any free one, the next is to be the same
        except RuntimeError:
            message = f"cannot listen on {host}, port {port} for gRPC: it is taken, or may not be used"
            raise ConfigError(message, field="grpc_port") from None
        addresses.append(f"grpc://{name}:{port}")
    return addresses


def _names(host: str) -> Sequence[str]:
    if host != "localhost":
        return (f"[{host}]" if ":" in host else host,)
    return ("127.0.0.1", "[::1]") if socket.has_dualstack_ipv6() else ("127.0.0.1",)
