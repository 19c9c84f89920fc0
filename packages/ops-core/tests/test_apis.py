"""``[tools.NAME]`` in opspawn.toml: requests and OpenAPI documents as tools, against a real server."""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentkit import Agent
from agentkit.errors import BadArguments
from agentkit.messages import Effect, ToolCall
from agentkit.testing import ScriptedModel
from agentkit.tools import HttpToolset
from agentkit.transcript.steps import ToolReturned
from ops_core.assembly import runnable
from ops_core.cli.doctor.command import examine
from ops_core.cli.exit_codes import Exit
from ops_core.config.loader import read_catalog
from ops_core.errors import ConfigError

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "servers": [{"url": "https://shop.example.com/v1"}],
    "paths": {
        "/orders/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
            "get": {"operationId": "getOrder", "summary": "Look an order up."},
            "delete": {"operationId": "cancelOrder", "tags": ["danger"]},
        },
        "/orders": {"post": {"operationId": "order"}},
    },
}

FILE = """
[tools.shop]
openapi = "shop.json"
base_url = "http://127.0.0.1:{port}/v1"
operations = ["*", "!tag:danger"]
prefix = "shop_"
effects = {{ shop_order = "idempotent" }}
headers = {{ Authorization = "Bearer ${{SHOP_TOKEN}}" }}
private = true

[tools.pay]
url = "http://127.0.0.1:{port}/accounts/{{account}}/payments"
method = "POST"
description = "Pay an invoice."
idempotency_header = "Idempotency-Key"
private = true
call_seconds = 45

[tools.pay.parameters]
type = "object"
required = ["account", "cents"]
additionalProperties = false
properties = {{ account = {{ type = "string" }}, cents = {{ type = "integer" }} }}

[tools.weather]
url = "http://127.0.0.1:{port}/weather/{{city}}"

[tools.off]
openapi = "nowhere.json"
headers = {{ Key = "${{NOBODY_SETS_THIS}}" }}
enabled = false

[agents.clerk]
tools = ["shop", "off"]

[agents.payer]
tools = ["pay", "weather"]

[agents.payer.policy]
ask = ["weather"]
"""


