"""``opspawn memory``: what agents remember, in the platform's own database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ops_core.cli import phase
from ops_core.cli.exit_codes import Exit
from ops_core.cli.groups import CommandGroup
from ops_core.cli.options import Json, Limit, Url, do

if TYPE_CHECKING or phase.to_run:
    from pydantic import ValidationError
    from rich.text import Text

    from ops_core.cli.connect import connected
    from ops_core.cli.terminal.screen import STYLES, Screen
    from ops_core.cli.terminal.step_lines import counted, joined
    from ops_core.cli.terminal.text import one_line
    from ops_core.errors import InvalidRequest
    from ops_core.problem_details import problem_of_fields
    from ops_core.schemas import NoteBody, RecallRequest

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
    do(_list_notes(agent, key, limit, url, as_json=as_json))


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

    async def asked() -> Exit:
        return await _recall(recall_request(agent, query, key, limit), url, as_json=as_json)

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

    do(_forget(agent, key, id_, url))


async def _list_notes(
    agent: str | None, key: str | None, limit: int, url: str | None, *, as_json: bool
) -> Exit:
    """The newest notes."""
    async with connected(url) as client:
        page = await client.notes(agent=agent, key=key, limit=limit)
    return _print_notes(page.items, as_json=as_json)


async def _recall(asked: RecallRequest, url: str | None, *, as_json: bool) -> Exit:
    """The most similar notes."""
    async with connected(url, with_agents=True) as client:
        found = await client.recall(asked)
    return _print_notes(found, as_json=as_json)


def recall_request(agent: str, query: str, key: str, limit: int) -> RecallRequest:
    """What is asked on the command line.

    Raises:
        InvalidRequest: a value is wrong.
    """
    try:
        return RecallRequest(agent=agent, query=query, key=key, limit=limit)
    except ValidationError as error:
        problem = problem_of_fields(error.errors())
        raise InvalidRequest(problem.detail, field=problem.field) from None


def _print_notes(notes: Sequence[NoteBody], *, as_json: bool) -> Exit:
    screen = Screen()
    if as_json:
        for note in notes:
            screen.json(note.model_dump(mode="json"))
    elif not notes and screen.is_terminal:
        screen.say("no notes", "quiet")
    else:
        for note in notes:
            _print_note(screen, note)
    return Exit.OUTPUT_CLOSED if screen.closed else Exit.OK


def _print_note(screen: Screen, note: NoteBody) -> None:
    score = "" if note.score is None else f"{note.score:.2f}"
    whose = joined([score, note.agent, one_line(note.key), one_line(note.source)])
    row = Text.assemble((note.id, STYLES["quiet"]), f"  {one_line(note.text)}")
    if screen.is_terminal:
        row.truncate(screen.width, overflow="ellipsis")
    screen.print(row, soft_wrap=True)
    screen.say(whose, "quiet")


async def _forget(agent: str | None, key: str | None, ids: Sequence[str] | None, url: str | None) -> Exit:
    """Delete notes; all of them where nothing is said."""
    everything = agent is None and key is None and not ids
    async with connected(url) as client:
        forgotten = await client.forget(agent=agent, key=key, ids=ids or (), everything=everything)
    Screen().raw(f"forgot {counted(forgotten, 'note')}")
    return Exit.OK
