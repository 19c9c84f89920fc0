"""Small things that a person at the command line meets every day."""

import json
import re
import subprocess
import sys
from codecs import BOM_UTF8

import pytest

from agentkit.messages import ToolCall
from agentkit.transcript.steps import (
    ApprovalAsked,
    ApprovalGiven,
    ModelReplied,
    Recorded,
    ToolReturned,
    ToolStarted,
)
from ops_core import __version__
from ops_core.cli.doctor.command import _print_finding, _sqlite
from ops_core.cli.doctor.finding import Finding
from ops_core.cli.task_ids import shortened
from ops_core.cli.terminal.screen import Screen
from ops_core.cli.terminal.step_lines import Narrator
from ops_core.settings import Settings


@pytest.fixture
def tasks(opspawn):
    """The program, and the ids of three tasks, the oldest first."""
    return opspawn, [opspawn("submit", f"goal {n}", "--agent", "measurer").stdout.strip() for n in range(3)]


def test_the_beginning_of_an_id_is_enough_and_last_is_the_newest(tasks):
    opspawn, ids = tasks
    assert opspawn.json("show", ids[0][:-3])[-1]["id"] == ids[0]
    assert opspawn.json("show", "last")[-1]["id"] == ids[2]
    cancelled = opspawn.json("cancel", ids[1][:-1].upper())[-1]
    assert (cancelled["id"], cancelled["status"]) == (ids[1], "cancelled")
    done = opspawn("run", "--resume", ids[0][:-2])
    assert "completed" in done.stdout


def test_a_dash_is_the_newest_task_for_every_command(opspawn):
    first, second = (opspawn("submit", "go", "--agent", "measurer").stdout.strip() for _ in range(2))
    assert opspawn.json("show", "-")[-1]["id"] == second
    (halt,) = opspawn.json("halt", "task", "-")
    assert halt["target"] == second
    assert "cancelled" in opspawn("cancel", "-").stdout
    (retried,) = opspawn.json("retry", "-")
    assert opspawn.json("show", "-")[-1]["id"] == retried["id"]
    assert [opspawn.status(task) for task in (first, second)] == ["pending", "cancelled"]


def test_a_halt_takes_the_beginning_of_an_id(opspawn):
    task = opspawn("submit", "go", "--agent", "measurer").stdout.strip()
    (halt,) = opspawn.json("halt", "task", task[:13])
    assert halt["target"] == task
    assert "there is no task" in opspawn("halt", "task", "00000000", code=3).stderr


def test_a_beginning_that_fits_several_or_none_is_refused(tasks):
    opspawn, ids = tasks
    shared = ids[0][:8]
    several = opspawn("cancel", shared, code=2)
    assert f"several tasks begin with {shared}" in several.stderr
    assert all(each in several.stderr for each in ids)
    assert (
        "there is no task of this id: none of the newest 1000 begins with ffffffff"
        in opspawn("show", "ffffffff", code=3).stderr
    )
    assert opspawn("cancel", "last", code=3).stderr  # what changes something names its task
    assert [task["status"] for task in opspawn.json("list")] == ["pending"] * 3


def test_several_statuses_stand_in_one_option(tasks):
    opspawn, ids = tasks
    opspawn("cancel", ids[0])
    assert len(opspawn.json("list", "--status", "pending,cancelled")) == 3
    assert len(opspawn.json("list", "--status", "running,cancelled", "--status", "waiting")) == 1
    assert "status" in opspawn("list", "--status", "pending,nope", code=2).stderr


def test_columns_have_names_on_a_terminal_and_narrow_ones_show_beginnings(tasks):
    opspawn, ids = tasks
    opspawn("run", "go", "--agent", "measurer")
    for columns in (80, 140):
        shown = opspawn.terminal("list", columns=columns)
        shown.expect_exact("GOAL")
        assert re.search(r"ID +STATUS +AGENT +AGE +TOOK +", shown.before)
        shown.expect_exact("goal 0" if columns == 80 else ids[0])
        shown.wait()
    assert "AGE" not in opspawn("list").stdout  # a script reads the tasks alone
    assert set(ids) <= set(opspawn("list").stdout.split())


def test_ids_are_cut_where_they_still_differ():
    ids = [
        "01a22df7-b898-7680-8d6d-7b50aecf2c91",
        "01a22df7-b898-7680-8d6d-7b50aecf2c92",
        "01a22df8-0000-7680",
    ]
    short = shortened(ids)
    assert len(set(short)) == 3
    assert all(each.startswith(part) for each, part in zip(ids, short, strict=True))
    assert shortened(ids[:1]) == ["01a22df7-b898"]
    assert shortened([]) == []


@pytest.mark.parametrize(
    "command", [["run", ""], ["run", " \n"], ["submit", "", "--agent", "measurer"]], ids=str
)
def test_an_empty_goal_is_refused_before_there_is_a_task(opspawn, command):
    opspawn("submit", "there is a store", "--agent", "measurer")
    assert "GOAL is empty" in opspawn(*command, code=2).stderr
    assert len(opspawn.json("list")) == 1


