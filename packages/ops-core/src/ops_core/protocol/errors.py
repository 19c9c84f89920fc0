"""Errors over gRPC: a status, a google.rpc.ErrorInfo, and a google.rpc.BadRequest for invalid fields."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from ops_core.problem_details import FieldProblem, Problem
from ops_core.protocol.values import field_here, field_there

DOMAIN = "opspawn"
DETAILS = "grpc-status-details-bin"
"""The trailing metadata in which gRPC looks for a google.rpc.Status."""

# All of it travels in headers, of which HTTP/2 peers take 8 KiB together.
_MESSAGE_BYTES = 600
_FIELD_BYTES = 200
_FIELDS_BYTES = 2500


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the details of a status say.

    Attributes:
        code: as in a problem; empty where there are no details of ours.
        field: the field at fault, by its name in our JSON.
    """

    code: str = ""
    field: str | None = None


def message_of(problem: Problem) -> str:
    """What the status says to people."""
    return _cut(problem.detail, _MESSAGE_BYTES)


def details_of(problem: Problem, status: int) -> bytes:
    """The details of a problem, for :data:`DETAILS`."""
    about = {} if problem.actor is None else {"actor": problem.actor}
    if problem.field is not None:
        about["field"] = _cut(field_there(problem.field), _FIELD_BYTES)
    info = ErrorInfo(reason=problem.code.upper(), domain=DOMAIN, metadata=about)
    told = Status(code=status, message=message_of(problem))
    told.details.append(_any(info))
    fields = list(problem.errors)
    if not fields and problem.field is not None and problem.status == 422:
        fields = [FieldProblem(field=problem.field, message=problem.detail)]
    if fields:
        told.details.append(_any(_bad_request(fields)))
    return told.SerializeToString()


def problem_in(details: bytes | None) -> Told:
    """What details say; nothing where they are not ours."""
    try:
        status = Status.FromString(details or b"")
    except DecodeError:
        return Told()
    info = ErrorInfo()
    for one in status.details:
        if one.Unpack(info) and info.domain == DOMAIN:
            field = info.metadata.get("field")
            return Told(code=info.reason.lower(), field=None if field is None else field_here(field))
    return Told()


def _bad_request(fields: list[FieldProblem]) -> BadRequest:
    told = BadRequest()
    for problem in fields:
        violation = told.field_violations.add()
        violation.field = _cut(field_there(problem.field), _FIELD_BYTES)
        violation.description = _cut(problem.message, _MESSAGE_BYTES)
        if told.ByteSize() > _FIELDS_BYTES:
            del told.field_violations[-1]
            break
    return told


def _any(message: ErrorInfo | BadRequest) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def _cut(text: str, most: int) -> str:
    return text.encode(errors="replace")[:most].decode(errors="ignore")
