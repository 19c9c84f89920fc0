"""``opspawn thread``: conversations."""

from __future__ import annotations

from typing import Annotated

import typer

from ops_core.cli.groups import CommandGroup
from ops_core.cli.options import Json, Limit, Url
from ops_core.cli.tasks import do

app = typer.Typer(
    cls=CommandGroup,
    help="Conversations: tasks that were submitted with --thread.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ThreadId = Annotated[str, typer.Argument(metavar="THREAD", help="The thread's id.", show_default=False)]


@app.command(name="list")
def list_threads(limit: Limit = 20, url: Url = None, as_json: Json = False) -> None:
    """List threads, those first in which something happened last."""
    from ops_core.cli import conversing

    do(conversing.list_threads(limit, url, as_json))


@app.command()
def show(thread_id: ThreadId, url: Url = None, as_json: Json = False) -> None:
    """Show what was asked and answered. With --json: a line for each task, then the thread."""
    from ops_core.cli import conversing

    do(conversing.show(thread_id, url, as_json))


@app.command()
def delete(thread_id: ThreadId, url: Url = None, as_json: Json = False) -> None:
    """Delete a thread with its tasks and all their steps. A task that has not ended must be cancelled first."""
    from ops_core.cli import conversing

    do(conversing.delete(thread_id, url, as_json))
