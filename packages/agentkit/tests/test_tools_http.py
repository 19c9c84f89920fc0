"""Requests as tools, and operations of OpenAPI documents: against a real server, through an agent."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from agentkit import Agent
from agentkit.errors import BadArguments, ToolError, UsageError
from agentkit.guarded import GuardedClient
from agentkit.messages import Effect, ToolCall
from agentkit.ports import ToolContext
from agentkit.sandbox import HostRule
from agentkit.testing import ScriptedModel
from agentkit.tools import HttpTool, HttpToolset, from_openapi
from agentkit.transcript import ToolReturned

SECRET = "Bearer sk-0123456789"


class Api:
    """A small API on loopback that tells what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.kind = "application/json"
        self.body: bytes | None = None
        self.extra = ""
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def client(self) -> GuardedClient:
        rule = HostRule(host="127.0.0.1", port=self.port, private=True)
        return GuardedClient(hosts=[rule], schemes=["http"])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _colon, value in (line.partition(":") for line in lines)
        }
        sent = (await reader.readexactly(int(headers.get("content-length", "0")))).decode()
        method, target, _version = first.split(" ")
        told = {
            "method": method,
            "target": target,
            "headers": headers,
            "body": json.loads(sent) if sent else None,
        }
        body = json.dumps(told).encode() if self.body is None else self.body
        answer = f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\ncontent-type: {self.kind}\r\n{self.extra}"
        writer.write(f"{answer}content-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()


@pytest.fixture
async def api() -> AsyncGenerator[Api]:
    made = Api()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


async def called(toolset: HttpToolset, tool: str, /, **arguments: Any) -> Any:
    context: ToolContext[Any] = ToolContext(
        deps=None, run_id="run", call_id="call", idempotency_key="run:call"
    )
    return await toolset.call(ToolCall(id="call", name=tool, arguments=arguments), context)


def schema(*required: str, **properties: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in properties.items()},
        "required": [*required],
        "additionalProperties": False,
    }


# --- requests ----------------------------------------------------------------------------------------------------


async def test_arguments_go_where_they_belong(api: Api):
    tools = [
        HttpTool(
            "read",
            "GET",
            f"{api.url}/items/{{id}}?v=1",
            parameters=schema(id="string", tags="array", page="integer"),
        ),
        HttpTool(
            "write",
            "post",
            f"{api.url}/items/{{id}}",
            parameters=schema(id="string", name="string", n="number"),
        ),
    ]
    toolset = HttpToolset(tools, api.client)
    told = await called(toolset, "read", id="a/b ?#é", tags=["x y", "&"], page=2)
    assert told["target"] == "/items/a%2Fb%20%3F%23%C3%A9?v=1&tags=x%20y&tags=%26&page=2"
    assert (told["method"], told["body"]) == ("GET", None)
    told = await called(toolset, "write", id="7", name="漢字", n=1.5)
    assert (told["method"], told["target"], told["body"]) == ("POST", "/items/7", {"name": "漢字", "n": 1.5})
    assert told["headers"]["content-type"] == "application/json"


async def test_headers_of_the_developer_are_sent_and_not_told(api: Api):
    made = HttpTool(
        "look", "GET", f"{api.url}/", parameters=schema(trace="string"), places={"trace": "header"},
        headers={"authorization": SECRET, "trace": "ours"},
    )  # fmt: skip
    told = await called(HttpToolset([made], api.client), "look", trace="theirs")
    assert told["headers"]["authorization"] == "[secret]"  # the server repeated it
    assert told["headers"]["trace"] == "ours"
    assert SECRET not in repr(made)
    with pytest.raises(BadArguments, match="one line"):
        await called(HttpToolset([HttpTool("look", "GET", f"{api.url}/", parameters=schema(t="string"), places={"t": "header"})], api.client), "look", t="a\r\nb: c")  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("value", ["..", ".", "", " ", "../.."])
async def test_the_way_up_is_no_part_of_a_path(api: Api, value: str):
    toolset = HttpToolset(
        [HttpTool("read", "GET", f"{api.url}/items/{{id}}", parameters=schema(id="string"))], api.client
    )
    if value == "../..":
        assert (await called(toolset, "read", id=value))["target"] == "/items/..%2F.."
        return
    with pytest.raises(BadArguments, match="id: it cannot be part of a path"):
        await called(toolset, "read", id=value)


