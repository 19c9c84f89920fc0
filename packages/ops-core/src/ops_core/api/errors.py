"""Errors over HTTP: problem+json (RFC 9457) for all of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from agentkit.errors import Actor
from ops_core.errors import OpsError
from ops_core.problem_details import Problem, is_ours, problem_of, problem_of_fields, short, title_of

log = logging.getLogger("ops_core.api")

PROBLEM_JSON = "application/problem+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What can be wrong with a request before the platform sees it."""

    status: int
    code: str
    detail: str
    actor: Actor = Actor.USER


MALFORMED_BODY = Refusal(status=400, code="malformed_body", detail="The body is not JSON as RFC 8259 has it.")
MALFORMED_HEAD = Refusal(
    status=400, code="malformed_request", detail="The head of the request is not valid HTTP."
)
CROSS_ORIGIN = Refusal(
    status=403, code="cross_origin", detail="A page of another origin may not read or change anything here."
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
    *(MALFORMED_BODY, MALFORMED_HEAD, CROSS_ORIGIN, NOT_FOUND, NOT_ALLOWED),
    *(TOO_SLOW, TOO_LARGE, UNSUPPORTED, WRONG_HOST, INTERNAL),
)
"""All of them, for the documentation."""


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
            title=title_of(refusal.status),
            status=refusal.status,
            detail=short(self.detail),
            code=refusal.code,
            actor=refusal.actor,
            field=None if self.field is None else short(self.field),
        )
        return _response(told, self.headers)


def add_error_handlers(app: FastAPI) -> None:
    """Tell every error of ``app`` as a problem."""
    app.add_exception_handler(OpsError, _ops_error)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)


async def _ops_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, OpsError)
    if is_ours(error):
        log.error("%s: %s", error.code, error)
    return _response(problem_of(error))


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
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted(methods))


async def _validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _response(problem_of_fields(error.errors(), ("body", "query", "path", "header")))


def _response(told: Problem, headers: Mapping[str, str] | None = None) -> Response:
    body = told.model_dump_json(exclude_none=True, exclude=None if told.errors else {"errors"})
    return Response(body, told.status, dict(headers or {}), PROBLEM_JSON)
