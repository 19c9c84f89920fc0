"""The program itself: what it loads, what it says about itself, its documentation."""

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ops_core import __version__
from ops_core.cli.exit_codes import MEANINGS
from ops_core.settings import PREFIX, Settings

REFERENCE = Path(__file__).parents[4] / "docs" / "reference"
COMMANDS = [
    *("run", "submit", "list", "show", "watch", "thread list", "thread show", "thread delete"),
    *("memory list", "memory recall", "memory forget"),
    *("mcp list", "mcp inspect", "mcp approve", "mcp login", "mcp logout", "mcp serve", "mcp test"),
    *(
        "cancel",
        "retry",
        "approvals",
        "approve",
        "deny",
        "settle",
        "halt",
        "halts",
        "lift",
        "agents",
        "workers",
    ),
    *("serve", "worker", "migrate", "purge", "spending", "doctor"),
]
SLOW_TO_LOAD = {
    "agentkit",
    "alembic",
    "fastapi",
    "httpx2",
    "pydantic",
    "rich",
    "sqlalchemy",
    "starlette",
    "uvicorn",
}


def modules_of(*arguments: str, directory: Path | None = None) -> set[str]:
    """The modules that are loaded when a command has ended."""
    script = (
        "import atexit, sys; from ops_core.cli import main\n"
        f"sys.argv = ['opspawn', *{arguments!r}]\n"
        "atexit.register(lambda: print('MODULES', *sys.modules, file=sys.stderr))\n"
        "main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=directory
    )
    return set(ended.stderr.partition("MODULES ")[2].split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_loads_nothing_that_is_slow(arguments: list[str]):
    loaded = modules_of(*arguments)
    assert "ops_core.cli" in loaded
    assert not SLOW_TO_LOAD & loaded


def test_help_of_a_command_loads_nothing_that_is_slow():
    # one process for all of them: what any of them loads stays loaded
    script = (
        "import contextlib, io, sys\n"
        "from ops_core.cli.app import app\n"
        f"for command in {COMMANDS!r}:\n"
        "    text = io.StringIO()\n"
        "    with contextlib.redirect_stdout(text):\n"
        "        app([*command.split(), '--help'], prog_name='opspawn', standalone_mode=False)\n"
        "    assert text.getvalue().startswith(f'Usage: opspawn {command} '), (command, text.getvalue())\n"
        f"    slow = {SLOW_TO_LOAD - {'pydantic'}!r} & {{*sys.modules}}\n"  # typer loads pydantic where it is
        "    assert not slow, (command, slow)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_command_that_asks_a_server_loads_no_store():
    loaded = modules_of("list", "--url", "http://127.0.0.1:9")
    assert "ops_core.client.http" in loaded
    assert not {"sqlalchemy", "ops_core.assembly", "agentkit.agent"} & loaded


def test_a_command_that_reads_the_store_loads_no_agent(opspawn):
    opspawn("submit", "go", "--agent", "measurer")
    loaded = modules_of("list", directory=opspawn.directory)
    assert "ops_core.stores.store" in loaded
    assert not {"ops_core.assembly", "agentkit.agent", "prometheus_client", "httpx2"} & loaded


def test_it_says_its_version(opspawn):
    assert opspawn("--version").stdout == f"opspawn {__version__}\n"


def test_without_a_command_it_shows_its_commands(opspawn):
    done = opspawn(code=2)
    assert {command.partition(" ")[0] for command in COMMANDS} <= set(
        re.findall(r"^  ([a-z]+) ", done.stdout + done.stderr, re.MULTILINE)
    )


def test_help_tells_what_each_command_does_in_whole_sentences(opspawn):
    text = opspawn("--help").stdout
    assert "  submit     Hand in a goal, for a worker to carry out; prints the task's id.\n" in text
    assert "..." not in text.replace("[ARGS]...", "")
    assert max(map(len, text.splitlines())) <= 80


# --- documentation ------------------------------------------------------------------------------------------------


def test_the_reference_shows_every_command_as_its_help_does(opspawn):
    page = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^## opspawn ([a-z ]+)\n\n```text\n(.*?)```$", page, re.MULTILINE | re.DOTALL))
    assert list(shown) == COMMANDS
    for command in COMMANDS:
        assert shown[command] == opspawn(*command.split(), "--help").stdout


def test_the_reference_lists_every_exit_code():
    page = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE)
    assert listed == [(str(code.value), meaning) for code, meaning in MEANINGS.items()]


def test_the_reference_lists_every_setting():
    page = (REFERENCE / "settings.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(OPSPAWN_[A-Z_]+)` \| (.*?) \| (.*) \|$", page, re.MULTILINE)
    assert listed == [
        (f"{PREFIX}{name.upper()}", "" if field.default is None else f"`{field.default}`", field.description)
        for name, field in Settings.model_fields.items()
    ]


# --- doctor and migrate -------------------------------------------------------------------------------------------


def findings(opspawn, code=0, **env):
    return {found["name"]: found for found in opspawn.json("doctor", code=code, **env)}


def test_doctor_looks_and_changes_nothing(opspawn):
    found = findings(opspawn, OPSPAWN_APP="")
    assert found["file"]["state"] == "ok"
    assert found["assistant"]["text"] == "offline:planner can be opened"
    assert found["store_url"]["text"].endswith("(default)")
    assert list(opspawn.directory.iterdir()) == []


def test_doctor_warns_of_an_sqlite_that_may_damage_a_store(opspawn):
    state = "ok" if sqlite3.sqlite_version_info >= (3, 51, 3) else "warning"
    assert findings(opspawn, OPSPAWN_APP="")["SQLite"]["state"] == state


def test_doctor_says_where_a_setting_comes_from_and_no_secret(opspawn):
    env = {
        "OPSPAWN_APP": "",
        "OPSPAWN_URL": "http://me:hunter2@127.0.0.1:9/?token=hunter2",
        "OPSPAWN_PORT": "1",
    }
    done = opspawn("doctor", code=1, **env)
    assert "hunter2" not in done.stdout + done.stderr
    assert "1 (OPSPAWN_PORT)" in done.stdout


def test_doctor_finds_what_is_missing(opspawn):
    found = findings(opspawn, code=1)
    assert (found["keyless"]["state"], found["sender"]["state"]) == ("missing", "ok")
    assert findings(opspawn, code=1, OPSPAWN_APP="no.such:app")["declared in"]["state"] == "missing"
    assert findings(opspawn, code=1, OPSPAWN_PORT="x")["environment"]["state"] == "missing"
    (opspawn.directory / "opspawn.db").write_text(
        "no database, but long enough to be taken for a damaged one" * 99
    )
    assert findings(opspawn, code=1, OPSPAWN_APP="")["usable"]["state"] == "missing"


def test_doctor_sees_tasks_of_a_worker_that_is_gone(opspawn):
    running = opspawn.start("run", "go", "--agent", "holder", "--json", OPSPAWN_LEASE_SECONDS="1")
    opspawn.file("begun")
    assert findings(opspawn, code=1)["leases"]["text"] == "1 task running on 1 worker"
    running.kill()
    running.wait()
    with sqlite3.connect(opspawn.directory / "opspawn.db") as connection:
        connection.execute("UPDATE task SET lease_until = 1")
    connection.close()
    assert findings(opspawn, code=1)["leases"]["state"] == "warning"


def test_doctor_reaches_the_server(opspawn):
    with opspawn.serving(OPSPAWN_APP="") as url:
        assert findings(opspawn, OPSPAWN_APP="", OPSPAWN_URL=url)["ready"]["state"] == "ok"


def test_the_commands_and_doctor_go_through_grpc_too(opspawn):
    with opspawn.serving("grpc") as url:
        opspawn.env |= {"OPSPAWN_URL": url, "OPSPAWN_STORE_URL": "sqlite:////nowhere/x.db"}
        *steps, task = opspawn.json("submit", "go", "--agent", "measurer", "--wait")
        assert task["status"] == "completed"
        assert opspawn.json("show", task["id"]) == [*steps, task]
        assert opspawn.json("list", "--agent", "measurer") == [task]
        found = findings(opspawn, code=1)  # the store is nowhere
        assert (found["ready"]["state"], found["gRPC"]["state"]) == ("ok", "ok")
    refused = opspawn("show", task["id"], code=69)
    assert f"{url} does not answer" in refused.stderr
    assert findings(opspawn, code=1)["ready"]["state"] == "missing"


def test_migrations_can_be_left_to_a_person(opspawn):
    env = {"OPSPAWN_AUTO_MIGRATE": "false"}
    assert "opspawn migrate" in opspawn("run", "go", "--agent", "measurer", code=69, **env).stderr
    assert findings(opspawn, code=1, OPSPAWN_APP="", **env)["schema"]["state"] == "missing"
    assert "no schema" in opspawn("migrate", "--check", code=1).stdout
    assert "migrated" in opspawn("migrate").stdout
    assert "up to date" in opspawn("migrate", "--check").stdout
    opspawn("run", "go", "--agent", "measurer", **env)


def test_serve_says_where_it_is_and_listens_here_only(opspawn):
    assert "OPSPAWN_HOST" in opspawn("serve", "--host", "0.0.0.0", code=2).stderr
    with opspawn.serving() as url:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        port = url.rpartition(":")[2]
        assert "cannot listen" in opspawn("serve", "--port", port, code=2).stderr


def test_agents_may_be_declared_in_a_file(opspawn):
    (opspawn.directory / "opspawn.toml").write_text(
        '[agents.adder]\nmodel = "offline:planner"\ntools = ["everyday"]\n'
    )
    assert [agent["name"] for agent in opspawn.json("agents", OPSPAWN_APP="")] == ["adder"]
    assert json.dumps(opspawn.json("run", "What is 6 * 7?", OPSPAWN_APP="")[-1]["output"]).count("42")
    (opspawn.directory / "opspawn.toml").write_text("[agents.adder]\nmodle = 1\n")
    assert "modle" in opspawn("run", "x", code=2, OPSPAWN_APP="").stderr
