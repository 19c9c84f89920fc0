"""``opspawn worker``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ops_core.cli.options import grouped


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """What can be said to ``opspawn worker``."""

    app: Annotated[
        str | None,
        typer.Option(metavar="MODULE:NAME", help="A catalog of agents in Python. [OPSPAWN_APP]"),
    ] = None
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file that declares agents. [OPSPAWN_CONFIG]")
    ] = None
    concurrency: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="So many runs at a time, in each process. [OPSPAWN_CONCURRENCY]"
        ),
    ] = None
    processes: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Look after so many worker processes, and replace one that dies."
        ),
    ] = None
    supervised: Annotated[
        bool,
        typer.Option("--supervised", hidden=True, help="Standard input is a connection to the supervisor."),
    ] = False


@grouped(WorkerOptions)
def worker(options: WorkerOptions) -> None:
    """Carry tasks, without an API, until Ctrl-C.

    Any number of workers may work on one store, on PostgreSQL from any number of machines. Stopping one lets its tasks
    go at their next step; another one carries them on.
    """
    from ops_core.cli.lasting import run_lasting
    from ops_core.cli.working import work_here

    raise typer.Exit(run_lasting(work_here(options)))
