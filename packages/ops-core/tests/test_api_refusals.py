import asyncio
import base64
import json
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from .api_support import NOWHERE, Stage, raw, staged  # type: ignore[import-not-found]

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one server for all: nothing here is accepted

TASKS = "/api/v1/tasks"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory) -> AsyncGenerator[Stage]:
    async with staged(tmp_path_factory.mktemp("refusals"), max_body_bytes=4096) as opened:
        yield opened


@pytest.mark.parametrize("prefer", ["wait", "wait=", "wait=soon", "wait=-1", "wait=1.5"])
async def test_a_wait_that_is_no_number_is_refused(stage, prefer):
    body = {"agent": "quick", "input": "go"}
    told = await stage.json("POST", TASKS, json=body, headers={"Prefer": prefer}, expected=422)
    assert told["field"] == "Prefer"
    assert (await stage.json("GET", TASKS))["items"] == []


@pytest.mark.parametrize("key", ["", "x" * 256, '"', '"a', '"a"b"', "a\tb", "a\x7f", '""', "\xfc"])
async def test_a_key_that_is_none_is_refused(stage, key):
    headers = [(b"Idempotency-Key", key.encode("latin-1"))]
    told = await stage.json(
        "POST", TASKS, json={"agent": "quick", "input": "go"}, headers=headers, expected=422
    )
    assert told["field"] == "Idempotency-Key"


@pytest.mark.parametrize(
    "fields, field",
    [
        ({"agent": "nobody"}, "agent"),
        ({"agent": ""}, "agent"),
        ({"agent": 5}, "agent"),
        ({"input": 5}, "input"),
        ({"input": None}, "input"),
        ({"labels": {"a b": "x"}}, "labels.a b"),
        ({"labels": {"a": 1}}, "labels.a"),
        ({"labels": {f"k{n}": "" for n in range(33)}}, "labels"),
        ({"priority": 1.5}, "priority"),
        ({"priority": "1"}, "priority"),
        ({"priority": True}, "priority"),
        ({"run_at": 1_800_000_000}, "run_at"),
        ({"run_at": "1800000000"}, "run_at"),
        ({"run_at": "2030-01-01T00:00:00"}, "run_at"),
        ({"timeout_seconds": "5"}, "timeout_seconds"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"budget": {"steps": 0}}, "budget.steps"),
        ({"budget": {"pennies": 1}}, "budget.pennies"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"tenant": "other"}, "tenant"),
        ({"status": "completed"}, "status"),
    ],
)
async def test_a_wrong_field_is_named(stage, fields, field):
    told = await stage.json("POST", TASKS, json={"agent": "quick", "input": "go", **fields}, expected=422)
    assert told["field"] == field
    assert (await stage.json("GET", TASKS))["items"] == []


async def test_all_problems_are_told(stage):
    told = await stage.json("POST", TASKS, json={"agent": "", "priority": "x", "y": 1}, expected=422)
    assert {problem["field"] for problem in told["errors"]} == {"agent", "input", "priority", "y"}


def cursor_of(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "query, field",
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=many", "limit"),
        ("limit=5.0", "limit"),
        ("limit=1&limit=2", "limit"),
        ("status=asleep", "status"),
        ("status=", "status"),
        ("status=failed,", "status"),
        ("agent=", "agent"),
        ("label=", "label"),
        ("label=a%20b", "label"),
        ("label=a%3D%00", "label"),
        ("colour=red", "colour"),
        ("cursor=", "cursor"),
        ("cursor=%C3%A4", "cursor"),
        ("cursor=AAAA", "cursor"),
        ("cursor=" + cursor_of({"v": 2, "tasks_before": NOWHERE}), "cursor"),
        ("cursor=" + cursor_of({"v": 1, "tasks_before": "x"}), "cursor"),
        ("cursor=" + cursor_of({"v": 1, "tasks_before": 5}), "cursor"),
        ("cursor=" + cursor_of([NOWHERE]), "cursor"),
        ("cursor=" + cursor_of(5), "cursor"),
        ("cursor=" + "W" * 8000, "cursor"),
    ],
)
async def test_a_wrong_parameter_of_a_list_is_named(stage, query, field):
    assert (await stage.json("GET", f"{TASKS}?{query}", expected=422))["field"] == field


@pytest.mark.parametrize(
    "task_id", [NOWHERE, NOWHERE.replace("-", ""), "x", "%00", "%ff", "1' OR '1'='1", NOWHERE + "0"]
)
@pytest.mark.parametrize("rest", ["", "/steps", "/events", "/cancel", "/retry", "/approvals/x"])
async def test_an_id_that_no_task_has_is_not_found(stage, task_id, rest):
    method = "POST" if rest in ("/cancel", "/retry", "/approvals/x") else "GET"
    body = {"json": {"approved": True}} if "approvals" in rest else {}
    told = await stage.json(method, f"{TASKS}/{task_id}{rest}", expected=404, **body)
    assert told["code"] == "task_not_found"


# --- bodies -------------------------------------------------------------------------------------------------------


def nested(levels: int) -> str:
    """A request whose input is so deep that the deepest object stands at this level of the body."""
    return '{"agent": "none", "input": ' + '{"a":' * (levels - 1) + "1" + "}" * levels


