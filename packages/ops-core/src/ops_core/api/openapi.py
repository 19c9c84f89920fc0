"""Parts that all operations share in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Depends, FastAPI

from ops_core.api.errors import PROBLEM_JSON
from ops_core.api.parameters import known_query, no_body
from ops_core.problem_details import Problem

API = "/api/v1"
TASKS = f"{API}/tasks"
APPROVALS = f"{API}/approvals"
THREADS = f"{API}/threads"
NOTES = f"{API}/notes"
HALTS = f"{API}/halts"

_MEANINGS: Mapping[int, str] = {
    400: "The request is not valid HTTP, or its body is not JSON that everybody reads in the same way.",
    403: "A page of another origin asks.",
    404: "There is none of this id or name.",
    408: "The body did not arrive in time.",
    409: "The status of the task, or of its thread, does not allow this.",
    413: "The body is too large.",
    415: "The body is not `application/json`.",
    421: "The `Host` is not a loopback name.",
    422: "A field, header or parameter is wrong; `field` names the first one, `errors` all of them.",
    500: "The server has made a mistake.",
    503: "The database does not answer, or is not of this release's schema.",
}
_READING = (400, 403, 421, 422, 500, 503)
_WRITING = (408, 413, 415, *_READING)


def reading(operation_id: str, *statuses: int) -> dict[str, Any]:
    """Arguments of ``add_api_route`` for an operation that changes nothing; ``statuses`` are its own problems."""
    return _operation("GET", operation_id, {*statuses, *_READING}, [known_query])


def writing(operation_id: str, *statuses: int, body: bool = True) -> dict[str, Any]:
    """Arguments of ``add_api_route`` for an operation that changes something, with a ``body`` or without."""
    checks = [known_query] if body else [known_query, no_body]
    return _operation("POST", operation_id, {*statuses, *_WRITING}, checks)


def deleting(operation_id: str, *statuses: int) -> dict[str, Any]:
    """Arguments of ``add_api_route`` for an operation that deletes."""
    return _operation("DELETE", operation_id, {*statuses, *_WRITING}, [known_query, no_body])


def location(what: str) -> dict[str, Any]:
    """The documentation of a ``Location`` header."""
    return {"Location": {"description": what, "schema": {"type": "string", "format": "uri-reference"}}}


def _operation(
    method: str, operation_id: str, statuses: set[int], checks: list[Callable[..., Any]]
) -> dict[str, Any]:
    return {
        "methods": [method],
        "operation_id": operation_id,
        "summary": operation_id.replace("_", " ").capitalize(),
        "tags": [
            next(
                (
                    tag
                    for tag in ("agent", "health", "thread", "spending", "note", "halt", "worker")
                    if tag in operation_id
                ),
                "task",
            )
        ],
        "dependencies": [Depends(check) for check in checks],
        "responses": {status: _problem(status) for status in sorted(statuses)},
    }


def _problem(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": _MEANINGS[status], "content": {PROBLEM_JSON: {"schema": schema}}}


class Application(FastAPI):
    """FastAPI, with the schema of our problems in its document."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document["components"]["schemas"]
            problem = Problem.model_json_schema(
                ref_template="#/components/schemas/{model}", mode="serialization"
            )
            schemas.update(problem.pop("$defs"))
            schemas["Problem"] = problem
        return super().openapi()
