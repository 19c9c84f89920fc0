"""`opspawn run` without a terminal: what scripts and pipes see."""

import json
import re
import signal
import sqlite3

import pytest

ACTED_ON = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b]")


def lines(text):
    return text.splitlines()


def task_id(text):
    return re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", text)[0]


def test_a_goal_is_carried_to_its_end_and_can_be_looked_at_again(opspawn):
    (opspawn.directory / "README.md").write_text("three words here")
    done = opspawn("run", "Count the words in README.md", OPSPAWN_APP="")
    assert "3" in done.stdout
    assert "completed" in done.stdout
    assert "look again" in done.stdout
    assert done.stderr == ""
    again = opspawn("show", task_id(done.stdout))
    assert "file_statistics" in again.stdout


def test_it_runs_twice_in_one_directory(opspawn):
    for _time in range(2):
        opspawn("run", "go", "--agent", "measurer")
    assert [task["status"] for task in opspawn.json("list")] == ["completed", "completed"]


def test_calls_at_the_same_time_are_seen_as_such(opspawn):
    shown = opspawn("run", "go", "--agent", "measurer").stdout
    assert "calls 3 tools at once" in shown
    assert [line[5] for line in lines(shown) if re.match(r" +[234] . ", line)] == ["┌", "│", "└"]
    assert "1,200 + 34 tokens" in shown


def test_braces_are_plain_where_the_encoding_has_no_others(opspawn):
    shown = opspawn("run", "go", "--agent", "measurer", PYTHONIOENCODING="ascii").stdout
    assert [line[5] for line in lines(shown) if re.match(r" +[234] . ", line)] == [",", "|", "`"]


def test_json_is_a_line_for_each_step_and_then_the_task(opspawn):
    *steps, task = opspawn.json("run", "go", "--agent", "measurer")
    assert [step["seq"] for step in steps] == list(range(len(steps)))
    assert steps[0]["kind"] == "run_started"
    assert steps[-1]["kind"] == "finished"
    assert (task["status"], task["output"]) == ("completed", "Measured.")


def test_tasks_of_others_are_left_alone(opspawn):
    other = opspawn("submit", "go", "--agent", "measurer", "--priority", "9").stdout.strip()
    opspawn("run", "go", "--agent", "measurer")
    assert opspawn.status(other) == "pending"


def test_a_failed_task_is_told_by_the_exit_code(opspawn):
    assert "no_progress" in opspawn("run", "go", "--agent", "loser", code=1).stdout
    assert opspawn.json("run", "go", "--agent", "loser", code=1)[-1]["error"]["code"] == "no_progress"


@pytest.mark.parametrize(
    "arguments, code, told",
    [
        (["run"], 2, "give a GOAL"),
        (["run", "go", "--resume", "x"], 2, "give a GOAL"),
        (["run", "go", "--no-such-option"], 2, "No such option"),
        (["run", "", "--agent", "nobody"], 3, "there is no agent 'nobody'"),
        (["run", "go", "--agent", "keyless"], 2, "OPENAI_API_KEY"),
        (["run", "go", "--model", "nobody:x"], 2, "unknown model"),
        (["run", "--resume", "00000000"], 3, "there is no task of this id"),
    ],
)
def test_what_cannot_be_run_leaves_no_task(opspawn, arguments, code, told):
    done = opspawn(*arguments, code=code)
    assert told in done.stderr
    assert done.stdout == ""
    assert opspawn.json("list", code=0 if (opspawn.directory / "opspawn.db").exists() else 69) == []


@pytest.mark.parametrize(
    "variables, code, told",
    [
        ({"OPSPAWN_PROT": "1"}, 2, "did you mean OPSPAWN_PORT"),
        ({"OPSPAWN_PORT": "high"}, 2, "OPSPAWN_PORT"),
        ({"OPSPAWN_APP": "nothing.here:agents"}, 2, "cannot import nothing"),
        ({"OPSPAWN_STORE_URL": "sqlite:///no/such/folder/x.db"}, 69, "unable to open database file"),
        ({"OPSPAWN_STORE_URL": "mysql://u:hunter2@h/db"}, 2, "store_url"),
    ],
)
def test_what_is_set_wrongly_is_one_line(opspawn, variables, code, told):
    done = opspawn("run", "go", "--agent", "measurer", code=code, **variables)
    assert told in done.stderr
    assert len(lines(done.stderr)) == 1
    assert "hunter2" not in done.stderr


def test_debug_shows_the_traceback(opspawn):
    done = opspawn("show", "x", code=69)
    assert "Traceback" not in done.stderr
    with pytest.raises(AssertionError, match="Traceback"):
        opspawn("show", "x", code=69, OPSPAWN_LOG_LEVEL="debug")