class Api:
    """A server on loopback that tells what it was asked."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[tuple[str, dict[str, str], str]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        parts = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _colon, value in parts}
        body = (await reader.readexactly(int(headers.get("content-length", "0")))).decode()
        self.asked.append((first.rpartition(" ")[0], headers, body))
        told = json.dumps({"asked": first, "as": headers.get("authorization")}).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(told)}\r\n\r\n"
        writer.write(head.encode() + told)
        await writer.drain()
        writer.close()


@pytest.fixture
async def api() -> AsyncGenerator[Api]:
    made = Api()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


@pytest.fixture
def file(tmp_path: Path, api: Api) -> Path:
    (tmp_path / "shop.json").write_text(json.dumps(DOCUMENT))
    (tmp_path / "opspawn.toml").write_text(FILE.format(port=api.port))
    return tmp_path / "opspawn.toml"


async def called(agent: Agent[Any, Any], name: str, **arguments: Any) -> ToolReturned:
    """What an agent of a file is told, when its model makes this call."""
    model = ScriptedModel([ToolCall(id="1", name=name, arguments=arguments), "done"])
    outcome = await replace(agent, model=model).run("go")
    return next(
        each.step for each in outcome.transcript if isinstance(each.step, ToolReturned)
    )  # its call is the only one


async def test_requests_and_documents_are_tools_of_the_agents_that_name_them(file: Path, api: Api):
    environ = {"SHOP_TOKEN": "first-token-123"}
    catalog = read_catalog(file, environ)
    clerk, payer = catalog.get("clerk").agent, catalog.get("payer").agent
    (shop,) = clerk.tools
    assert isinstance(shop, HttpToolset)
    assert [(spec.name, spec.effect) for spec in await shop.specs()] == [
        ("shop_getOrder", Effect.PURE),
        ("shop_order", Effect.IDEMPOTENT),
    ]
    pay, weather = [spec for toolset in payer.tools for spec in await toolset.specs()]
    assert (pay.effect, pay.timeout_seconds, pay.description) == (Effect.IDEMPOTENT, 45, "Pay an invoice.")
    assert (weather.effect, weather.parameters["required"]) == (Effect.PURE, ["city"])

    returned = await called(clerk, "shop_getOrder", id="7")
    assert returned.output == {"asked": "GET /v1/orders/7 HTTP/1.1", "as": "[secret Authorization]"}
    environ["SHOP_TOKEN"] = "second-token-123"  # looked at in each call
    await called(clerk, "shop_getOrder", id="8")
    assert [headers["authorization"] for _first, headers, _body in api.asked] == [
        "Bearer first-token-123",
        "Bearer second-token-123",
    ]
    await called(payer, "pay", account="a b", cents=5)
    first, headers, body = api.asked[-1]
    assert (first, body) == ("POST /accounts/a%20b/payments", '{"cents": 5}')
    assert headers["idempotency-key"].endswith(":1")


async def test_without_private_nothing_on_this_machine_is_reached(file: Path, api: Api):
    file.write_text(file.read_text().replace('[agents.payer.policy]\nask = ["weather"]', ""))
    returned = await called(read_catalog(file).get("payer").agent, "weather", city="oslo")
    assert returned.error is not None
    assert "not public" in returned.error.message
    assert api.asked == []


async def test_a_missing_variable_stops_only_the_agents_that_need_it(
    file: Path, api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    problem = "tool shop_getOrder: headers.Authorization: the variable SHOP_TOKEN is not set"
    catalog = read_catalog(file, {})
    assert (await runnable(catalog)).names == ("payer",)
    returned = await called(catalog.get("clerk").agent, "shop_getOrder", id="7")
    assert returned.error is not None
    assert returned.error.message == problem
    assert api.asked == []
    assert (await runnable(read_catalog(file, {"SHOP_TOKEN": "x"}))).names == ("clerk", "payer")

    monkeypatch.chdir(file.parent)
    for name in ("OPSPAWN_APP", "OPSPAWN_CONFIG", "SHOP_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert await examine(url=None, as_json=True) is Exit.FAILED
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    agents = {each["name"]: each["text"] for each in found if each["about"] == "Agents"}
    assert problem in agents["clerk"]
    assert agents["payer"].endswith("can be opened")


async def test_arguments_that_a_person_has_written_are_looked_at_too(file: Path):
    clerk = read_catalog(file, {}).get("clerk").agent
    with pytest.raises(BadArguments, match="nr: there is no such argument"):
        await clerk.examine(ToolCall(id="1", name="shop_getOrder", arguments={"id": "7", "nr": 8}))


@pytest.mark.parametrize(
    "more, words",
    [
        ('openapi = "shop.json"\nurl = "http://x/"', ["either openapi or url"]),
        ("private = true", ["either openapi or url"]),
        ('openapi = "shop.json"\nmethod = "PUT"', ["method: not for one with openapi"]),
        ('url = "http://x/"\nprefix = "x"', ["prefix: not for one with url"]),
        ('url = "http://${HOST}/"', ["only headers take ${NAME}"]),
        ('openapi = "https://example.com/api.json"', ["a file, not a URL"]),
        ('openapi = "nowhere.json"', ["nowhere.json cannot be read"]),
        ('openapi = "shop.json"\noperations = ["none"]', ["no operation that is included"]),
        ('url = "ftp://x/"', ["https or http"]),
        ('url = "http://x:99999/"', ["https or http"]),
        (
            'url = "http://x/{a}"\nparameters = { type = "object", additionalProperties = false }',
            ["a stands"],
        ),
        ('url = "http://x/"\nmethod = "FETCH"', ["method"]),
        ('url = "http://x/"\ncall_seconds = 0', ["call_seconds"]),
        ('url = "http://x/"\nheaders = { A = "b\\nc" }', ["header A holds a character"]),
    ],
)
def test_what_cannot_be_a_tool_is_named(file: Path, more: str, words: list[str]):
    file.write_text(f"{file.read_text()}\n[tools.new]\n{more}\n")
    with pytest.raises(ConfigError) as refused:
        read_catalog(file, {})
    for word in (str(file), "tools.new", *words):
        assert word in str(refused.value)


@pytest.mark.parametrize(
    "more, words",
    [
        ('[tools.python]\nurl = "http://x/"', ["tools.python", "taken"]),
        ('[tools."a b"]\nurl = "http://x/"', ["tools.a b", "letters, digits"]),
        ('[agents.new]\ntools = ["shopp"]', ["agents.new.tools.0", "'shopp'", "shop, pay, weather"]),
        ('[agents.new]\ntools = ["pay", "pay"]', ["agents.new.tools", "two tools are called pay"]),
        ('[agents.new]\ntools = ["pay"]\npolicy = { ask = ["pya"] }', ["policy.ask.0", "no tool 'pya'"]),
        (
            '[agents.new]\ntools = ["pay"]\npolicy.rules = [{ tools = ["pay"], argument = "euros", at_most = 1 }]',
            ["rules.0.argument", "no argument 'euros'", "account, cents"],
        ),
        ("[sandbox.tools.pay]\ngranted = true", ["sandbox.tools", "no agent has a function", "pay"]),
    ],
)
def test_names_that_are_wrong_are_named(file: Path, more: str, words: list[str]):
    file.write_text(f"{file.read_text()}\n{more}\n")
    with pytest.raises(ConfigError) as refused:
        read_catalog(file, {})
    for word in words:
        assert word in str(refused.value)
