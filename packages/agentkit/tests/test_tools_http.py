"""Requests as tools: against a real server."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from agentkit.errors import BadArguments, ToolError, UsageError
from agentkit.tools import HttpTool, HttpToolset

from .api_server import SECRET, Api, called, schema  # type: ignore[import-not-found]


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
    assert told["headers"]["authorization"] == "[secret authorization]"  # the server repeated it
    assert told["headers"]["trace"] == "ours"
    assert SECRET not in repr(made)
    with pytest.raises(BadArguments, match="one line"):
        await called(HttpToolset([HttpTool("look", "GET", f"{api.url}/", parameters=schema(t="string"), places={"t": "header"})], api.client), "look", t="a\r\nb: c")  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("value", ["..", ".", "", " ", "../..", "a/../../b", "..\\b", "a/ .. /b"])
async def test_the_way_up_is_no_part_of_a_path(api: Api, value: str):
    toolset = HttpToolset(
        [HttpTool("read", "GET", f"{api.url}/items/{{id}}", parameters=schema(id="string"))], api.client
    )
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
        ("text/plain; charset=utf-8", "\ufeffé \u202e\u00ad".encode(), "\ufeffé \u202e\u00ad"),
        ("application/json", '{"\u200ba": "b\u2028"}'.encode(), {"\u200ba": "b\u2028"}),
        ("text/plain", "hi\U000e0041".encode(), "hi\\U000e0041"),
        ("application/json", b'"' + b"x" * 100_000 + b'"', "x" * 100_000),
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


BASIC = "Basic " + base64.b64encode(b"me:hunter2hunter2").decode()


@pytest.mark.parametrize(
    "header,echo",
    [
        (SECRET, SECRET),
        (SECRET, "x" * 1990 + SECRET),
        (SECRET, SECRET.split()[1]),
        (BASIC, "me:hunter2hunter2"),
    ],
)
@pytest.mark.parametrize("status", [200, 302, 401, 500])
async def test_no_answer_tells_the_model_what_was_sent(api: Api, status: int, header: str, echo: str):
    toolset = HttpToolset([HttpTool("look", "GET", api.url, headers={"Authorization": header})], api.client)
    api.status, api.body, api.extra = status, json.dumps({echo: [echo]}).encode(), f"retry-after: {echo}\r\n"
    try:
        told = json.dumps(await called(toolset, "look"))
    except ToolError as error:
        told = str(error)
    assert "[secret" in told
    assert "hunter2" not in told
    assert "0123456" not in told


@pytest.mark.parametrize(
    "url,given,problem",
    [
        ("/?mode=read", {"mode": "write"}, "mode: it is fixed"),
        ("/?mode=read", {"more": {"Mode": "write"}}, "Mode cannot be given here"),
        ("/", {"amount": 1, "more": {"amount": 999}}, "amount cannot be given here"),
        ("/", {"more": {"AMOUNT": 999}}, "AMOUNT cannot be given here"),
        ("/", {"more": {"x": 1}, "most": {"X": 2}}, "X cannot be given here"),
    ],
)
async def test_nothing_is_said_twice_in_a_query(api: Api, url: str, given: dict[str, Any], problem: str):
    """A rule looks at the one ``amount``, and the server might read the other."""
    parameters = schema(mode="string", amount="number", more="object", most="object")
    toolset = HttpToolset([HttpTool("look", "GET", api.url + url, parameters=parameters)], api.client)
    with pytest.raises(BadArguments, match=problem):
        await called(toolset, "look", **given)
    assert (await called(toolset, "look", more={"a": 1}))["target"].endswith("a=1")


async def test_what_the_schema_does_not_know_is_no_argument(api: Api):
    toolset = HttpToolset([HttpTool("look", "GET", api.url)], api.client)
    with pytest.raises(BadArguments, match="x: there is no such argument"):
        await called(toolset, "look", x=1)
    open_to_all: dict[str, Any] = {"type": "object", "additionalProperties": True}
    toolset = HttpToolset([HttpTool("look", "GET", api.url, parameters=open_to_all)], api.client)
    assert (await called(toolset, "look", x=1))["target"] == "/?x=1"


async def test_headers_of_the_developer_win_in_every_case(api: Api):
    names = ["authorization", "idempotency-key", "x-trace"]
    made = HttpTool(
        "look", "POST", api.url, parameters=schema(**dict.fromkeys(names, "string")),
        places=dict.fromkeys(names, "header"), headers={"Authorization": SECRET},
        idempotency_header="Idempotency-Key",
    )  # fmt: skip
    told = await called(HttpToolset([made], api.client), "look", **dict.fromkeys(names, "theirs"))
    assert api.heads[-1].lower().count("authorization:") == 1
    assert told["headers"]["idempotency-key"] == "run:call"
    assert told["headers"]["x-trace"] == "theirs"


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
        ({"url": "https://:80/"}, "with a host"),
        ({"url": "https://[/"}, "with a host"),
        ({"url": "https://example.com:http/"}, "with a host"),
        ({"url": "https://me:secret@example.com/"}, "a user or a password"),
        ({"headers": {"x": "a\nb"}}, "cannot be sent"),
        ({"headers": {"x: y\r\nz": "a"}}, "no name of a header"),
        ({"headers": {"Host": "inside.example.com"}}, "cannot be given"),
        ({"places": {"host": "header"}}, "cannot be given"),
        ({"idempotency_header": "Content-Length"}, "cannot be given"),
        ({"parameters": {"type": "array"}}, "not that of an object"),
        ({"description": "harmless\u200b"}, r"invisible character U\+200B"),
    ],
)
def test_a_request_that_cannot_be_a_tool(given: Mapping[str, Any], problem: str):
    with pytest.raises(UsageError, match=problem):
        HttpTool(**{"name": "look", "method": "GET", "url": "https://example.com/", **given})
