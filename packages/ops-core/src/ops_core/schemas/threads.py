"""Bodies of threads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import ConfigDict, Field

from ops_core.ports import ThreadFilter
from ops_core.schemas.fields import Strict, moment
from ops_core.schemas.queries import encode_cursor
from ops_core.task import Thread


class ThreadBody(Strict):
    """A conversation."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "chat-42",
                    "turns": 3,
                    "current_task": "01996c2e-5d1a-7c3e-9f60-2b1f3c8a4d77",
                    "created_at": "2026-11-22T09:00:00.120000Z",
                    "updated_at": "2026-11-22T09:05:01.840000Z",
                }
            ]
        }
    )

    id: str
    turns: int = Field(description="So many tasks it has had; `GET /tasks?thread_id=…` lists them.")
    current_task: str | None = Field(description="The task whose turn it is; `null` when all have ended.")
    created_at: datetime
    updated_at: datetime = Field(description="When a task was last added, or had its turn.")

    @classmethod
    def of(cls, thread: Thread) -> ThreadBody:
        """A thread as it is told."""
        return cls(
            id=thread.id,
            turns=thread.turns,
            current_task=thread.current,
            created_at=moment(thread.created_at),
            updated_at=moment(thread.updated_at),
        )


class ThreadPage(Strict):
    """Threads, those first in which something happened last."""

    items: list[ThreadBody]
    next_cursor: str | None = Field(
        description="Pass it as `cursor` for the next page; `null` on the last one."
    )

    @classmethod
    def of(cls, threads: Sequence[Thread], asked: ThreadFilter) -> ThreadPage:
        """A page, made from what was asked for it: up to one thread more than it holds."""
        shown, following = threads[: asked.limit - 1], None
        if len(threads) > len(shown):
            following = encode_cursor({"threads_before": [shown[-1].updated_at, shown[-1].id]}, asked)
        return cls(items=[ThreadBody.of(thread) for thread in shown], next_cursor=following)


class ThreadDeleted(Strict):
    """What was deleted."""

    tasks: int = Field(description="So many tasks, with all their steps.")
