import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ops_core.api import create_api
from ops_core.api.docs import PAGE, START
from ops_core.api.errors import PROBLEM_JSON, REFUSALS
from ops_core.assembly import Ops
from ops_core.errors import OpsError, StoreUnavailable
from ops_core.observability.metrics import Metrics
from ops_core.observability.store_gauges import StoreGauges
from ops_core.problem_details import STATUSES, status_of
from ops_core.settings import Settings

from .api_support import Agents, Stage, staged  # type: ignore[import-not-found]

OPERATIONS = {
    ("POST", "/api/v1/tasks"),
    ("POST", "/api/v1/tasks:batch"),
    ("GET", "/api/v1/tasks"),
    ("GET", "/api/v1/tasks/{task_id}"),
    ("GET", "/api/v1/tasks/{task_id}/steps"),
    ("GET", "/api/v1/tasks/{task_id}/events"),
    ("POST", "/api/v1/tasks/{task_id}/cancel"),
    ("POST", "/api/v1/tasks/{task_id}/retry"),
    ("POST", "/api/v1/tasks/{task_id}/approvals/{approval_id}"),
    ("POST", "/api/v1/tasks/{task_id}/settle"),
    ("GET", "/api/v1/notes"),
    ("DELETE", "/api/v1/notes"),
    ("POST", "/api/v1/notes:recall"),
    ("GET", "/api/v1/approvals"),
    ("GET", "/api/v1/threads"),
    ("GET", "/api/v1/threads/{thread_id}"),
    ("DELETE", "/api/v1/threads/{thread_id}"),
    ("GET", "/api/v1/agents"),
    ("GET", "/api/v1/agents/{name}"),
    ("GET", "/api/v1/halts"),
    ("POST", "/api/v1/halts"),
    ("POST", "/api/v1/halts/{halt_id}/lift"),
    ("GET", "/api/v1/spending"),
    ("GET", "/api/v1/workers"),
    ("POST", "/api/v1/tasks:cancel"),
    ("POST", "/api/v1/tasks:retry"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncGenerator[Stage]:
    async with staged(tmp_path) as opened:
        yield opened


async def test_the_document_describes_every_operation_and_its_problems(stage):
    document = await stage.json("GET", "/openapi.json")
    assert document["openapi"].startswith("3.1")
    found = {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert found.keys() == OPERATIONS
    assert len({operation["operationId"] for operation in found.values()}) == len(OPERATIONS)
    for operation in found.values():
        assert operation["description"]
        for status, response in operation["responses"].items():
            assert (PROBLEM_JSON in response["content"]) == (int(status) >= 400)
            assert response["description"]
    assert document["components"]["schemas"]["TaskRequest"]["examples"]
    assert "HTTPValidationError" not in document["components"]["schemas"]


def operations_table(document: dict[str, Any]) -> str:
    rows = ["| Operation | Answers | |", "| --- | --- | --- |"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            answers = ", ".join(status for status in operation["responses"] if int(status) < 400)
            rows.append(
                f"| `{method.upper()} {path}` | {answers} | {operation['description'].splitlines()[0]} |"
            )
    return "\n".join(rows)


def errors_table() -> str:
    told = [
        (status.http, cls.code, cls.actor, (cls.__doc__ or "").splitlines()[0])
        for cls, status in STATUSES.items()
    ]
    told += [(refusal.status, refusal.code, refusal.actor, refusal.detail) for refusal in REFUSALS]
    rows = [f"| {status} | `{code}` | {actor} | {what} |" for status, code, actor, what in sorted(told)]
    return "\n".join(["| Status | `code` | `actor` | |", "| --- | --- | --- | --- |", *rows])


async def test_the_reference_tells_every_operation_header_and_error(stage):
    page = (Path(__file__).parents[3] / "docs/reference/rest-api.md").read_text()
    document = await stage.json("GET", "/openapi.json")
    assert operations_table(document) in page
    assert errors_table() in page
    for methods in document["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                assert parameter["in"] == "path" or f"`{parameter['name']}`" in page, parameter["name"]


def test_the_reference_of_grpc_tells_every_error():
    told = [
        (status.grpc, cls.code.upper(), status.http, (cls.__doc__ or "").splitlines()[0])
        for cls, status in STATUSES.items()
    ]
    told += [
        ("INTERNAL", "INTERNAL", 500, "The server has made a mistake; its log says more."),
        ("RESOURCE_EXHAUSTED", "BODY_TOO_LARGE", 413, "The message is larger than this server accepts."),
    ]
    rows = [f"| `{grpc}` | `{reason}` | {http} | {what} |" for grpc, reason, http, what in sorted(told)]
    page = (Path(__file__).parents[3] / "docs/reference/grpc-api.md").read_text()
    assert "\n".join(rows) in page


async def test_no_other_route_is_alive(stage):
    app = create_api(stage.ops)
    routes = {route.path for route in app.router.routes if route.include_in_schema}  # type: ignore[attr-defined]
    assert {path.replace(":path", "") for path in routes} == {path for _method, path in OPERATIONS}


async def test_the_page_loads_nothing_from_elsewhere(stage):
    page = await stage.http.get("/docs")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "http" not in PAGE + START
    loaded = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert len(loaded) == 3
    for path in loaded:
        answer = await stage.http.get(path)
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"(@import|url\()\s*['\"]?https?:", answer.text)


def test_every_error_of_the_platform_has_a_status():
    errors, todo = set[type[OpsError]](), [OpsError]
    while todo:
        cls = todo.pop()
        todo += cls.__subclasses__()
        errors.add(cls)
    assert {cls for cls in errors if cls.__module__ == "ops_core.errors"} == STATUSES.keys()
    assert len({refusal.code for refusal in REFUSALS} | {cls.code for cls in errors}) == len(errors) + len(
        REFUSALS
    )


def test_an_error_that_is_not_in_the_table_has_the_status_of_its_family():
    class Slow(StoreUnavailable):
        pass

    assert status_of(Slow()).http == 503


class Broken:
    """A store that does not work, and an engine that has it."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.store = self

    async def check(self, *, writes: bool = False) -> None:
        raise self.error

    async def list(self, *_asked: object) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error, status, code",
    [
        (StoreUnavailable("cannot open /secret/place"), 503, "store_unavailable"),
        (RuntimeError("the secret"), 500, "internal"),
        (OpsError("the secret"), 500, "error"),
    ],
)
@pytest.mark.parametrize("path", ["/health/ready", "/api/v1/tasks"])
async def test_what_fails_inside_is_told_without_the_inside(error, status, code, path, caplog):
    broken: Any = Broken(error)
    made: dict[str, Any] = {"metrics": Metrics(), "gauges": StoreGauges(broken)}
    ops = Ops(settings=Settings(), catalog=Agents(), engine=broken, **made)
    transport = httpx2.ASGITransport(create_api(ops))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = await http.get(path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == PROBLEM_JSON
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "secret" not in answer.text
    [record] = caplog.records
    assert "\n" not in record.getMessage()


async def test_health_is_told(stage):
    assert await stage.json("GET", "/health/live") == {"status": "ok"}
    assert await stage.json("GET", "/health/ready") == {"status": "ok"}
