"""Operations of OpenAPI documents as tools: against a real server, through an agent, and documents of an enemy."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agentkit import Agent
from agentkit.errors import UsageError
from agentkit.messages import Effect, ToolCall
from agentkit.testing import ScriptedModel
from agentkit.tools import from_openapi
from agentkit.transcript.steps import ToolReturned

from .api_server import SECRET, Api, called  # type: ignore[import-not-found]

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


def document(**changes: Any) -> dict[str, Any]:
    return {"openapi": "3.1.0", "servers": [{"url": "https://example.com"}], **changes}


def one(operation: Mapping[str, Any]) -> dict[str, Any]:
    return document(paths={"/a": {"get": operation}})


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


async def test_headers_of_a_document_are_not_its_to_choose(api: Api):
    names = ("AUTHORIZATION", "Accept", "Host", "Content-Length", "Transfer-Encoding", "a\r\nb", "X-Trace")
    told = one({"operationId": "look", "parameters": [{"name": name, "in": "header"} for name in names]})
    toolset = from_openapi(told, base_url=api.url, headers={"x-trace": "ours"}, client=api.client)
    (spec,) = await toolset.specs()
    assert spec.parameters["properties"] == {}
    assert (await called(toolset, "look"))["headers"]["x-trace"] == "ours"


def test_references_as_tools_write_them(tmp_path: Path):
    """Numbers of items, and characters as a URL writes them."""
    shared: Any = {"parameters": [{"name": "q", "in": "query", "schema": {"type": "integer"}}]}
    told = document(
        paths={
            "/a/{id}": {"get": {"operationId": "a", **shared}, "parameters": [{"name": "id", "in": "path"}]},
            "/b": {
                "get": {
                    "operationId": "b",
                    "parameters": [{"$ref": "#/paths/~1a~1%7Bid%7D/get/parameters/0"}],
                }
            },
            "x-notes": {"get": {"operationId": "c"}},
        }
    )
    specs = {spec.name: spec for spec in asyncio.run(from_openapi(told).specs())}
    assert list(specs) == ["a", "b"]
    assert specs["b"].parameters["properties"] == {"q": {"type": "integer"}}


def bomb(levels: int, width: int = 2) -> Any:
    """What a few lines of YAML become: width to the power of the levels."""
    found: Any = "x"
    for _ in range(levels):
        found = [found] * width
    return found


def multiplying(levels: int) -> dict[str, Any]:
    schemas: dict[str, Any] = {
        f"S{n}": {"allOf": [{"$ref": f"#/components/schemas/S{n + 1}"}] * 2} for n in range(levels)
    }
    parameter = {"name": "q", "in": "query", "schema": {"$ref": "#/components/schemas/S0"}}
    return {"components": {"schemas": schemas | {f"S{levels}": {}}}} | one({"parameters": [parameter]})


def nested(levels: int) -> Any:
    found: Any = {}
    for _ in range(levels):
        found = {"items": found}
    return found


def within_itself() -> Any:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    "told",
    [
        multiplying(17),
        multiplying(30),
        one({"parameters": [{"name": "q", "in": "query", "schema": nested(60)}]}),
        one({"parameters": [{"name": "q", "in": "query", "schema": nested(3000)}]}),
        one({"parameters": [{"name": "q", "in": "query", "schema": {"default": bomb(40)}}]}),
        one({"parameters": [{"name": "q", "in": "query", "schema": {"enum": within_itself()}}]}),
        one({"tags": bomb(60)}),
    ],
)
def test_a_document_that_would_grow_without_end(told: Mapping[str, Any]):
    with pytest.raises(UsageError, match="too large"):
        from_openapi(told)


def test_a_file_that_is_nested_too_deep(tmp_path: Path):
    for name, text in (("a.json", "[" * 100_000 + "]" * 100_000), ("a.yaml", "[" * 5000 + "]" * 5000)):
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match="nested too deep"):
            from_openapi(tmp_path / name)


def places_of(told: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = told.items() if isinstance(told, dict) else enumerate(told) if isinstance(told, list) else ()
    return [way, *(found for key, each in inner for found in places_of(each, (*way, key)))]


@pytest.mark.parametrize("wrong", [None, 1, "x", "#", [], {}, [[]], {"$ref": 1}, {1: 2}, "\ud800"])
def test_whatever_is_wrong_in_a_document_is_told_or_left_out(wrong: Any):
    for way in places_of(DOCUMENT)[1:]:
        told: Any = json.loads(json.dumps(DOCUMENT))
        inner = told
        for key in way[:-1]:
            inner = inner[key]
        inner[way[-1]] = wrong
        with suppress(UsageError):
            from_openapi(told, include=["*", "!upload"])


@pytest.mark.parametrize(
    "path",
    [
        *("/https://evil.example.com/x", "//evil.example.com/x", "https://evil.example.com/x"),
        *("@evil.example.com", ".evil.example.com", "a", "/a#b", "/a b"),
        *("/../admin", "/a/../../b", "/a\\..\\b"),
    ],
)
async def test_a_document_does_not_choose_where_headers_are_sent(api: Api, path: str):
    told = document(paths={path: {"get": {"operationId": "look"}}})
    try:
        toolset = from_openapi(told, base_url=f"{api.url}/v1", headers={"x-key": SECRET}, client=api.client)
    except UsageError as error:
        assert "none below the API's own" in str(error)  # noqa: PT017
    else:
        assert (await called(toolset, "look"))["target"].startswith("/v1/")


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