async def test_arguments_that_do_not_fit(api: Api):
    toolset = HttpToolset(
        [HttpTool("read", "GET", f"{api.url}/{{id}}", parameters=schema("id", id="string"))], api.client
    )
    for arguments, problem in (
        ({}, "id: it is required"),
        ({"id": 1}, "type string"),
        ({"id": "1", "x": 1}, "no such"),
    ):
        with pytest.raises(BadArguments, match=problem):
            await called(toolset, "read", **arguments)


async def test_what_repeating_a_call_does_follows_from_the_method(api: Api):
    methods = {
        "GET": "pure",
        "HEAD": "pure",
        "PUT": "idempotent",
        "DELETE": "idempotent",
        "POST": "unsafe",
        "PATCH": "unsafe",
    }
    tools = [HttpTool(method.lower(), method, api.url) for method in methods]
    keyed = HttpTool("keyed", "POST", api.url, idempotency_header="Idempotency-Key")
    toolset = HttpToolset([*tools, keyed], api.client)
    effects = {spec.name: str(spec.effect) for spec in await toolset.specs()}
    assert effects == {method.lower(): effect for method, effect in methods.items()} | {"keyed": "idempotent"}
    assert (await called(toolset, "keyed"))["headers"]["idempotency-key"] == "run:call"


@pytest.mark.parametrize(
    "kind,body,output",
    [
        ("application/json", b"[1, 2]", [1, 2]),
        ("application/problem+json", b"{}", {}),
        ("text/plain; charset=utf-8", "é \u202e".encode(), "é \\u202e"),
        ("application/xml", b"<a/>", "<a/>"),
        ("image/png", b"\x89PNG", {"content_type": "image/png", "bytes": 4}),
        ("application/json", b"", None),
    ],
)
async def test_what_comes_back(api: Api, kind: str, body: bytes, output: object):
    api.kind, api.body = kind, body
    assert await called(HttpToolset([HttpTool("look", "GET", api.url)], api.client), "look") == output


async def test_refusals_are_told_to_the_model(api: Api):
    toolset = HttpToolset([HttpTool("look", "GET", api.url)], api.client)
    api.status, api.body, api.extra = 429, b'{"error": "slowly"}', "retry-after: 7\r\n"
    with pytest.raises(ToolError, match=r"429 Too Many Requests \(to be tried again after 7\): .*slowly"):
        await called(toolset, "look")
    api.status, api.body, api.extra = 200, b"{", ""
    with pytest.raises(ToolError, match="JSON that cannot be read"):
        await called(toolset, "look")


async def test_only_the_host_of_the_url_is_reached_and_only_in_public(api: Api):
    toolset = HttpToolset([HttpTool("look", "GET", api.url)])
    with pytest.raises(ToolError, match="not public"):
        await called(toolset, "look")


@pytest.mark.parametrize(
    "given,problem",
    [
        ({"name": "no name"}, "cannot be called"),
        ({"url": "file:///etc/passwd"}, "https or http"),
        ({"url": "https://{host}/"}, "fixed"),
        ({"url": "https://me:secret@example.com/"}, "a user or a password"),
        ({"headers": {"x": "a\nb"}}, "cannot be sent"),
        ({"parameters": {"type": "array"}}, "not that of an object"),
        ({"description": "harmless\u200b"}, r"invisible character U\+200B"),
    ],
)
def test_a_request_that_cannot_be_a_tool(given: Mapping[str, Any], problem: str):
    with pytest.raises(UsageError, match=problem):
        HttpTool(**{"name": "look", "method": "GET", "url": "https://example.com/", **given})


# --- OpenAPI -----------------------------------------------------------------------------------------------------

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "servers": [{"url": "https://{place}.example.com/v1/", "variables": {"place": {"default": "api"}}}],
    "paths": {
        "/items": {
            "get": {
                "operationId": "listItems",
                "tags": ["items"],
                "summary": "List items.",
                "parameters": [
                    {"$ref": "#/components/parameters/limit"},
                    {"name": "session", "in": "cookie", "schema": {"type": "string"}},
                ],
            },
            "post": {
                "operationId": "items.create",
                "tags": ["items"],
                "description": "Make one.",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Item"}}},
                },
            },
        },
        "/items/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
            "delete": {"deprecated": True},
            "patch": {
                "operationId": "upload",
                "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": {}}}},
            },
        },
    },
    "components": {
        "parameters": {
            "limit": {
                "name": "limit",
                "in": "query",
                "description": "At most so many.",
                "schema": {"type": "integer", "maximum": 50, "example": 7},
            }
        },
        "schemas": {
            "Item": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "nullable": True},
                    "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Item"}},
                },
            }
        },
    },
}


