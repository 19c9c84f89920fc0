"""``opspawn doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from ops_core.cli.options import Json, Url


def doctor(
    url: Url = None,
    live: Annotated[
        bool, typer.Option("--live", help="Call each model once, too: the provider bills a few tokens.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look at everything that is needed: versions, settings, store, agents, models, server.

    Nothing is changed, and no secret is shown. Ends with 1 when something that is needed is missing. With --live, every
    model that an agent names is called once, which shows that its key is good, and what it takes.
    """
    import asyncio

    from ops_core.cli.examining import examine

    raise typer.Exit(asyncio.run(examine(url=url, as_json=as_json, live=live)))
