"""Problem details: one table of errors for every surface, in the form of RFC 9457."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ops_core.errors import (
    AgentNotFound,
    ApprovalConflict,
    ApprovalExpired,
    ApprovalNotFound,
    ConfigError,
    HaltNotFound,
    IdempotencyConflict,
    InvalidRequest,
    LeaseLost,
    OpsError,
    RecallUnavailable,
    SchemaMismatch,
    ServerUnavailable,
    SpendingReached,
    StoreUnavailable,
    TaskNotFound,
    TaskUnreadable,
    ThreadBusy,
    ThreadNotFound,
    TransitionRefused,
)

MAX_PROBLEMS = 100
"""So many fields at fault are named at most."""

MAX_TEXT = 1000
"""No text of an error is longer."""

_NEWER_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}  # Python before 3.13 has older ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a class of errors is told: the status of HTTP, and the name of gRPC's."""

    http: int
    grpc: str


STATUSES: Mapping[type[OpsError], Status] = {
    InvalidRequest: Status(http=422, grpc="INVALID_ARGUMENT"),
    AgentNotFound: Status(http=422, grpc="INVALID_ARGUMENT"),
    IdempotencyConflict: Status(http=422, grpc="INVALID_ARGUMENT"),
    TaskNotFound: Status(http=404, grpc="NOT_FOUND"),
    ApprovalNotFound: Status(http=404, grpc="NOT_FOUND"),
    ThreadNotFound: Status(http=404, grpc="NOT_FOUND"),
    HaltNotFound: Status(http=404, grpc="NOT_FOUND"),
    ThreadBusy: Status(http=409, grpc="FAILED_PRECONDITION"),
    ApprovalConflict: Status(http=409, grpc="FAILED_PRECONDITION"),
    ApprovalExpired: Status(http=409, grpc="FAILED_PRECONDITION"),
    TransitionRefused: Status(http=409, grpc="FAILED_PRECONDITION"),
    LeaseLost: Status(http=409, grpc="ABORTED"),
    SpendingReached: Status(http=429, grpc="RESOURCE_EXHAUSTED"),
    ConfigError: Status(http=500, grpc="INTERNAL"),
    SchemaMismatch: Status(http=503, grpc="UNAVAILABLE"),
    TaskUnreadable: Status(http=503, grpc="UNAVAILABLE"),
    StoreUnavailable: Status(http=503, grpc="UNAVAILABLE"),
    RecallUnavailable: Status(http=503, grpc="UNAVAILABLE"),
    ServerUnavailable: Status(http=503, grpc="UNAVAILABLE"),
    OpsError: Status(http=500, grpc="INTERNAL"),
}
"""How each error of the platform is told."""

ERRORS: Mapping[str, type[OpsError]] = {cls.code: cls for cls in STATUSES if cls is not OpsError}
"""The error of each ``code``, for whoever raises again what a server has told."""


class FieldProblem(BaseModel):
    """One of the fields at fault."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str = Field(description="Its dotted path, or the name of a header or parameter.")
    message: str


class Problem(BaseModel):
    """An error, as RFC 9457 describes it, with four members of our own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Unprocessable Content",
                    "status": 422,
                    "detail": "labels.team: Input should be a valid string",
                    "code": "invalid_request",
                    "actor": "user",
                    "field": "labels.team",
                    "errors": [{"field": "labels.team", "message": "Input should be a valid string"}],
                }
            ]
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str = Field(description="A stable word for programs.")
    actor: str | None = Field(default=None, description="Who must act.")
    field: str | None = Field(default=None, description="The field at fault, where there is one.")
    errors: list[FieldProblem] = Field(
        default_factory=list[FieldProblem],
        description="All fields at fault (at most 100), where that is known.",
    )


def status_of(error: OpsError) -> Status:
    """How an error is told: as its own class is, or the nearest one above it."""
    return next(STATUSES[cls] for cls in type(error).__mro__ if cls in STATUSES)


def is_ours(error: OpsError) -> bool:
    """Whether the fault is on this side; what the error says is then for the log, not for the caller."""
    return status_of(error).http >= HTTPStatus.INTERNAL_SERVER_ERROR


def problem_of(error: OpsError) -> Problem:
    """An error as it is told. Paths and statements of the database are not."""
    detail = (type(error).__doc__ or "").strip().split("\n", maxsplit=1)[0] if is_ours(error) else str(error)
    status = status_of(error).http
    return Problem(
        title=title_of(status),
        status=status,
        detail=short(detail),
        code=error.code,
        actor=error.actor,
        field=None if error.field is None else short(error.field),
    )


def problem_of_fields(found: Sequence[Any], leave_out: Collection[str] = ()) -> Problem:
    """What pydantic has found, as it is told.

    Args:
        found: at least one; as ``ValidationError.errors()`` lists them.
        leave_out: where the fields came from (body, query), which is no part of their paths.
    """
    problems = [
        FieldProblem(
            field=short(_path(item["loc"], leave_out)),
            message=short(item["msg"].removeprefix("Value error, ")),
        )
        for item in found[:MAX_PROBLEMS]
    ]
    return Problem(
        title=title_of(422),
        status=422,
        detail=short("; ".join(f"{problem.field}: {problem.message}" for problem in problems)),
        code=InvalidRequest.code,
        actor=InvalidRequest.actor,
        field=problems[0].field,
        errors=problems,
    )


def title_of(status: int) -> str:
    """The phrase of an HTTP status."""
    return _NEWER_TITLES.get(status) or HTTPStatus(status).phrase


def short(text: str) -> str:
    """Not too long, and fit for UTF-8 even where a caller sent half a surrogate pair."""
    return text[:MAX_TEXT].encode(errors="replace").decode()


def _path(place: Sequence[str | int], leave_out: Collection[str]) -> str:
    """The dotted path of a field, without pydantic's own marks."""
    inside = place[1:] if place and place[0] in leave_out else place
    return ".".join(str(part) for part in inside if part != "[key]") or ".".join(map(str, place))
