"""``opspawn workers``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ops_core.cli import phase
from ops_core.cli.exit_codes import Exit
from ops_core.cli.options import Json, Url

if TYPE_CHECKING or phase.to_run:
    from ops_core.cli.connect import connected
    from ops_core.cli.terminal.screen import Screen
    from ops_core.cli.terminal.worker_table import print_workers


async def workers(url: Url = None, as_json: Json = False) -> Exit:
    """List the workers that are alive, idle ones too, and what each of them holds.

    A worker that fell silent is listed for ten minutes. `opspawn run` carries its own task only: it is listed while it
    holds it.
    """
    screen = Screen()
    async with connected(url) as client:
        found = await client.workers()
    if as_json:
        for worker in found:
            screen.json(worker.model_dump(mode="json"))
    else:
        print_workers(screen, found)
    return Exit.OUTPUT_CLOSED if screen.closed else Exit.OK
