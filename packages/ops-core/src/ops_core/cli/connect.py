"""Connection of a command: a server, or the store itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from ops_core.assembly import load_catalog, open_ops
from ops_core.client import Operations, open_client
from ops_core.config.catalog import Catalog
from ops_core.errors import StoreUnavailable
from ops_core.service import LocalClient
from ops_core.settings import Settings, read_settings
from ops_core.stores.dialects import is_in_memory, parse_url


@asynccontextmanager
async def connected(url: str | None, *, with_agents: bool = False) -> AsyncGenerator[Operations]:
    """A client of the server at ``url`` or in the settings; where neither is given, one that opens the store.

    Args:
        url: of a server.
        with_agents: agents are needed; otherwise a store that does not exist is not made, as nothing can be in it.
    """
    settings = read_settings(url=url)
    if settings.url is not None:
        async with open_client(settings.url) as client:
            yield client
        return
    if not with_agents:
        _must_exist(settings)
    async with open_ops(settings, load_catalog(settings) if with_agents else Catalog()) as ops:
        yield LocalClient(ops.engine, ops.catalog)


def _must_exist(settings: Settings) -> None:
    file = store_file(settings)
    if file is not None and not file.exists():
        message = (
            f"there is no store {file} yet: `opspawn run` or `opspawn submit` makes it; "
            "OPSPAWN_STORE_URL names another one, --url a server"
        )
        raise StoreUnavailable(message)


def store_file(settings: Settings) -> Path | None:
    """The file in which tasks are kept; ``None`` where it is no file."""
    url = parse_url(settings.store_url)
    if url.get_backend_name() != "sqlite" or is_in_memory(url):
        return None
    return Path(url.database or "")
