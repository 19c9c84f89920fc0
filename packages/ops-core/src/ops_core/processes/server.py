"""Server process: runs everything that it serves until a signal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec

from starlette.routing import BaseRoute

from ops_core.api.serve import serving
from ops_core.assembly import Ops
from ops_core.concurrency.shutdown import stopped_by_signals


async def run_server(ops: Ops, announce: Callable[[Sequence[str]], None], *, worker: bool = True) -> None:
    """Serve the API and gRPC and work, until SIGINT or SIGTERM; a second signal ends the process at once.

    Stopping, it takes no more connections and claims no more tasks, lets the runs go at their next step, and is back
    within ``grace_seconds`` and a few more. gRPC is served where it is installed.

    Args:
        ops: the platform, open.
        announce: told the addresses, ``http://…`` and ``grpc://…``, once connections are accepted there.
        worker: work, too; without it, tasks are left to other processes.

    Raises:
        ConfigError: an address cannot be listened on.
    """
    closing = asyncio.Event()
    with stopped_by_signals(closing):
        async with serving_all(ops, closing, worker=worker) as addresses:
            announce(addresses)
            await closing.wait()


@asynccontextmanager
async def serving_all(
    ops: Ops, closing: asyncio.Event | None = None, *, worker: bool = True
) -> AsyncGenerator[Sequence[str]]:
    """What :func:`serve` serves, while the context lasts; gives the addresses, which are ready.

    Args:
        ops: the platform, open.
        closing: set when the context is left, or by the caller before that: whoever waits for a task is answered.
        worker: work, too.

    Raises:
        ConfigError: an address cannot be listened on.
    """
    closing = asyncio.Event() if closing is None else closing
    async with AsyncExitStack() as stack:
        grpc = list[str]()
        if grpc_is_installed():  # begun first, it drains by itself while the others end
            from ops_core.rpc.serve import serving as serving_grpc

            grpc += await stack.enter_async_context(serving_grpc(ops, closing))
        routes = list[BaseRoute]()
        if mcp_is_installed():
            from ops_core.mcp_server.server import AgentServer
            from ops_core.mcp_server.transports import mounted

            agents = AgentServer(ops, closing).server
            endpoint = mounted(agents, ops.settings.max_body_bytes)
            routes.append(await stack.enter_async_context(endpoint))
        http = await stack.enter_async_context(serving(ops, closing, worker=worker, routes=routes))
        yield [*http, *grpc]


def mcp_is_installed() -> bool:
    """Whether the extra ``opspawn[mcp]`` is."""
    return find_spec("mcp") is not None


def grpc_is_installed() -> bool:
    """Whether the extra ``opspawn[grpc]`` is."""
    return all(find_spec(name) is not None for name in ("grpc", "grpc_health", "grpc_reflection"))
