"""Store of a command that asks no server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from ops_core.dispatchers import open_dispatcher
from ops_core.engine import Engine
from ops_core.errors import StoreUnavailable
from ops_core.service import LocalClient
from ops_core.settings import Settings
from ops_core.stores import migrate_if_needed, open_store
from ops_core.stores.dialects import is_in_memory, parse_url


@asynccontextmanager
async def opened(settings: Settings, *, with_agents: bool) -> AsyncGenerator[LocalClient]:
    """Open the service on the store of ``settings``.

    Args:
        settings: see there.
        with_agents: load the agents, too, which takes longer than all else; without, operations on agents find none.

    Raises:
        ConfigError: a setting or a declaration is wrong.
        SchemaMismatch: the database is to be migrated first, or was migrated by a newer release.
        StoreUnavailable: the database cannot be opened.
    """
    if with_agents:
        from ops_core.assembly import load_catalog, open_ops

        async with open_ops(settings, load_catalog(settings)) as ops:
            yield LocalClient(ops.engine, ops.catalog)
        return
    store = open_store(settings.store_url)
    if settings.auto_migrate and store.migrates_itself:
        await asyncio.to_thread(migrate_if_needed, store)
    async with store, open_dispatcher(settings.dispatcher_url) as dispatcher:
        await store.check()
        engine = Engine(store, dispatcher)
        async with engine.listening(wake=settings.dispatcher_url.startswith("local:")):
            yield LocalClient(engine)


def must_exist(settings: Settings) -> None:
    """Refuse a store in a file that does not exist.

    Raises:
        StoreUnavailable: there is no such file.
    """
    file = store_file(settings)
    if file is not None and not file.exists():
        message = (
            f"there is no store {file} yet: `opspawn run` or `opspawn submit` makes it; "
            "OPSPAWN_STORE_URL names another one, --url a server"
        )
        raise StoreUnavailable(message)


def store_file(settings: Settings) -> Path | None:
    """Return the file in which tasks are kept; ``None`` where it is no file."""
    url = parse_url(settings.store_url)
    if url.get_backend_name() != "sqlite" or is_in_memory(url):
        return None
    return Path(url.database or "")
