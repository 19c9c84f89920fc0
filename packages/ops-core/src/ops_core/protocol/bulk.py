"""Conversion of verbs on many tasks at once, between messages and JSON."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from ops_core.protocol.v1 import task_service_pb2
from ops_core.protocol.values import moment_out, status_in, status_out
from ops_core.schemas import BulkBody, BulkRequest

_GIVEN = ("agent", "label", "thread_id", "older_than_seconds")


def selection_in(message: task_service_pb2.TaskSelection) -> BulkRequest:
    """The request of a message.

    Raises:
        InvalidRequest: a status is none.
        pydantic.ValidationError: it breaks a rule of :class:`~ops_core.schemas.BulkRequest`.
    """
    given: dict[str, Any] = {name: getattr(message, name) for name in _GIVEN if message.HasField(name)}  # type: ignore[arg-type]
    return BulkRequest.model_validate(
        {
            **given,
            "status": [status_in(status) for status in message.statuses],
            "all": message.all,
            "dry_run": message.dry_run,
            "cursor": message.page_token or None,
        }
    )


def selection_out(request: BulkRequest) -> task_service_pb2.TaskSelection:
    """A request as a message."""
    return task_service_pb2.TaskSelection(
        statuses=[status_out(status) for status in request.status],
        agent=request.agent,
        label=request.label,
        thread_id=request.thread_id,
        older_than_seconds=request.older_than_seconds,
        all=request.all,
        dry_run=request.dry_run,
        page_token=request.cursor or "",
    )


def handled_out(body: BulkBody) -> task_service_pb2.HandledTasks:
    """An answer as a message."""
    return task_service_pb2.HandledTasks(
        matched=body.matched,
        oldest_at=moment_out(body.oldest_at),
        newest_at=moment_out(body.newest_at),
        done=body.done,
        skipped=body.skipped,
        next_page_token=body.next_cursor or "",
    )


def handled_in(message: task_service_pb2.HandledTasks) -> BulkBody:
    """The answer of a message."""
    return BulkBody(
        matched=message.matched if message.HasField("matched") else None,
        oldest_at=message.oldest_at.ToDatetime(tzinfo=UTC) if message.HasField("oldest_at") else None,
        newest_at=message.newest_at.ToDatetime(tzinfo=UTC) if message.HasField("newest_at") else None,
        done=dict(message.done),
        skipped=dict(message.skipped),
        next_cursor=message.next_page_token or None,
    )
