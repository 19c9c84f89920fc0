"""Notifications from other processes over PostgreSQL's LISTEN."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator
from typing import Any

from sqlalchemy.engine import URL

from ops_core.concurrency.jitter import spread
from ops_core.ports import Hint
from ops_core.stores.dialects import CHANNEL, connection_options, is_file
from ops_core.stores.sessions import MAX_AGE_SECONDS, Sessions

log = logging.getLogger("ops_core.stores")

AGAIN_SECONDS = 1.0
"""After a lost connection, so long until the next attempt."""


LOOK_SECONDS = 5.0
"""A connection that hears nothing is looked at this often."""


async def hints_from(url: URL, name: str, sessions: Sessions) -> AsyncGenerator[Hint]:
    """What others than ``name`` commit in the database at ``url``; nothing, and the end, for a file.

    Whenever it begins to listen, again too, the first hint says that something may be due or halted: what was told
    before that was missed.
    """
    if is_file(url):
        return
    from psycopg import AsyncConnection, Error

    where = url.set(drivername="postgresql").render_as_string(hide_password=False)
    asked: dict[str, Any] = connection_options(url, writes=True)
    deaf = False
    while True:
        try:
            async with await AsyncConnection.connect(where, autocommit=True, **asked) as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                if deaf:
                    log.info("hearing other processes again")
                deaf = False
                yield Hint(due=True, halts=True)
                until, of = time.monotonic() + MAX_AGE_SECONDS, sessions.generation
                while time.monotonic() < until and of == sessions.generation and await _is_good(connection):
                    async for told in connection.notifies(timeout=LOOK_SECONDS):
                        hint = heard(told.payload, name)
                        if hint is not None:
                            yield hint
                continue
        except (Error, OSError) as error:  # no descriptor is one, too
            if not deaf:
                log.warning(
                    "cannot hear other processes (%s); what they do is looked up instead",
                    type(error).__name__,
                )
            deaf = True
        await asyncio.sleep(spread(AGAIN_SECONDS))


async def _is_good(connection: Any) -> bool:
    """Whether the server answers, and is one at which others write."""
    async with asyncio.timeout(LOOK_SECONDS):
        cursor = await connection.execute("SHOW transaction_read_only")
        row = await cursor.fetchone()
    return row is not None and row[0] == "off"


def heard(payload: str, name: str) -> Hint | None:
    """The hint in a message; ``None`` for our own, and for what is none of ours."""
    try:
        told = json.loads(payload)
        if told["by"] == name:
            return None
        return Hint(
            due=bool(told.get("due")),
            cancelled=tuple(map(str, told.get("cancelled", ()))),
            ended=tuple(map(str, told.get("ended", ()))),
            halts=bool(told.get("halts")),
        )
    except (ValueError, TypeError, KeyError):
        return None
