"""Where the tools of a deployment run: ``[sandbox]`` in ``opspawn.toml``, and catalogs in Python."""

import json
import os
import sys
from dataclasses import replace
from typing import Any, cast

import pytest

from agentkit import Agent, FunctionToolset
from agentkit.errors import ToolError
from agentkit.mcp import Pins
from agentkit.messages import ToolCall
from agentkit.sandbox import Confinement, Grants, HostRule
from agentkit.sandbox import Limits as CallLimits
from agentkit.testing import ScriptedModel
from agentkit.testing.toolsets import context
from agentkit.tools.lookups import Lookup, lookup_of
from agentkit.tools.sandboxed import ConfinedTool
from agentkit.transcript.steps import ToolReturned
from ops_core.assembly import open_ops, open_sandboxes, runnable
from ops_core.config.catalog import Catalog
from ops_core.config.loader import read_catalog
from ops_core.config.sandbox import Place, Sandboxing
from ops_core.errors import ConfigError
from ops_core.schemas.agent_description import describe_agent
from ops_core.settings import Settings, granted_secrets
from ops_core.task import DEFAULT_TENANT, NewTask

TOOLS = '''
import os
from dataclasses import dataclass
from pathlib import Path

from agentkit import ToolContext


def process() -> int:
    """Tell the process."""
    return os.getpid()


def read(path: str) -> str:
    """Read a file."""
    return Path(path).read_text()


def told() -> bool:
    """Whether there is a token."""
    return os.environ["TOOL_TOKEN"] == "abcdef-token"


def factory():
    def inner() -> int:
        """Tell the process."""
        return os.getpid()

    return inner


made = factory()


class Shop:
    """Made where it is used."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.token = os.environ.get("TOOL_TOKEN")


def shop_of(context: ToolContext[Shop]) -> list[str]:
    """Tell where the shop was made, and what it has."""
    return [str(context.deps.process == os.getpid()), str(context.deps.token)]


@dataclass
class Report:
    city: str
    celsius: float


forecast = Report
broken = 1 .__class__.__subclasses__
'''

PAYING = '''

from agentkit import tool
from agentkit.tools.lookups import ABSENT, found


def look_up(context: ToolContext[None], ledger: str) -> object:
    """Whether it was paid."""
    if context.idempotency_key not in os.listdir(ledger):
        return ABSENT
    receipt = (Path(ledger) / context.idempotency_key).read_text()
    return found({"receipt": receipt, "process": os.getpid()})


@tool(effect="unsafe", find=look_up)
def pay(context: ToolContext[None], ledger: str, amount: int) -> str:
    """Pay."""
    return "paid"
'''

FILE = """
[agents.worker]
tools = ["{module}:process", "{module}:read", "{module}:told", "everyday"]

[sandbox.limits]
seconds = 7

[sandbox.tools.read]
read = ["data"]
limits = {{ memory_bytes = 100_000_000 }}

[sandbox.tools.told]
secrets = ["TOOL_TOKEN"]
hosts = ["api.example.com", {{ host = "intranet", port = 8080, private = true }}]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with tools and a file that declares an agent with them; the module has a name of its own."""
    module = f"tools_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{module}.py").write_text(TOOLS)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "note.txt").write_text("noted")
    (tmp_path / "private.txt").write_text("private")
    (tmp_path / "opspawn.toml").write_text(FILE.format(module=module))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TOOL_TOKEN", "abcdef-token")
    return tmp_path


def module_of(folder):
    return next(folder.glob("tools_*.py")).stem


def test_what_a_file_says_of_tools(folder):
    told = read_catalog(folder / "opspawn.toml").sandboxing
    assert told.default == "pool"
    assert (told.limits, told.secrets) == (CallLimits(seconds=7), frozenset({"TOOL_TOKEN"}))
    assert told.tools["read"] == Confinement(
        limits=CallLimits(seconds=7, memory_bytes=100_000_000),
        grants=Grants(read=(folder / "data",)),
        folder=str(folder),
    )
    assert told.tools["told"].folder is None  # nothing there is granted to it
    intranet = HostRule(host="intranet", port=8080, private=True)
    assert told.tools["told"].grants.rules == (HostRule(host="api.example.com"), intranet)


