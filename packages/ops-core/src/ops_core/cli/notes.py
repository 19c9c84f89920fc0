"""What the commands about memory do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.text import Text

from ops_core.assembly import open_ops
from ops_core.catalog import Catalog
from ops_core.cli.exits import Exit
from ops_core.cli.narration import counted, joined
from ops_core.cli.screen import STYLES, Screen
from ops_core.cli.text import one_line
from ops_core.ports import KeptNote, NoteFilter
from ops_core.settings import read_settings
from ops_core.task import DEFAULT_TENANT


async def list_notes(agent: str | None, key: str | None, limit: int, as_json: bool) -> Exit:
    """The newest notes."""
    async with open_ops(read_settings(), Catalog()) as ops:
        wanted = NoteFilter(agent=agent, key=key, limit=limit)
        found = await ops.engine.store.list_notes(DEFAULT_TENANT, wanted)
    screen = Screen()
    if as_json:
        for kept in found:
            screen.json(_as_json(kept))
    else:
        _told(screen, found)
    return Exit.OUTPUT_CLOSED if screen.closed else Exit.OK


def _told(screen: Screen, found: Sequence[KeptNote]) -> None:
    if not found and screen.is_terminal:
        screen.say("no notes", "quiet")
    for kept in found:
        whose = joined([kept.scope.agent, one_line(kept.scope.key), one_line(kept.note.source)])
        row = Text.assemble((kept.note.id, STYLES["quiet"]), f"  {one_line(kept.note.text)}")
        if screen.is_terminal:
            row.truncate(screen.width, overflow="ellipsis")
        screen.print(row, soft_wrap=True)
        screen.say(whose, "quiet")


def _as_json(kept: KeptNote) -> dict[str, str]:
    at = datetime.fromtimestamp(kept.note.at, UTC).isoformat()
    whose = {"agent": kept.scope.agent, "key": kept.scope.key}
    return {"id": kept.note.id, **whose, "text": kept.note.text, "source": kept.note.source, "at": at}


async def forget(agent: str | None, key: str | None, ids: Sequence[str] | None) -> Exit:
    """Delete notes."""
    async with open_ops(read_settings(), Catalog()) as ops:
        wanted = NoteFilter(agent=agent, key=key, ids=ids)
        forgotten = await ops.engine.store.forget_notes(DEFAULT_TENANT, wanted)
    Screen().raw(f"forgot {counted(forgotten, 'note')}")
    return Exit.OK