async def test_the_operations_of_a_document_are_tools(api: Api):
    toolset = from_openapi(DOCUMENT, base_url=f"{api.url}/v1", include=["*", "!upload"], client=api.client)
    specs = {spec.name: spec for spec in await toolset.specs()}
    assert list(specs) == ["listItems", "items_create", "delete_items_id"]
    listing = specs["listItems"]
    assert listing.description == "List items."
    assert listing.effect is Effect.PURE
    assert listing.parameters["properties"] == {
        "limit": {"type": "integer", "maximum": 50, "description": "At most so many."}
    }
    made: Any = specs["items_create"].parameters
    assert made["required"] == ["body"]
    assert made["properties"]["body"]["properties"]["name"]["type"] == ["string", "null"]
    assert made["properties"]["body"]["properties"]["parts"]["items"] == {}  # an item holds items: left open
    assert specs["delete_items_id"].description == "Deprecated."
    assert (await called(toolset, "listItems", limit=3))["target"] == "/v1/items?limit=3"
    told = await called(toolset, "items_create", body={"name": "one"})
    assert (told["target"], told["body"]) == ("/v1/items", {"name": "one"})
    assert (await called(toolset, "delete_items_id", id="x"))["target"] == "/v1/items/x"


async def test_an_agent_uses_an_api(api: Api):
    toolset = from_openapi(
        DOCUMENT, base_url=api.url, include=["tag:items"], prefix="shop_", headers={"authorization": SECRET},
        effects={"shop_*": "idempotent"}, client=api.client,
    )  # fmt: skip
    model = ScriptedModel([ToolCall(id="1", name="shop_listItems", arguments={"limit": 2}), "Two items."])
    outcome = await Agent(model, tools=[toolset]).run("How many?")
    assert outcome.unwrap() == "Two items."
    returned: Any = next(r.step for r in outcome.transcript if isinstance(r.step, ToolReturned))
    assert returned.output["target"] == "/items?limit=2"
    assert SECRET not in repr(outcome)
    assert {spec.effect for spec in await toolset.specs()} == {Effect.IDEMPOTENT}


def test_documents_are_read_from_files(tmp_path: Path):
    path = tmp_path / "api.json"
    path.write_text(json.dumps(DOCUMENT))
    from_openapi(path, include=["GET /items*"])
    yaml = tmp_path / "api.yaml"
    yaml.write_text("openapi: 3.0.3\nservers: [{url: 'https://example.com'}]\npaths: {/a: {get: {}}}\n")
    from_openapi(str(yaml))
    (tmp_path / "broken.json").write_text("{")
    for missing in ("broken.json", "none.json"):
        with pytest.raises(UsageError, match="cannot be read"):
            from_openapi(tmp_path / missing)


def document(**changes: Any) -> dict[str, Any]:
    return {"openapi": "3.1.0", "servers": [{"url": "https://example.com"}], **changes}


def one(operation: Mapping[str, Any]) -> dict[str, Any]:
    return document(paths={"/a": {"get": operation}})


@pytest.mark.parametrize(
    "told,problem",
    [
        ({"swagger": "2.0"}, r"3\.0 or 3\.1 is needed, not swagger 2\.0"),
        (document(paths={}), "no operation"),
        (document(servers=[], paths={"/a": {"get": {}}}), "give a base_url"),
        (one({"parameters": [{"$ref": "https://example.com/x.json"}]}), "only references within it"),
        (one({"parameters": [{"$ref": "#/nothing"}]}), "not in it"),
        (one({"parameters": [{"name": "s", "in": "cookie", "required": True}]}), "cannot be given"),
        (one({"requestBody": {"required": True, "content": {"text/csv": {}}}}), "only JSON can be sent"),
        (document(paths={"/a": {"$ref": "#/paths/~1a"}}), "leads to itself"),
        (
            document(paths={"/a": {"get": {"operationId": "x"}}, "/b": {"get": {"operationId": "x"}}}),
            "two tools",
        ),
    ],
)
def test_a_document_that_cannot_be_used(told: Mapping[str, Any], problem: str):
    with pytest.raises(UsageError, match=problem):
        from_openapi(told)
