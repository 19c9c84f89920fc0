"""What a sandbox refuses is told with the setting that grants it, and what a call leaves behind is told as well."""

import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agentkit import Agent, FunctionToolset, ToolError
from agentkit.messages import ToolCall
from agentkit.sandbox import CallTerms, Confinement, FunctionRaised, Grants, HostRule, Sandboxes
from agentkit.sandbox.remarks import left_behind, refusals
from agentkit.testing import ScriptedModel
from agentkit.testing.toolsets import context
from agentkit.tools import Tool
from agentkit.tools.sandboxed import confined
from agentkit.transcript.steps import ToolReturned

from .sandbox_support import BACKENDS, HERE, opened  # type: ignore[import-not-found]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children are confined on Linux only")

TERMS = CallTerms(name="weather")


@pytest.fixture(params=BACKENDS)
async def box(request):
    async with opened(request.param) as box:
        yield box


async def call(box, name, terms=TERMS, **arguments):
    return await box.call_on(f"sandboxed.honest:{name}", arguments, terms)


@pytest.mark.parametrize("how", ["http", "asyncio", "socket", "plain"])
@pytest.mark.parametrize("granted", [(), (HostRule(host="other.example"),)], ids=["nothing", "another"])
async def test_a_host_that_was_not_granted_is_named(box, how, granted):
    terms = replace(TERMS, grants=Grants(hosts=granted))
    host = "example.com" if how != "socket" else "192.0.2.7"
    with pytest.raises(FunctionRaised) as error:
        await call(box, "connect", terms, host=host, port=8443, how=how)
    told = str(error.value)
    assert told.startswith(
        "weather raised RuntimeError: all connection attempts failed. The sandbox refused: network: "
    )
    assert "not granted, see [sandbox.tools.weather] hosts" in told or "no host was granted, see" in told
    if how != "socket":
        assert f"{host}:8443 was not granted" in told


async def test_a_granted_host_with_a_private_address_is_another_matter(box):
    if box.name == "jail":
        pytest.skip("a jail cannot tell: its door stays shut")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        terms = replace(TERMS, grants=Grants(hosts=(f"localhost:{port}",)))
        with pytest.raises(
            FunctionRaised, match=r"not public, see \[sandbox.tools.weather\] hosts with private"
        ):
            await call(box, "connect", terms, host="localhost", port=port, how="plain")


async def test_what_was_refused_is_kept_also_where_the_function_went_on(box):
    returned = await call(box, "connect", host="example.com", port=443, how="swallowed")
    assert returned.value == "went on"
    assert returned.refused == (
        "network: example.com:443 was not granted, see [sandbox.tools.weather] hosts",
    )
    assert (await call(box, "add", a=1, b=2)).refused == ()


async def test_a_path_that_was_not_granted_is_named(box, tmp_path):
    (tmp_path / "shown").mkdir()
    (tmp_path / "hidden.txt").write_text("hidden")
    terms = replace(TERMS, grants=Grants(read=(tmp_path / "shown",)))
    for path in (tmp_path / "hidden.txt", Path("/srv/hidden.txt"), Path("/etc/shadow")):
        with pytest.raises(FunctionRaised) as error:
            await call(box, "read", terms, path=str(path))
        assert f"file: {path} was not granted" in str(error.value)
        assert "see [sandbox.tools.weather] read" in str(error.value)
    with pytest.raises(FunctionRaised) as error:
        await call(box, "keep", terms, path=str(tmp_path / "shown" / "new.txt"), text="x")
    assert "was granted for reading only, see [sandbox.tools.weather] write" in str(error.value)
    with pytest.raises(FunctionRaised) as error:  # it could be there, and is not
        await call(box, "read", terms, path=str(tmp_path / "shown" / "none.txt"))
    assert "granted" not in str(error.value)


async def test_files_that_end_with_the_call_are_told(box):
    returned = await call(box, "keep", path="/tmp/out/oslo.txt", text="cold")
    assert (
        "1 file written to the sandbox's own folder /tmp ended with the call: out/oslo.txt" in returned.left
    )
    assert "see [sandbox.tools.weather] write" in returned.left
    assert (await call(box, "keep", path="/tmp/.cache/settings", text="x")).left == ""
    assert (await call(box, "own_files")).left.count("file") or True


async def test_a_relative_path_is_of_the_folder_that_is_named(box, tmp_path):
    (tmp_path / "out").mkdir(mode=0o777)
    (tmp_path / "out").chmod(0o777)
    terms = replace(TERMS, grants=Grants(write=(tmp_path / "out",)), folder=str(tmp_path))
    returned = await call(box, "keep", terms, path="out/oslo.txt", text="cold")
    assert (returned.value, returned.left) == (str(tmp_path / "out" / "oslo.txt"), "")
    assert (tmp_path / "out" / "oslo.txt").read_text() == "cold"


async def test_the_model_and_the_step_are_told(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    honest = __import__("sandboxed.honest").honest
    tools = [Tool(honest.keep, name="write_file")]
    async with Sandboxes(path=[str(HERE), *sys.path]) as sandboxes:
        model = ScriptedModel.by_turn(
            [ToolCall(id="a", name="write_file", arguments={"path": "oslo.txt", "text": "cold"}), "Done."]
        )
        agent = Agent(model, tools=confined(tools, sandboxes))
        outcome = await agent.run("go")
        (returned,) = [each.step for each in outcome.transcript if isinstance(each.step, ToolReturned)]
        assert "oslo.txt; for files that stay, see [sandbox.tools.write_file] write" in returned.remark
        assert returned.remark in str(model.requests[-1].messages)
        toolset = FunctionToolset(confined(tools, sandboxes))
        missing = ToolCall(id="c", name="write_file", arguments={"path": "/srv/none.txt", "text": "cold"})
        with pytest.raises(
            ToolError, match=r"/srv\S* was not granted, see \[sandbox.tools.write_file\] read"
        ):
            await toolset.call(missing, context())


@pytest.mark.parametrize(
    "envelope",
    [
        {"hosts": "x", "paths": {"a": 1}, "left": "x"},
        {"hosts": [1, None], "paths": [[1, 2], "x", ["a"]], "left": [-1, ["a"]]},
        {"left": [3, []]},
        {"left": [1, "names"]},
        {"left": ["1", ["a"]]},
    ],
)
def test_a_child_that_lies_about_them_is_not_relied_on(envelope):
    assert refusals(envelope, TERMS) == ()
    assert left_behind(envelope, TERMS) == ""


def test_what_a_child_says_is_bounded_and_has_no_control_characters():
    many = {"hosts": ["\x1b[2J" + "h" * 10_000] * 1000 + ["x"] * 1000, "left": [9, ["\u202e" * 5000] * 50]}
    assert sum(map(len, refusals(many, TERMS))) < 5000
    assert "\x1b" not in "".join(refusals(many, TERMS))
    assert len(left_behind(many, TERMS)) < 20_000
    assert "\u202e" not in left_behind(many, TERMS)


def test_a_confinement_says_where_relative_paths_begin():
    assert Confinement(folder="/srv/shop").folder == "/srv/shop"
