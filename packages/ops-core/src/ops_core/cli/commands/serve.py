"""``opspawn serve``, ``migrate``, ``purge`` and ``spending``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops_core.cli import phase
from ops_core.cli.exit_codes import Exit
from ops_core.cli.options import Json, Url

if TYPE_CHECKING or phase.to_run:
    from agentkit.money import as_text, nanos
    from ops_core.assembly import open_ops
    from ops_core.cli.connect import connected
    from ops_core.cli.inputs import seconds_in
    from ops_core.cli.terminal.screen import Screen
    from ops_core.cli.terminal.step_lines import counted
    from ops_core.cli.terminal.text import without_secrets
    from ops_core.observability import logs
    from ops_core.processes.server import mcp_is_installed, run_server
    from ops_core.settings import Settings, known_secrets, read_settings
    from ops_core.stores import REVISION, migrations, open_store


def serve(
    app: Annotated[
        str | None,
        typer.Option(metavar="MODULE:NAME", help="A catalog of agents in Python. [OPSPAWN_APP]"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file that declares agents. [OPSPAWN_CONFIG]")
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="127.0.0.1, ::1 or localhost. [OPSPAWN_HOST]")
    ] = None,
    port: Annotated[int | None, typer.Option(help="0 for any free one. [OPSPAWN_PORT]")] = None,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Only the API; `worker` does the work.")
    ] = False,
) -> None:
    """Run the API and a worker in this process, until Ctrl-C.

    It listens on this machine only: there is no authentication yet. Stopping it lets its tasks go at their next step;
    the next worker carries them on.
    """
    from ops_core.processes.event_loop import run_lasting

    raise typer.Exit(
        run_lasting(serve_here(worker=not no_worker, app=app, config=config, host=host, port=port))
    )


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether there is something to do (then 1).")
    ] = False,
) -> None:
    """Bring the schema of the store up to date."""
    raise typer.Exit(migrate_store(check=check))


def spending(url: Url = None, as_json: Json = False) -> None:
    """Show what was spent today (UTC) on calls of models, and what may be spent.

    It is kept only where there is a limit, [spending] in opspawn.toml.
    """
    import asyncio

    raise typer.Exit(asyncio.run(show_spending(url, as_json=as_json)))


def purge(
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Time since they ended: 30d, 12h, 45m or 90s.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how many, and when the first and the last ended.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Delete tasks that ended long ago, with their steps.

    What has not ended stays, however old it is. Workers do the same by themselves with OPSPAWN_RETENTION_DAYS.
    """
    import asyncio

    raise typer.Exit(asyncio.run(purge_store(older_than, dry_run=dry_run, as_json=as_json)))


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

        await run_server(ops, announce, worker=worker)
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