def test_json_with_a_byte_order_mark_is_read(opspawn):
    file = opspawn.directory / "input.json"
    file.write_bytes(BOM_UTF8 + b'{"city": "Oslo"}')
    task = opspawn.json("submit", "--input", f"@{file}", "--agent", "measurer")[0]
    assert task["input"] == {"city": "Oslo"}
    file.write_bytes(BOM_UTF8 + b'{"agent": "measurer", "input": "x"}\n')
    assert opspawn.json("submit", "--file", str(file))[0]["task_id"]


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_told_without_loading_commands(option):
    script = (
        "import sys; from ops_core.cli import main\n"
        f"sys.argv = ['opspawn', {option!r}]\n"
        "main()\n"
        "assert 'typer' not in sys.modules, 'typer'"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"opspawn {__version__}\n"


@pytest.mark.parametrize(
    "command", [["-h"], ["list", "-h"], ["mcp", "-h"], ["mcp", "serve", "-h"]], ids=" ".join
)
def test_help_has_a_short_form(opspawn, command):
    assert opspawn(*command).stdout == opspawn(*command[:-1], "--help").stdout


LOUD = """
import os
from agentkit import Agent, tool
from ops_core.config.catalog import Catalog
from ops_core.config.sandbox import Sandboxing

print("the module is loaded")


@tool(effect="pure")
def calculator(expression: str) -> int:
    "Work out a product of two integers, such as 6 * 7."
    print("in Python")
    os.write(1, b"below Python\\n")
    os.system("echo in a program")
    return 391


def made():
    print("the app is made")
    return Catalog(
        [Agent("offline:planner", name="clerk", tools=[calculator])], sandboxing=Sandboxing(default="inprocess")
    )
"""


def test_what_tools_and_modules_print_is_not_in_the_json(opspawn):
    (opspawn.directory / "loud.py").write_text(LOUD)
    done = opspawn("run", "What is 17 * 23?", "--json", OPSPAWN_APP="loud:made")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["output"].startswith("17 * 23 = 391")
    for printed in ("the module is loaded", "the app is made", "in Python", "below Python", "in a program"):
        assert printed in done.stderr
    agents = opspawn("agents", "--json", OPSPAWN_APP="loud:made")
    assert json.loads(agents.stdout)["name"] == "clerk"


def test_errors_end_with_their_text(opspawn):
    refused = opspawn("run", "x", code=2, OPSPAWN_APP="no_such_module:app")
    assert "(for the" not in refused.stderr


def test_a_log_for_programs_has_the_places_and_the_end(opspawn):
    server = opspawn.start("serve", "--port", "0", OPSPAWN_LOG_FORMAT="json", OPSPAWN_GRPC_PORT="0")
    lines = []
    for line in server.stderr:
        lines.append(json.loads(line))
        if lines[-1]["event"] == "ready":
            break
    assert lines[-1]["API"].startswith("http://127.0.0.1:")
    server.terminate()
    out, rest = server.communicate(timeout=60)
    assert out == ""
    assert "stopping: no task is claimed any more" in rest


def step(seq, given):
    return Recorded(seq=seq, at=0.0, step=given)


def test_an_approved_call_is_shown_as_the_person_has_written_it():
    narrator = Narrator()
    asked = ApprovalAsked(
        approval_id="c.1", call_id="c", tool="pay", arguments={"eur": 900}, reason="", digest="d"
    )
    narrator.tell(
        step(1, ModelReplied(parts=(ToolCall(id="c", name="pay", arguments={"eur": 900}),), model="m"))
    )
    narrator.tell(step(2, asked))
    narrator.tell(step(3, ApprovalGiven(approval_id="c.1", approved=True, by="kim", arguments={"eur": 9})))
    started = narrator.tell(step(4, ToolStarted(call_id="c", tool="pay")))
    returned = narrator.tell(step(5, ToolReturned(call_id="c", tool="pay", output="paid")))
    assert (started.text, returned.text) == ("pay(eur=9)", "pay(eur=9)")


def test_doctor_breaks_lines_at_words_and_keeps_paths_whole(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    path = "/a/long/path/that/does/not/fit/into/one/line/of/this/terminal/at/all/opspawn.db"
    text = f"enforced: environment, cpu, descriptors, output, time, files, network, processes {path}"
    screen = Screen()
    monkeypatch.setattr(type(screen), "is_terminal", True)
    _print_finding(screen, Finding(about="Sandbox", name="pool", state="ok", text=text))
    rows = capsys.readouterr().out.splitlines()
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", row).rstrip() for row in rows]
    assert path in [row.strip() for row in plain]
    assert all(row.startswith(" " * 20) for row in plain[1:])
    assert " ".join(" ".join(plain).split()).endswith(text[len("enforced: ") :])


def test_doctor_speaks_of_sqlite_where_tasks_are_in_it():
    assert [each.name for each in _sqlite(Settings(store_url="sqlite:///x.db"))] == ["SQLite"]
    assert list(_sqlite(Settings(store_url="postgresql://u@h/db"))) == []
