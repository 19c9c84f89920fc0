"""Ids of tasks as they are typed: whole, the beginning of one, or a word for the newest task."""

from __future__ import annotations

import re

from ops_core.errors import InvalidRequest, TaskNotFound
from ops_core.operations import Operations
from ops_core.schemas.queries import PAGE_MOST

LAST = "last"
"""Stands for the newest task, for commands that change nothing."""

NEWEST = "-"
"""Stands for the newest task, for every command."""

SHORTEST = 8
"""Characters of a beginning; two tasks of one millisecond share thirteen."""

MAX_SEARCHED = 1000
"""Of the newest tasks are compared with a beginning."""

_WHOLE = 36
_BEGINNING = re.compile(rf"[0-9a-fA-F-]{{{SHORTEST},{_WHOLE - 1}}}")


async def whole_id(client: Operations, given: str, *, last: bool = False) -> str:
    """The id of the task that is meant.

    Args:
        client: where the tasks are.
        given: an id, its beginning, or ``-`` for the newest task.
        last: ``last`` may be said, for the newest one.

    Raises:
        TaskNotFound: there is none.
        InvalidRequest: several ids begin so.
    """
    if given == NEWEST or (last and given == LAST):
        newest = (await client.list(limit=1)).items
        if not newest:
            raise TaskNotFound("there is no task yet")
        return newest[0].id
    if not _BEGINNING.fullmatch(given):
        return given
    found = await _beginning_with(client, given.lower())
    if len(found) > 1:
        message = f"several tasks begin with {given}: {', '.join(found[:5])}"
        raise InvalidRequest(message, field="id")
    if not found:
        message = f"there is no task of this id: none of the newest {MAX_SEARCHED} begins with {given}"
        raise TaskNotFound(message)
    return found[0]


async def _beginning_with(client: Operations, given: str) -> list[str]:
    found: list[str] = []
    cursor, searched = None, 0
    while searched < MAX_SEARCHED:
        page = await client.list(limit=PAGE_MOST, cursor=cursor, view="basic")
        found += [task.id for task in page.items if task.id.startswith(given)]
        searched += len(page.items)
        cursor = page.next_cursor
        if cursor is None:
            break
    return found


def shortened(ids: list[str]) -> list[str]:
    """Each id as far as it differs from the others, for a narrow terminal."""
    for length in range(13, _WHOLE):
        short = [each[:length].rstrip("-") for each in ids]
        if len(set(short)) == len(set(ids)):
            return short
    return ids
