"""``opspawn memory``: what agents remember, in the platform's own database."""

from __future__ import annotations

from typing import Annotated

import typer

from ops_core.cli.exits import Exit
from ops_core.cli.groups import CommandGroup
from ops_core.cli.options import Json, Limit, Url
from ops_core.cli.tasks import do

app = typer.Typer(
    cls=CommandGroup,
    help="What agents remember in the platform's database.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

OfAgent = Annotated[str | None, typer.Option("--agent", metavar="NAME", help="What this agent remembers.")]
OfKey = Annotated[
    str | None, typer.Option("--key", metavar="KEY", help="About this key, for example a person.")
]


@app.command(name="list")
def list_notes(
    agent: OfAgent = None, key: OfKey = None, limit: Limit = 20, url: Url = None, as_json: Json = False
) -> None:
    """List notes, the newest first."""
    from ops_core.cli import notes

    do(notes.list_notes(agent, key, limit, url, as_json=as_json))


@app.command()
def recall(
    query: Annotated[str, typer.Argument(metavar="TEXT", help="What is asked.", show_default=False)],
    agent: Annotated[str, typer.Option("--agent", metavar="NAME", help="The agent that remembers.")],
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="About this key.")] = "",
    limit: Limit = 5,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show the notes that an agent would recall, the most similar first, with their scores."""
    from ops_core.cli import notes

    async def asked() -> Exit:
        return await notes.recall(notes.recall_request(agent, query, key, limit), url, as_json=as_json)

    do(asked())


@app.command()
def forget(
    agent: OfAgent = None,
    key: OfKey = None,
    id_: Annotated[
        list[str] | None, typer.Option("--id", metavar="ID", help="Of this id; may be repeated.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything, of all agents.")] = False,
    url: Url = None,
) -> None:
    """Delete the notes that fit all that is given, for good.

    Steps of tasks that have recalled them keep copies: `opspawn purge` deletes those of tasks that have ended.
    """
    if everything == (agent is not None or key is not None or bool(id_)):
        message = "say what is to be forgotten with --agent, --key or --id, or --all"
        raise typer.BadParameter(message)
    from ops_core.cli import notes

    do(notes.forget(agent, key, id_, url))
