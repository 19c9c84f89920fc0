"""What the commands about memory do."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError
from rich.text import Text

from ops_core.cli.connecting import connected
from ops_core.cli.exits import Exit
from ops_core.cli.narration import counted, joined
from ops_core.cli.screen import STYLES, Screen
from ops_core.cli.text import one_line
from ops_core.errors import InvalidRequest
from ops_core.problems import problem_of_fields
from ops_core.wire import NoteBody, RecallRequest


async def list_notes(
    agent: str | None, key: str | None, limit: int, url: str | None, *, as_json: bool
) -> Exit:
    """The newest notes."""
    async with connected(url) as client:
        page = await client.notes(agent=agent, key=key, limit=limit)
    return _told(page.items, as_json=as_json)


async def recall(asked: RecallRequest, url: str | None, *, as_json: bool) -> Exit:
    """The most similar notes."""
    async with connected(url, with_agents=True) as client:
        found = await client.recall(asked)
    return _told(found, as_json=as_json)


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


def _told(notes: Sequence[NoteBody], *, as_json: bool) -> Exit:
    screen = Screen()
    if as_json:
        for note in notes:
            screen.json(note.model_dump(mode="json"))
    elif not notes and screen.is_terminal:
        screen.say("no notes", "quiet")
    else:
        for note in notes:
            _told_one(screen, note)
    return Exit.OUTPUT_CLOSED if screen.closed else Exit.OK


def _told_one(screen: Screen, note: NoteBody) -> None:
    score = "" if note.score is None else f"{note.score:.2f}"
    whose = joined([score, note.agent, one_line(note.key), one_line(note.source)])
    row = Text.assemble((note.id, STYLES["quiet"]), f"  {one_line(note.text)}")
    if screen.is_terminal:
        row.truncate(screen.width, overflow="ellipsis")
    screen.print(row, soft_wrap=True)
    screen.say(whose, "quiet")


async def forget(agent: str | None, key: str | None, ids: Sequence[str] | None, url: str | None) -> Exit:
    """Delete notes; all of them where nothing is said."""
    everything = agent is None and key is None and not ids
    async with connected(url) as client:
        forgotten = await client.forget(agent=agent, key=key, ids=ids or (), everything=everything)
    Screen().raw(f"forgot {counted(forgotten, 'note')}")
    return Exit.OK