@pytest.mark.parametrize(
    "body, field",
    [
        ("", "body"),
        ("nonsense", None),
        ('{"agent": "quick", "input": "go"', None),
        ('{"agent": "quick", "input": "go"} {}', None),
        ("\ufeff{}", None),
        ('{"agent": "quick", "input": {"a": [1, NaN]}}', "input.a.1"),
        ('{"agent": "quick", "input": {"a": -Infinity}}', "input.a"),
        ('{"agent": "quick", "input": {"a": 1e999}}', "input.a"),
        ('{"agent": "quick", "input": {"a": ' + "9" * 1001 + "}}", "input.a"),
        ('{"agent": "quick", "agent": "held", "input": "go"}', "agent"),
        ('{"agent": "quick", "input": {"b": [{}, {"x": 1, "x": 1}]}}', "input.b.1.x"),
        ('{"agent": "quick", "input": {"a": "\\ud800"}}', "input.a"),
        ('{"agent": "quick", "input": {"\\udfff": 1}}', "input.?"),
        ("[" * 2000 + "]" * 2000, None),
        (nested(65), "input" + ".a" * 63),
        ("NaN", None),
        ('"\\ud800"', None),
    ],
)
async def test_json_that_not_everybody_reads_alike_is_refused(stage, body, field):
    headers = {"Content-Type": "application/json"}
    answer = await stage.http.post(TASKS, content=body.encode(), headers=headers)
    assert answer.status_code == (400 if body else 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json().get("field") == field


async def test_json_may_be_64_levels_deep(stage):
    headers = {"Content-Type": "application/json"}
    told = await stage.json("POST", TASKS, content=nested(64).encode(), headers=headers, expected=422)
    assert told["code"] == "agent_not_found"  # it was read


async def test_a_body_that_is_not_utf8_is_refused(stage):
    body = b'{"agent": "quick", "input": "\xff"}'
    told = await stage.json(
        "POST", TASKS, content=body, headers={"Content-Type": "application/json"}, expected=400
    )
    assert told["code"] == "malformed_body"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_another_type_of_body_is_refused(stage, headers):
    told = await stage.json(
        "POST", TASKS, content=b'{"agent": "quick", "input": "go"}', headers=headers, expected=415
    )
    assert (told["code"], told["field"][:8]) == ("unsupported_media_type", "Content-")


def post(*headers: bytes) -> bytes:
    lines = [b"POST /api/v1/tasks HTTP/1.1", b"Host: localhost", b"Content-Type: application/json", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def test_a_body_that_says_it_is_too_large_is_refused_unread(stage):
    status, headers, told = await raw(stage.port, post(b"Content-Length: 4097"))
    assert (status, told["code"], headers["connection"]) == (413, "body_too_large", "close")


async def test_a_chunked_body_without_an_end_is_refused_by_the_bytes_that_arrive(stage):
    chunk = b"3e8\r\n" + b" " * 1000 + b"\r\n"
    status, headers, told = await raw(stage.port, post(b"Transfer-Encoding: chunked"), *[chunk] * 5)
    assert (status, told["code"], headers["content-type"]) == (
        413,
        "body_too_large",
        "application/problem+json",
    )


async def test_a_chunked_body_of_the_right_size_is_read(stage):
    body = b'{"agent": "none", "input": "' + b"x" * 3000 + b'"}'
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:1000], body[1000:])]
    status, _headers, told = await raw(stage.port, post(b"Transfer-Encoding: chunked"), *chunks, b"0\r\n\r\n")
    assert (status, told["code"]) == (422, "agent_not_found")


async def test_a_caller_that_goes_in_the_middle_of_a_body_does_no_harm(stage, caplog):
    _reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    writer.write(post(b"Content-Length: 100") + b"{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await stage.json("GET", "/health/ready")
    assert caplog.records == []


# --- around the routes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method, path, allowed",
    [
        ("DELETE", TASKS, "GET, HEAD, POST"),
        ("PUT", f"{TASKS}/{NOWHERE}", "GET, HEAD"),
        ("GET", f"{TASKS}/{NOWHERE}/cancel", "POST"),
        ("OPTIONS", "/health/live", "GET, HEAD"),
    ],
)
async def test_another_method_is_refused_and_the_right_ones_told(stage, method, path, allowed):
    answer = await stage.http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "path", ["/", "/api/v1", "/api/v1/tasks/", "/api/v1/agents/", "/api/v2/tasks", "/redoc", "/metrics/"]
)
async def test_an_address_where_nothing_is_is_a_problem_too(stage, path):
    answer = await stage.http.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1:80", "", "localhost:x"]
)
@pytest.mark.parametrize("path", ["/health/live", "/docs", "/openapi.json", "/api/v1/tasks", "/nothing"])
async def test_a_name_that_is_not_ours_is_refused_on_every_route(stage, host, path):
    assert (await stage.json("GET", path, headers={"Host": host}, expected=421))["code"] == "wrong_host"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8700", "[::1]:8700", "[::1]"])
async def test_loopback_names_are_ours(stage, host):
    await stage.json("GET", "/health/live", headers={"Host": host})


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1"])
async def test_a_page_of_another_origin_changes_nothing(stage, origin):
    body = {"agent": "quick", "input": "go"}
    told = await stage.json("POST", TASKS, json=body, headers={"Origin": origin}, expected=403)
    assert told["code"] == "cross_origin"
    assert (await stage.json("GET", TASKS))["items"] == []


async def test_a_page_of_our_own_may(stage):
    body = {"agent": "nobody", "input": "go"}
    await stage.json("POST", TASKS, json=body, headers={"Origin": stage.url}, expected=422)


@pytest.mark.parametrize("path", ["/health/live", "/openapi.json", "/docs", "/api/v1/tasks", "/nothing"])
async def test_every_answer_carries_the_headers_that_protect(stage, path):
    headers = (await stage.http.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "server" not in headers
