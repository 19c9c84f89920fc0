"""Conversion of notes and of spending, between messages and JSON."""

from __future__ import annotations

from datetime import UTC, date

from ops_core.protocol.v1 import memory_service_pb2, spending_service_pb2
from ops_core.protocol.values import moment_out
from ops_core.schemas import NoteBody, SpendingBody


def note_out(body: NoteBody) -> memory_service_pb2.Note:
    """A note as a message."""
    return memory_service_pb2.Note(
        id=body.id,
        agent=body.agent,
        key=body.key,
        text=body.text,
        source=body.source,
        at=moment_out(body.at),
        score=body.score,
    )


def note_in(told: memory_service_pb2.Note) -> NoteBody:
    """The note of a message."""
    return NoteBody(
        id=told.id,
        agent=told.agent,
        key=told.key,
        text=told.text,
        source=told.source,
        at=told.at.ToDatetime(tzinfo=UTC),
        score=told.score if told.HasField("score") else None,
    )


def spending_out(body: SpendingBody) -> spending_service_pb2.Spending:
    """What was spent, as a message."""
    return spending_service_pb2.Spending(
        day=body.day.isoformat(),
        spent_usd=body.spent_usd,
        reserved_usd=body.reserved_usd,
        limit_usd=body.limit_usd,
    )


def spending_in(told: spending_service_pb2.Spending) -> SpendingBody:
    """What was spent, of a message.

    Raises:
        ValueError: it is not as a server of this release tells it.
    """
    return SpendingBody(
        day=date.fromisoformat(told.day),
        spent_usd=told.spent_usd,
        reserved_usd=told.reserved_usd,
        limit_usd=told.limit_usd if told.HasField("limit_usd") else None,
    )
