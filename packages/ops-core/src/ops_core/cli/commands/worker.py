"""``opspawn worker``: carry tasks, alone or in several processes."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops_core.cli import phase
from ops_core.cli.exit_codes import Exit
from ops_core.cli.options import grouped

if TYPE_CHECKING or phase.to_run:
    from ops_core.assembly import Ops, open_ops
    from ops_core.cli.commands.serve import announced, log_from
    from ops_core.cli.terminal.screen import Screen
    from ops_core.cli.terminal.text import without_secrets
    from ops_core.processes.supervisor import Supervisor, SupervisorOptions
    from ops_core.processes.worker import shared_only, work
    from ops_core.settings import Settings, read_settings


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
    from ops_core.processes.event_loop import run_lasting

    raise typer.Exit(run_lasting(work_here(options)))


STANDARD_INPUT = 0

MAX_OTHERS = 99
"""So many workers of one supervisor may show metrics beside this one."""

STOP_SECONDS = 15.0
"""So much longer than ``grace_seconds`` a worker may take: a stubborn tool, the last writes, a broker that is gone."""


async def work_here(options: WorkerOptions) -> int:
    """A worker in this process, or several beside it, until a signal."""
    given: dict[str, Any] = {
        "app": options.app,
        "config": options.config,
        "concurrency": options.concurrency,
    }
    settings = read_settings(**given)
    shared_only(settings)
    log_from(settings)
    if options.processes is None:
        return await _work(settings, supervised=options.supervised)
    supervised = SupervisorOptions(
        command=command_of(options),
        processes=options.processes,
        stop_seconds=settings.grace_seconds + STOP_SECONDS,
    )
    screen = Screen()

    def announce() -> None:
        processes = f"{options.processes} × {settings.concurrency} runs"
        announced(screen, settings, {"worker": processes, **_places(settings)})

    return await Supervisor(supervised, announce).run()


async def _work(settings: Settings, *, supervised: bool) -> Exit:
    screen = Screen()
    async with open_ops(settings) as ops, _observed(ops, supervised=supervised) as metrics:

        def announce() -> None:
            if not supervised:
                agents = ", ".join(ops.catalog.names) or "none"
                runs = f"{settings.concurrency} runs"
                announced(
                    screen, settings, {"worker": runs, **_places(settings), **metrics, "agents": agents}
                )

        await work(ops, announce, STANDARD_INPUT if supervised else None)
    return Exit.OK


@asynccontextmanager
async def _observed(ops: Ops, *, supervised: bool) -> AsyncGenerator[Mapping[str, str]]:
    """Show metrics, where a port is set for them; gives where they are."""
    port = ops.settings.metrics_port
    if port is None:
        yield {}
        return
    from ops_core.api.metrics_server import observable

    async with observable(ops, port, MAX_OTHERS if supervised else 0) as url:
        yield {"metrics": f"{url}/metrics"}


def _places(settings: Settings) -> dict[str, str]:
    return {
        "store": without_secrets(settings.store_url),
        "wake-ups": without_secrets(settings.dispatcher_url),
    }


def command_of(options: WorkerOptions) -> Sequence[str]:
    """The command of one of several workers."""
    given = {"--app": options.app, "--config": options.config, "--concurrency": options.concurrency}
    said = [f"{name}={value}" for name, value in given.items() if value is not None]
    return [sys.executable, "-m", "ops_core.cli", "worker", "--supervised", *said]
