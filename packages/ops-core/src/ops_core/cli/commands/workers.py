"""``opspawn workers``."""

from __future__ import annotations

from ops_core.cli.options import Json, Url, do


def workers(url: Url = None, as_json: Json = False) -> None:
    """List the workers that are alive, idle ones too, and what each of them holds.

    A worker that fell silent is listed for ten minutes. `opspawn run` carries its own task only: it is listed while it
    holds it.
    """
    from ops_core.cli.terminal import worker_table

    do(worker_table.list_workers(url, as_json))