def test_a_store_of_a_newer_release_is_not_touched(opspawn):
    opspawn("run", "go", "--agent", "measurer")
    with sqlite3.connect(opspawn.directory / "opspawn.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    for command in (["run", "go", "--agent", "measurer"], ["list"], ["migrate"]):
        assert "upgrade Opspawn" in opspawn(*command, code=69).stderr


def test_another_model_takes_the_place_of_the_agents_own(opspawn):
    task = opspawn.json("run", "What is 6 * 7?", "--agent", "sender", "--model", "offline:planner")[-1]
    assert task["agent"] == "sender@offline:planner"
    assert task["status"] == "completed"


# --- what models and tools say ------------------------------------------------------------------------------------


def test_nothing_that_a_model_or_a_tool_says_is_acted_on(opspawn, hostile):
    done = opspawn("run", hostile, "--agent", "hostile")
    shown = [done.stdout, opspawn("show", task_id(done.stdout)).stdout, opspawn("list").stdout]
    for text in shown:
        assert not ACTED_ON.search(text)
        assert "[bold red]trust me[/bold red]" in text
        assert "\\u001b]52;c;" in text


def test_json_is_safe_to_show_and_keeps_every_character(opspawn, hostile):
    done = opspawn("run", "go", "--agent", "hostile", "--json")
    assert not ACTED_ON.search(done.stdout)
    assert json.loads(lines(done.stdout)[-1])["output"] == hostile


# --- approvals ----------------------------------------------------------------------------------------------------


def test_without_a_terminal_it_says_how_to_answer(opspawn):
    waiting = opspawn("run", "go", "--agent", "sender", code=5).stdout
    run = task_id(waiting)
    command = re.findall(rf"opspawn (approve {run} \S+)", waiting)[0]
    opspawn(*command.split())
    opspawn("run", "--resume", run)
    assert (opspawn.directory / "sent.txt").read_text() == "kim\n"


def test_json_waits_without_asking(opspawn):
    done = opspawn("run", "go", "--agent", "sender", "--json", code=5)
    assert json.loads(lines(done.stdout)[-1])["status"] == "waiting"
    assert "opspawn approve" in done.stderr


# --- stopping and going on ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_signal_lets_the_run_go_at_its_next_step(opspawn, sent, code):
    running = opspawn.start("run", "go", "--agent", "holder")
    opspawn.file("begun")
    running.send_signal(sent)
    (opspawn.directory / "go").touch()
    shown, told = running.communicate(timeout=60)
    assert (running.returncode, told) == (code, "")
    assert "opspawn cancel" in shown
    run = task_id(shown)
    assert opspawn.status(run) == "pending"
    assert "Held." in opspawn("run", "--resume", run).stdout


def test_a_second_signal_does_not_wait_for_the_step(opspawn):
    running = opspawn.start("run", "go", "--agent", "holder")
    opspawn.file("begun")
    running.send_signal(signal.SIGINT)
    for line in running.stdout:
        if "letting go" in line:
            break
    running.send_signal(signal.SIGINT)
    shown, _told = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "opspawn run --resume" in shown


def test_a_killed_run_goes_on(opspawn):
    lease = {"OPSPAWN_LEASE_SECONDS": "1", "OPSPAWN_SWEEP_SECONDS": "0.1"}
    running = opspawn.start("run", "go", "--agent", "holder", "--json", **lease)
    opspawn.file("begun")
    run = json.loads(running.stdout.readline())["run_id"]
    running.kill()
    running.wait()
    (opspawn.directory / "go").touch()
    shown = opspawn("run", "--resume", run, **lease).stdout
    assert "another worker has it" in shown
    *steps, task = opspawn.json("show", run)
    assert [step["seq"] for step in steps] == list(range(len(steps)))
    assert task["output"] == "Held."


def test_a_run_that_has_ended_is_shown_again(opspawn):
    run = opspawn.json("run", "go", "--agent", "loser", code=1)[-1]["id"]
    assert opspawn.json("run", "--resume", run, code=1)[-1]["id"] == run


def test_a_model_that_is_overloaded_is_asked_again(opspawn):
    shown = opspawn("run", "go", "--agent", "overloaded").stdout
    assert "attempt 1 failed (model_overloaded)" in shown
    assert "Here I am." in shown


def test_whoever_reads_may_go_away(opspawn):
    running = opspawn.start("run", "go", "--agent", "holder")
    opspawn.file("begun")
    running.stdout.close()
    (opspawn.directory / "go").touch()
    assert running.wait(60) == 141
    assert running.stderr.read() == ""
    assert opspawn.json("list")[0]["status"] in ("pending", "completed")
