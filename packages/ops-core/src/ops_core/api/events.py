"""A task's steps as server-sent events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from agentkit.transcript.codec import recorded_to_json, to_json_text
from agentkit.transcript.steps import Recorded
from ops_core.api.openapi import TASKS, reading
from ops_core.api.parameters import After, LastEventId, TaskId
from ops_core.engine import Engine
from ops_core.errors import OpsError
from ops_core.schemas.queries import task_id_of
from ops_core.task import DEFAULT_TENANT, TaskStatus

log = logging.getLogger("ops_core.api")

KEEP_ALIVE_SECONDS = 15.0
"""A stream on which nothing happens shows that it lives this often."""

KEEP_ALIVE = b": keep-alive\n\n"


class EventStream(StreamingResponse):
    """A stream of server-sent events."""

    media_type = "text/event-stream"


class EventRoutes:
    """The route of the events.

    Args:
        engine: whose tasks.
        closing: set when the server stops; streams then end, and clients connect again elsewhere.
    """

    def __init__(self, engine: Engine, closing: asyncio.Event) -> None:
        self._engine = engine
        self._closing = closing

    def add_to(self, app: FastAPI) -> None:
        """Add it to ``app``."""
        app.add_api_route(
            f"{TASKS}/{{task_id}}/events",
            self.watch,
            response_class=EventStream,
            **reading("watch_task", 404),
        )

    async def watch(
        self, task_id: TaskId, after: After = -1, last_event_id: LastEventId = None
    ) -> EventStream:
        """The steps as they are recorded, as server-sent events.

        Each `step` event has the number of its step as `id`, and the stored form of the step as data. A last `end`
        event tells the status with which the task ended, and the stream ends. A client that connects again with
        `Last-Event-ID` misses nothing and gets nothing twice. A comment every 15 seconds shows that the stream lives.
        """
        task_id = task_id_of(task_id)
        await self._engine.get(DEFAULT_TENANT, task_id)  # a missing task is an answer, not an empty stream
        seen = after if last_event_id is None else last_event_id
        stream = events(self._engine, task_id, seen, self._closing)
        return EventStream(stream, headers={"X-Accel-Buffering": "no"})  # nginx would hold the events back


async def events(
    engine: Engine,
    task_id: str,
    after: int,
    closing: asyncio.Event,
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
) -> AsyncGenerator[bytes, None]:
    """The events of a task's steps from ``after`` on, until the task has ended or ``closing`` is set."""
    steps = engine.watch(DEFAULT_TENANT, task_id, after)
    closed = asyncio.ensure_future(closing.wait())
    upcoming: asyncio.Future[Recorded | None] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(_next(steps))
            done, _pending = await asyncio.wait(
                set[asyncio.Future[Any]]((upcoming, closed)),
                timeout=keep_alive_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if upcoming in done:
                recorded, upcoming = upcoming.result(), None
                if recorded is None:
                    yield _end((await engine.get(DEFAULT_TENANT, task_id)).status)
                    return
                yield _step(recorded)
            elif closed in done:
                return
            else:
                yield KEEP_ALIVE
    except OpsError as error:  # the answer has begun; the client connects again and is told then
        log.error("a stream of events ends: %s", error, extra={"task": task_id})
    finally:
        left: list[asyncio.Future[Any]] = [closed]
        if upcoming is not None:
            left.append(upcoming)
        for future in left:
            future.cancel()
        await asyncio.wait(left)
        await steps.aclose()


async def _next(steps: AsyncGenerator[Recorded, None]) -> Recorded | None:
    return await anext(steps, None)


def _step(recorded: Recorded) -> bytes:
    data = to_json_text(recorded_to_json(recorded))
    return f"id: {recorded.seq}\nevent: step\ndata: {data}\n\n".encode()


def _end(status: TaskStatus) -> bytes:
    # without an id: a client that connects again still resumes after the last step
    return f"event: end\ndata: {to_json_text({'status': str(status)})}\n\n".encode()