@pytest.mark.parametrize(
    "more, message",
    [
        ("[sandbox.tools.no_such_tool]\ngranted = true", "no agent has a function, or program, no_such_tool"),
        ('[sandbox.tools.process]\nhosts = ["http://x"]', "sandbox.tools.process.*HOST"),
        ('[sandbox.tools.process]\nsandbox = "cellar"', "sandbox.tools.process.sandbox"),
        ("[sandbox.tools.process.limits]\nseconds = 0", "seconds"),
        ('[agents.other]\ntools = ["shell"]', "shell has to be granted"),
        (
            '[agents.other]\ntools = ["python"]\n[sandbox.tools.python]\nsandbox = "pool"',
            "jail, and nowhere else",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(folder, more, message):
    file = folder / "opspawn.toml"
    file.write_text(file.read_text() + "\n" + more)
    with pytest.raises(ConfigError, match=message):
        read_catalog(file)


@pytest.mark.parametrize(
    "more, named",
    [
        ('[sandbox.tools.process]\nwrite = ["."]', ["sandbox.tools.process", "configuration"]),
        ('[sandbox.tools.process]\nwrite = [".."]', ["sandbox.tools.process", "configuration"]),
        ('[sandbox.tools.process]\nwrite = ["opspawn.toml"]', ["sandbox.tools.process", "configuration"]),
        ('[sandbox.tools.process]\nwrite = ["opspawn.mcp.lock"]', ["approved MCP servers"]),
        ('[sandbox.tools.process]\nwrite = ["kept"]\n[mcp]\ntokens = "kept/tokens"', ["tokens"]),
        ('[sandbox.tools.process]\nread = ["kept"]\n[mcp]\ntokens = "kept/tokens"', ["for reading", "tokens"]),
        ('[sandbox.tools.process]\nread = ["kept/in"]\n[mcp]\ntokens = "kept"', ["for reading", "tokens"]),
        ('[sandbox.tools.process]\nwrite = ["kept/in"]\n[mcp]\ntokens = "kept"', ["for writing", "tokens"]),
        ('[mcp]\ntokens = "kept"\n[mcp.servers.s]\ncommand = "sh"\nread = ["kept"]', ["mcp.servers.s", "tokens"]),
        ('[mcp]\ntokens = "kept/in"\n[mcp.servers.s]\ncommand = "sh"\ncwd = "kept"', ["mcp.servers.s", "tokens"]),
        ('[sandbox.tools.process]\nwrite = ["data"]\n[tools.api]\nopenapi = "data/api.json"', ["OpenAPI"]),
        ('[sandbox.tools.process]\nwrite = ["kept"]\n[mcp.servers.s]\ncommand = "sh"\nread = ["kept/in"]',
         ["sandbox.tools.process", "mcp.servers.s"]),
        ('[sandbox.tools.process]\nread = ["kept/in"]\n[mcp.servers.s]\ncommand = "sh"\nwrite = ["kept"]',
         ["sandbox.tools.process", "mcp.servers.s"]),
        ('[sandbox.tools.process]\nwrite = ["kept"]\n[mcp.servers.s]\ncommand = "sh"\ncwd = "kept/in"',
         ["sandbox.tools.process", "mcp.servers.s"]),
        ('[sandbox.tools.process]\nwrite = ["kept"]\n[mcp.servers.s]\ncommand = "kept/server"',
         ["sandbox.tools.process", "mcp.servers.s"]),
    ],
)  # fmt: skip
def test_a_grant_over_what_is_trusted_or_granted_to_others_is_refused(folder, more, named):
    (folder / "kept" / "in").mkdir(parents=True)
    (folder / "kept" / "server").write_text("#!/bin/sh\n")
    (folder / "kept" / "server").chmod(0o755)
    (folder / "opspawn.mcp.lock").write_text(Pins().as_text())
    (folder / "data" / "api.json").write_text(
        json.dumps({"openapi": "3.1.0", "info": {}, "servers": [{"url": "https://a.example"}], "paths": {
            "/x": {"get": {"operationId": "look"}}}})
    )  # fmt: skip
    file = folder / "opspawn.toml"
    file.write_text(file.read_text() + "\n" + more)
    with pytest.raises(ConfigError, match="cannot be granted") as error:
        read_catalog(file)
    assert all(name in str(error.value) for name in named), error.value


@pytest.mark.parametrize("use", ["read", "write"])
@pytest.mark.parametrize("what", ["state", "state/tasks.db", "state/tasks.db-wal", "link"])
async def test_a_grant_over_the_store_is_refused(folder, use, what):
    (folder / "state").mkdir()
    (folder / "state" / "tasks.db").touch()
    (folder / "state" / "tasks.db-wal").touch()
    (folder / "link").symlink_to("state")
    file = folder / "opspawn.toml"
    file.write_text(file.read_text() + f'\n[sandbox.tools.process]\n{use} = ["{what}"]')
    settings = Settings(store_url=f"sqlite:///{folder}/state/tasks.db", config=file)
    with pytest.raises(ConfigError, match=r"sandbox.tools.process: .*the store"):
        async with open_ops(settings):
            pass


def test_a_secret_that_is_not_set_is_named():
    assert granted_secrets(["A"], {"A": "x", "B": "y"}) == {"A": "x"}
    with pytest.raises(ConfigError, match="B, C"):
        granted_secrets(["A", "C", "B"], {"A": "x", "B": ""})


@pytest.mark.skipif(sys.platform != "linux", reason="children are confined on Linux only")
class TestOnLinux:
    async def test_tools_of_a_file_run_in_the_pool(self, folder):
        catalog = read_catalog(folder / "opspawn.toml")
        async with open_sandboxes(catalog) as sandboxes:
            tools: Any = (await runnable(catalog, sandboxes)).get("worker").agent.tools
            toolset = FunctionToolset(tools)

            async def call(name, **arguments):
                return await toolset.call(ToolCall(id="c", name=name, arguments=arguments), context())

            assert await call("process") != os.getpid()
            assert await call("told") is True
            assert await call("read", path=str(folder / "data" / "note.txt")) == "noted"
            with pytest.raises(ToolError, match="read failed with FileNotFoundError"):
                await call("read", path=str(folder / "private.txt"))
            assert await call("calculator", expression="6*7") == 42
        confined = {tool.name for tool in tools if isinstance(tool, ConfinedTool)}
        assert confined == {"process", "read", "told"}  # the built-in ones are trusted

    async def test_a_look_up_of_the_file_runs_where_its_tool_runs(self, folder):
        module, file = module_of(folder), folder / "opspawn.toml"
        with (folder / f"{module}.py").open("a") as more:
            more.write(PAYING)
        sys.modules.pop(module, None)
        (folder / "data" / "key-1").write_text("4711")
        file.write_text(f'[agents.worker]\ntools = ["{module}:pay"]\n[sandbox.tools.pay]\nread = ["data"]\n')
        catalog = read_catalog(file)
        async with open_sandboxes(catalog) as sandboxes:
            (tool,) = (await runnable(catalog, sandboxes)).get("worker").agent.tools
            assert isinstance(tool, ConfinedTool)
            toolset = FunctionToolset([tool])

            async def find(key, folder_=folder / "data"):
                call = ToolCall(id="c", name="pay", arguments={"ledger": str(folder_), "amount": 3})
                assert toolset.finds(call)
                return await toolset.find(call, replace(context(), idempotency_key=key))

            told = lookup_of(await find("key-1"))
            assert told is not None
            assert told.took_effect
            assert isinstance(told.output, dict)
            assert told.output["receipt"] == "4711"
            assert told.output["process"] != os.getpid()
            assert lookup_of(await find("key-2")) == Lookup(took_effect=False)
            hidden = lookup_of(
                await find("private.txt", folder)
            )  # what was not granted is not there for it, either
            assert hidden == Lookup(took_effect=False)

    async def test_what_cannot_be_confined_is_not_run(self, folder):
        file = folder / "opspawn.toml"
        file.write_text(f'[agents.worker]\ntools = ["{module_of(folder)}:made"]')
        catalog = read_catalog(file)
        async with open_sandboxes(catalog) as sandboxes:
            with pytest.raises(ConfigError, match=r"tool inner cannot run in the pool.*inprocess"):
                await runnable(catalog, sandboxes)
        file.write_text(f'{file.read_text()}\n[sandbox]\ndefault = "inprocess"')
        async with open_sandboxes(read_catalog(file)) as sandboxes:
            assert (await runnable(read_catalog(file), sandboxes)).names == ("worker",)

    async def test_a_run_of_a_worker_calls_its_tool_in_the_pool(self, folder):
        process = __import__(module_of(folder)).process
        settings = Settings(store_url="sqlite://", poll_seconds=0.05, grace_seconds=0.5)
        cases: tuple[tuple[Place, bool], ...] = (("pool", True), ("inprocess", False))
        for default, elsewhere in cases:
            model = ScriptedModel.by_turn([ToolCall(id="a", name="process"), "Told."])
            agents = [Agent(model, name="worker", tools=[process])]
            catalog = Catalog(agents, sandboxing=Sandboxing(default=default))
            async with open_ops(settings, catalog) as ops, ops.working():
                task = (await ops.engine.submit(NewTask(agent="worker", input="go"))).task
                await ops.engine.until_ended(DEFAULT_TENANT, task.id, 20)
                steps = [each.step for each in await ops.engine.steps(DEFAULT_TENANT, task.id)]
            (returned,) = [step for step in steps if isinstance(step, ToolReturned)]
            assert isinstance(returned.output, int)
            assert (returned.output != os.getpid()) is elsewhere

    @pytest.mark.parametrize("place, token", [("pool", "None"), ("inprocess", "abcdef-token")])
    async def test_dependencies_of_the_file_are_made_where_the_tool_runs(self, folder, place, token):
        file, module = folder / "opspawn.toml", module_of(folder)
        file.write_text(
            f'[agents.worker]\ntools = ["{module}:shop_of"]\ndeps = "{module}:Shop"\n'
            f'[sandbox]\ndefault = "{place}"\n'
        )
        catalog = read_catalog(file)
        async with open_sandboxes(catalog) as sandboxes:
            served = (await runnable(catalog, sandboxes)).get("worker")
            assert (served.deps is None) is (
                place == "pool"
            )  # made here where it is needed here, and only then
            toolset = FunctionToolset(served.agent.tools)  # type: ignore[arg-type]  # functions only
            given = replace(context(), deps=served.deps)
            found = await toolset.call(ToolCall(id="c", name="shop_of", arguments={}), given)
        assert found == ["True", token]  # a secret that was not granted stays with the worker

    async def test_dependencies_that_cannot_be_made_are_told(self, folder):
        file, module = folder / "opspawn.toml", module_of(folder)
        (folder / f"{module}.py").write_text(
            TOOLS + "\n\ndef fails():\n    raise RuntimeError('no shop today')\n"
        )
        sys.modules.pop(module, None)
        file.write_text(
            f'[agents.worker]\ntools = ["{module}:shop_of"]\ndeps = "{module}:fails"\n'
            '[sandbox]\ndefault = "inprocess"\n'
        )
        catalog = read_catalog(file)
        async with open_sandboxes(catalog) as sandboxes:
            with pytest.raises(
                ConfigError, match=rf"{module}:fails breaks.*RuntimeError at .*: no shop today"
            ):
                await runnable(catalog, sandboxes)


async def test_the_type_of_the_output_is_declared_and_told(folder):
    file, module = folder / "opspawn.toml", module_of(folder)
    file.write_text(f'[agents.worker]\noutput = "{module}:forecast"\n')
    served = read_catalog(file).get("worker")
    assert served.agent.output.__name__ == "Report"
    told = await describe_agent(served)
    assert told.output_schema is not None
    assert set(cast("dict[str, Any]", told.output_schema["properties"])) == {"city", "celsius"}


@pytest.mark.parametrize("key", ["output", "deps"])
@pytest.mark.parametrize("path", ["no_such_module:x", "{module}:nothing", "not a path"])
def test_an_output_or_dependencies_that_do_not_exist_are_refused(folder, key, path):
    file = folder / "opspawn.toml"
    file.write_text(f'[agents.worker]\n{key} = "{path.format(module=module_of(folder))}"\n')
    with pytest.raises(ConfigError, match=rf"agents.worker.{key}"):
        read_catalog(file)


def test_what_cannot_be_an_output_is_refused(folder):
    file = folder / "opspawn.toml"
    file.write_text(f'[agents.worker]\noutput = "{module_of(folder)}:broken"\n')
    with pytest.raises(ConfigError, match=r"agents.worker.output: .*:broken cannot be the type of an output"):
        read_catalog(file)
