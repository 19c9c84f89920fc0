"""``opspawn doctor``."""

from __future__ import annotations

import typer

from ops_core.cli.options import Json, Url


def doctor(url: Url = None, as_json: Json = False) -> None:
    """Look at everything that is needed: versions, settings, store, agents, models, server.

    Nothing is changed, and no secret is shown. Ends with 1 when something that is needed is missing.
    """
    import asyncio

    from ops_core.cli.examining import examine

    raise typer.Exit(asyncio.run(examine(url=url, as_json=as_json)))
