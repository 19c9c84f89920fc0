"""Bodies of agents' notes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from agentkit.transcript.steps import Note
from ops_core.ports import KeptNote, NoteFilter
from ops_core.schemas.fields import Name, Strict, moment
from ops_core.schemas.queries import LABEL_VALUE_PATTERN, encode_cursor

RECALL_MOST = 200
"""So many notes are recalled at most."""

Key = Annotated[str, StringConstraints(pattern=LABEL_VALUE_PATTERN)]


class NoteBody(Strict):
    """A note, and whose it is."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "tea",
                    "agent": "clerk",
                    "key": "kim",
                    "text": "Kim likes green tea.",
                    "source": "form",
                    "at": "2026-11-22T09:00:00.120000Z",
                    "score": None,
                }
            ]
        }
    )

    id: str
    agent: str = Field(description="The agent that remembers it.")
    key: str = Field(description="About whom or what; empty where the agent has one memory for all.")
    text: str
    source: str = Field(description="Where it is from.")
    at: datetime
    score: float | None = Field(
        default=None,
        description="How similar it is to what was asked, from -1 to 1; `null` where nothing was.",
    )

    @classmethod
    def of(cls, kept: KeptNote) -> NoteBody:
        """A note as it is listed."""
        return cls.of_note(kept.note, kept.scope.agent, kept.scope.key)

    @classmethod
    def recalled(cls, note: Note, asked: RecallRequest) -> NoteBody:
        """A note as it is recalled."""
        return cls.of_note(note, asked.agent, asked.key, note.score)

    @classmethod
    def of_note(cls, note: Note, agent: str, key: str, score: float | None = None) -> NoteBody:
        return cls(
            id=note.id,
            agent=agent,
            key=key,
            text=note.text,
            source=note.source,
            at=moment(note.at),
            score=score,
        )


class NotePage(Strict):
    """Notes, the newest first."""

    items: list[NoteBody]
    next_cursor: str | None = Field(
        description="Pass it as `cursor` for the next page; `null` on the last one."
    )

    @classmethod
    def of(cls, kept: Sequence[KeptNote], asked: NoteFilter) -> NotePage:
        """A page, made from what was asked for it: up to one note more than it holds."""
        shown, following = kept[: asked.limit - 1], None
        if len(kept) > len(shown):
            last = shown[-1]
            place = [last.note.at, last.scope.agent, last.scope.key, last.note.id]
            following = encode_cursor({"notes_behind": place}, asked)
        return cls(items=[NoteBody.of(one) for one in shown], next_cursor=following)


class RecallRequest(Strict):
    """What is to be recalled."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"agent": "clerk", "key": "kim", "query": "Which tea?"}]}
    )

    agent: Name = Field(description="The agent that remembers; it must be one of this deployment.")
    query: Annotated[str, StringConstraints(min_length=1, max_length=10_000)] = Field(
        description="A text; the notes that are most similar to it are found."
    )
    key: Key = Field(
        default="",
        description="About whom or what; needed where the agent remembers for each value of a label.",
    )
    limit: Annotated[int, Field(strict=True, ge=1, le=RECALL_MOST)] = Field(
        default=5, description="So many notes at most."
    )


class NotesRecalled(Strict):
    """Notes, the most similar first."""

    items: list[NoteBody]


class NotesForgotten(Strict):
    """What was deleted."""

    notes: int = Field(description="So many notes.")
