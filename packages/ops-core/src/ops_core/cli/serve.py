"""``opspawn serve``, ``opspawn migrate`` and ``opspawn purge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ops_core.cli.options import Json, Url


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
    from ops_core.cli.lasting import run_lasting
    from ops_core.cli.serving import serve_here

    raise typer.Exit(
        run_lasting(serve_here(worker=not no_worker, app=app, config=config, host=host, port=port))
    )


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether there is something to do (then 1).")
    ] = False,
) -> None:
    """Bring the schema of the store up to date."""
    from ops_core.cli.serving import migrate_store

    raise typer.Exit(migrate_store(check=check))


def spending(url: Url = None, as_json: Json = False) -> None:
    """Show what was spent today (UTC) on calls of models, and what may be spent.

    It is kept only where there is a limit, [spending] in opspawn.toml.
    """
    import asyncio

    from ops_core.cli.serving import show_spending

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

    from ops_core.cli.serving import purge_store

    raise typer.Exit(asyncio.run(purge_store(older_than, dry_run=dry_run, as_json=as_json)))
