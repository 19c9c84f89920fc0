"""Connection of a command: to a server, or to the store itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from ops_core.operations import Operations
from ops_core.settings import read_settings


@asynccontextmanager
async def connected(url: str | None, *, with_agents: bool = False) -> AsyncGenerator[Operations]:
    """Open a client of the server at ``url`` or in the settings; where neither is given, the store itself.

    What is not needed is not loaded: neither SQLAlchemy for a server, nor the parts of agents for a store.

    Args:
        url: of a server.
        with_agents: agents are needed; otherwise a store that does not exist is not made, as nothing can be in it.
    """
    settings = read_settings(url=url)
    if settings.url is not None:
        from ops_core.client import open_client

        async with open_client(settings.url) as client:
            yield client
        return
    from ops_core.cli.local_store import must_exist, opened

    if not with_agents:
        must_exist(settings)
    async with opened(settings, with_agents=with_agents) as service:
        yield service
