"""Conversion of halts, between messages and JSON."""

from __future__ import annotations

from datetime import UTC

from ops_core.errors import InvalidRequest
from ops_core.halt import HaltKind
from ops_core.protocol.v1 import halt_service_pb2 as messages
from ops_core.protocol.values import moment_out
from ops_core.schemas import HaltBody, HaltRequest

_PREFIX = "HALT_KIND_"


def halt_request_out(request: HaltRequest, idempotency_key: str) -> messages.CreateHaltRequest:
    """What is to be halted, as a message."""
    return messages.CreateHaltRequest(
        kind=_kind_out(request.kind),
        target=request.target,
        reason=request.reason,
        by=request.by,
        idempotency_key=idempotency_key,
    )


def halt_request_in(told: messages.CreateHaltRequest) -> HaltRequest:
    """What a message wants halted.

    Raises:
        InvalidRequest: it does not say of what kind it is.
        ValueError: a field is too long.
    """
    try:
        kind = _kind_in(told.kind)
    except ValueError:
        message = "kind must be one of HALT_KIND_TASK, _AGENT, _TOOL, _SERVER and _ALL"
        raise InvalidRequest(message, field="kind") from None
    return HaltRequest(kind=kind, target=told.target, reason=told.reason, by=told.by)


def halt_out(body: HaltBody) -> messages.Halt:
    """A halt as a message."""
    return messages.Halt(
        id=body.id,
        kind=_kind_out(body.kind),
        target=body.target,
        reason=body.reason,
        by=body.by,
        at=moment_out(body.at),
        lifted_at=None if body.lifted_at is None else moment_out(body.lifted_at),
        lifted_by=body.lifted_by,
        lifted_reason=body.lifted_reason,
    )


def halt_in(told: messages.Halt) -> HaltBody:
    """The halt of a message.

    Raises:
        ValueError: it is not as a server of this release tells it.
    """
    return HaltBody(
        id=told.id,
        kind=_kind_in(told.kind),
        target=told.target,
        reason=told.reason,
        by=told.by,
        at=told.at.ToDatetime(tzinfo=UTC),
        lifted_at=told.lifted_at.ToDatetime(tzinfo=UTC) if told.HasField("lifted_at") else None,
        lifted_by=told.lifted_by,
        lifted_reason=told.lifted_reason,
    )


def _kind_out(kind: HaltKind) -> messages.HaltKind.ValueType:
    return messages.HaltKind.Value(_PREFIX + kind.name)


def _kind_in(number: messages.HaltKind.ValueType) -> HaltKind:
    """Raises ValueError for what is none, or is not known here."""
    return HaltKind(messages.HaltKind.Name(number).removeprefix(_PREFIX).lower())
