"""What ``opspawn serve``, ``opspawn migrate`` and ``opspawn purge`` do."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from agentkit.money import as_text, nanos
from ops_core import logs
from ops_core.assembly import open_ops
from ops_core.cli.connecting import connected
from ops_core.cli.durations import seconds_in
from ops_core.cli.exits import Exit
from ops_core.cli.narration import counted
from ops_core.cli.screen import Screen
from ops_core.cli.text import without_secrets
from ops_core.server import mcp_is_installed, serve
from ops_core.settings import Settings, known_secrets, read_settings
from ops_core.stores import REVISION, migrations, open_store

log = logging.getLogger("ops_core.cli")


async def serve_here(*, worker: bool = True, **overrides: Any) -> Exit:
    """The API and a worker, or the API alone, until a signal."""
    settings = read_settings(**overrides)
    log_from(settings)
    screen = Screen()
    async with open_ops(settings) as ops:

        def announce(addresses: Sequence[str]) -> None:
            http = [address for address in addresses if address.startswith("http:")]
            grpc = [address for address in addresses if address.startswith("grpc:")]
            announced(
                screen,
                settings,
                {
                    "API": ", ".join(f"{url}/api/v1" for url in http),
                    "docs": f"{http[0]}/docs",
                    "MCP": f"{http[0]}/mcp" if mcp_is_installed() else "off: install the extra opspawn[mcp]",
                    "gRPC": ", ".join(grpc) or "off: install the extra opspawn[grpc]",
                    "store": without_secrets(settings.store_url),
                    "agents": ", ".join(ops.catalog.names) or "none",
                },
            )

        await serve(ops, announce, worker=worker)
    return Exit.OK


def announced(screen: Screen, settings: Settings, places: Mapping[str, str]) -> None:
    """Say that a process is at work, and where: on standard output, or as a line of a log that programs read."""
    if settings.log_format == "json":
        log.info("ready", extra={name.replace("-", "_"): place for name, place in places.items()})
    else:
        screen.pairs(places)


def log_from(settings: Settings) -> None:
    """Log as the settings say, without their secrets."""
    logs.set_up(settings.log_level, settings.log_format, known_secrets(settings))


async def purge_store(older_than: str, *, dry_run: bool = False, as_json: bool = False) -> Exit:
    """Delete what ended longer ago, or say what that would be.

    Raises:
        InvalidRequest: that is no age.
    """
    seconds, screen = seconds_in(older_than, "older-than"), Screen()
    async with open_ops(read_settings()) as ops:
        if dry_run:
            found = await ops.engine.purgeable(seconds)
            oldest, newest = (_moment(at) for at in (found.oldest_at, found.newest_at))
            told: dict[str, Any] = {"tasks": found.tasks, "oldest_at": oldest, "newest_at": newest}
            text = f"would delete {counted(found.tasks, 'task')}"
            text += f", ended from {oldest} to {newest}" if found.tasks else ""
        else:
            told = {"deleted": await ops.engine.purge(seconds)}
            text = f"deleted {counted(told['deleted'], 'task')}"
    if as_json:
        screen.json(told)
    else:
        screen.raw(text)
    return Exit.OK


def _moment(at: float | None) -> str | None:
    return None if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


async def show_spending(url: str | None, *, as_json: bool) -> Exit:
    """Show what the tenant has spent today."""
    async with connected(url, with_agents=True) as client:
        spending = await client.spending()
    screen = Screen()
    if as_json:
        screen.raw(spending.model_dump_json())
        return Exit.OK
    of = "" if spending.limit_usd is None else f" of {as_text(nanos(spending.limit_usd))}"
    screen.raw(f"spent today (UTC): {as_text(nanos(spending.spent_usd))}{of}")
    screen.raw(f"reserved for calls without an end: {as_text(nanos(spending.reserved_usd))}")
    if spending.limit_usd is None:
        screen.raw("no limit is set, so nothing is kept: see [spending] in opspawn.toml")
    return Exit.OK


def migrate_store(*, check: bool) -> Exit:
    """Bring the schema up to date, or say whether it is."""
    settings = read_settings()
    screen = Screen()
    store = open_store(settings.store_url)
    found = store.revision()
    what = "no schema" if found is None else f"schema {found}"
    if found == REVISION:
        if not check and migrations.adopt_extensions(store):
            screen.raw("from now on pgvector compares the notes")
        screen.raw(f"the store has {what}: up to date")
        return Exit.OK
    if check:
        screen.raw(f"the store has {what}, this release works with {REVISION}")
        return Exit.FAILED
    migrations.upgrade(store)
    screen.raw(f"migrated: {what} → schema {REVISION}")
    return Exit.OK
