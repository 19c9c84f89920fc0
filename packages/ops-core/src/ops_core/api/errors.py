"""How errors are told over HTTP: one table, and problem+json (RFC 9457) for everything."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from agentkit.errors import Actor
from ops_core.errors import (
    AgentNotFound,
    ApprovalNotFound,
    ConfigError,
    IdempotencyConflict,
    InvalidRequest,
    LeaseLost,
    OpsError,
    SchemaMismatch,
    ServerUnavailable,
    StoreUnavailable,
    TaskNotFound,
    TaskUnreadable,
    TransitionRefused,
)
from ops_core.wire import FieldProblem, Problem

log = logging.getLogger("ops_core.api")

PROBLEM_JSON = "application/problem+json"

STATUSES: Mapping[type[OpsError], int] = {
    InvalidRequest: 422,
    AgentNotFound: 422,
    IdempotencyConflict: 422,
    TaskNotFound: 404,
    ApprovalNotFound: 404,
    TransitionRefused: 409,
    LeaseLost: 409,
    ConfigError: 500,
    SchemaMismatch: 503,
    TaskUnreadable: 503,
    StoreUnavailable: 503,
    ServerUnavailable: 503,
    OpsError: 500,
}
"""The HTTP status of each error of the platform."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What can be wrong with a request before the platform sees it."""

    status: int
    code: str
    detail: str
    actor: Actor = Actor.USER


MALFORMED_BODY = Refusal(status=400, code="malformed_body", detail="The body is not JSON as RFC 8259 has it.")
CROSS_ORIGIN = Refusal(
    status=403, code="cross_origin", detail="A page of another origin may not change anything here."
)
NOT_FOUND = Refusal(status=404, code="route_not_found", detail="There is nothing at this address.")
NOT_ALLOWED = Refusal(
    status=405,
    code="method_not_allowed",
    detail="This address does not know that method; `Allow` lists those it does.",
)
TOO_SLOW = Refusal(status=408, code="request_timeout", detail="The body did not arrive in time.")
TOO_LARGE = Refusal(status=413, code="body_too_large", detail="The body is larger than this server accepts.")
UNSUPPORTED = Refusal(
    status=415,
    code="unsupported_media_type",
    detail="The body must be application/json in UTF-8, not compressed.",
)
WRONG_HOST = Refusal(status=421, code="wrong_host", detail="This server answers to loopback names only.")
INTERNAL = Refusal(
    status=500,
    code="internal",
    detail="The server has made a mistake; its log says more.",
    actor=Actor.DEVELOPER,
)
REFUSALS = (
    *(MALFORMED_BODY, CROSS_ORIGIN, NOT_FOUND, NOT_ALLOWED),
    *(TOO_SLOW, TOO_LARGE, UNSUPPORTED, WRONG_HOST, INTERNAL),
)
"""All of them, for the documentation."""

_NEWER_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}  # Python before 3.13 has older ones
_MOST_ERRORS = 100
_MOST_TEXT = 1000


class Refused(Exception):
    """A request is refused at the border.

    Attributes:
        refusal: why.
        detail: more about it, where there is more to say.
        field: the name of the field, header or parameter at fault.
        headers: to be sent along.
    """

    def __init__(
        self,
        refusal: Refusal,
        detail: str | None = None,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.refusal = refusal
        self.detail = detail or refusal.detail
        self.field = field
        self.headers = headers
        super().__init__(self.detail)

    def response(self) -> Response:
        """As it is told."""
        refusal = self.refusal
        told = Problem(
            title=_title(refusal.status),
            status=refusal.status,
            detail=_text(self.detail),
            code=refusal.code,
            actor=refusal.actor,
            field=None if self.field is None else _text(self.field),
        )
        return _response(told, self.headers)


def add_error_handlers(app: FastAPI) -> None:
    """Tell every error of ``app`` as a problem."""
    app.add_exception_handler(OpsError, _ops_error)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)


def status_of(error: OpsError) -> int:
    """The HTTP status of an error: its own, or that of the nearest class above it."""
    return next(STATUSES[cls] for cls in type(error).__mro__ if cls in STATUSES)


async def _ops_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, OpsError)
    status, detail = status_of(error), str(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:  # paths and statements are for the operator's eyes
        log.error("%s: %s", error.code, detail)
        detail = (type(error).__doc__ or "").strip().split("\n", maxsplit=1)[0]
    told = Problem(
        title=_title(status),
        status=status,
        detail=_text(detail),
        code=error.code,
        actor=error.actor,
        field=error.field,
    )
    return _response(told)


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response()


async def _http_error(request: Request, error: Exception) -> Response:
    """What Starlette's router raises. Its own ``Allow`` knows the first route of a path only."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.NOT_FOUND:
        return Refused(NOT_FOUND, headers=headers).response()
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return Refused(NOT_ALLOWED, headers={**headers, "Allow": _allowed(request)}).response()
    log.error("unexpected HTTP error %d", error.status_code)
    return Refused(INTERNAL, headers=headers).response()


def _allowed(request: Request) -> str:
    app: FastAPI = request.app
    methods: set[str] = set()
    for route in app.router.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return ", ".join(sorted(methods))


async def _validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found: Sequence[Any] = error.errors()
    problems = [
        FieldProblem(
            field=_text(_field(item["loc"])), message=_text(item["msg"].removeprefix("Value error, "))
        )
        for item in found[:_MOST_ERRORS]
    ]
    told = Problem(
        title=_title(422),
        status=422,
        detail=_text("; ".join(f"{problem.field}: {problem.message}" for problem in problems)),
        code=InvalidRequest.code,
        actor=InvalidRequest.actor,
        field=problems[0].field,
        errors=problems,
    )
    return _response(told)


def _field(place: Sequence[str | int]) -> str:
    """The dotted path of a field, without where it was (body, query, header) and pydantic's own marks."""
    return ".".join(str(part) for part in place[1:] if part != "[key]") or str(place[0])


def _response(told: Problem, headers: Mapping[str, str] | None = None) -> Response:
    body = told.model_dump_json(exclude_none=True, exclude=None if told.errors else {"errors"})
    return Response(body, told.status, dict(headers or {}), PROBLEM_JSON)


def _title(status: int) -> str:
    return _NEWER_TITLES.get(status) or HTTPStatus(status).phrase


def _text(text: str) -> str:
    """Short, and fit for UTF-8 even where a caller sent half a surrogate pair."""
    return text[:_MOST_TEXT].encode(errors="replace").decode()
