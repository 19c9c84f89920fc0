"""Conversion of workers and leases, between messages and JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from ops_core.protocol.v1 import task_pb2, worker_service_pb2
from ops_core.protocol.values import moment_out
from ops_core.schemas import HeldTaskBody, LeaseBody, WorkerBody


def lease_out(body: LeaseBody | None) -> task_pb2.Lease | None:
    """A lease as a message."""
    if body is None:
        return None
    return task_pb2.Lease(
        worker=body.worker,
        since=moment_out(body.since),
        until=moment_out(body.until),
        expired_seconds=body.expired_seconds,
    )


def lease_in(message: task_pb2.Lease) -> LeaseBody:
    """The lease of a message."""
    return LeaseBody(
        worker=message.worker,
        since=_moment(message, "since"),
        until=message.until.ToDatetime(tzinfo=UTC),
        expired_seconds=message.expired_seconds if message.HasField("expired_seconds") else None,
    )


def worker_out(body: WorkerBody) -> worker_service_pb2.Worker:
    """A worker as a message."""
    return worker_service_pb2.Worker(
        name=body.name,
        host=body.host,
        pid=body.pid,
        version=body.version,
        agents=body.agents,
        capacity=body.capacity,
        alive=body.alive,
        started_at=moment_out(body.started_at),
        seen_at=moment_out(body.seen_at),
        silent_seconds=body.silent_seconds,
        running=body.running,
        tasks=[_held_out(held) for held in body.tasks],
    )


def worker_in(message: worker_service_pb2.Worker) -> WorkerBody:
    """The worker of a message."""
    given: dict[str, Any] = {
        name: getattr(message, name) if message.HasField(name) else None
        for name in ("host", "pid", "version", "capacity", "silent_seconds")
    }
    return WorkerBody(
        name=message.name,
        agents=list(message.agents),
        alive=message.alive,
        started_at=_moment(message, "started_at"),
        seen_at=_moment(message, "seen_at"),
        running=message.running,
        tasks=[_held_in(held) for held in message.tasks],
        **given,
    )


def _held_out(body: HeldTaskBody) -> worker_service_pb2.HeldTask:
    return worker_service_pb2.HeldTask(
        task_id=body.task_id,
        agent=body.agent,
        since=moment_out(body.since),
        until=moment_out(body.until),
        expired_seconds=body.expired_seconds,
    )


def _held_in(message: worker_service_pb2.HeldTask) -> HeldTaskBody:
    return HeldTaskBody(
        task_id=message.task_id,
        agent=message.agent,
        since=_moment(message, "since"),
        until=message.until.ToDatetime(tzinfo=UTC),
        expired_seconds=message.expired_seconds if message.HasField("expired_seconds") else None,
    )


def _moment(message: Any, name: str) -> datetime | None:
    if not message.HasField(name):
        return None
    found: Timestamp = getattr(message, name)
    return found.ToDatetime(tzinfo=UTC)
