"""`opspawn run` and `watch` at a terminal, as a person sees and answers them."""

import asyncio
import os
import re
from contextlib import suppress

import pexpect
import pytest

from ops_core.cli.terminal.output import BackgroundFile, written_behind

from .conftest import until

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")
COLOURS = re.compile(r"\x1b\[(\d+;)*(3|9)[0-7](;\d+)*m")
ROWS = re.compile(r"\r\n|\r|\x1b\[\d*[AK]")


def ended(terminal):
    """What it printed to its end, and how it ended."""
    terminal.expect(pexpect.EOF)
    terminal.wait()
    return terminal.before, terminal.exitstatus


def plain(text):
    return ESCAPES.sub("", text)


def test_text_is_shown_while_it_is_written(opspawn):
    terminal = opspawn.terminal("run", "go", "--agent", "talker")
    terminal.expect("there was a very long")
    terminal.expect("waiting for the model")
    (opspawn.directory / "go").touch()
    terminal.expect("model.*answers")
    shown, code = ended(terminal)
    assert code == 0
    assert plain(shown).count("Once upon a time") == 1
    assert "\x1b]52" not in shown
    assert "\u202e" not in shown


def test_what_runs_is_named(opspawn):
    terminal = opspawn.terminal("run", "go", "--agent", "holder")
    terminal.expect("running hold")
    (opspawn.directory / "go").touch()
    shown, code = ended(terminal)
    assert ("Held." in shown, code) == (True, 0)


def test_a_yes_at_the_prompt_is_an_approval(opspawn):
    terminal = opspawn.terminal("run", "go", "--agent", "sender")
    terminal.expect(r"Approve\? \[y/n\]")
    terminal.sendline("perhaps")
    terminal.expect(r"Approve\? \[y/n\]")
    terminal.sendline("y")
    terminal.expect("approved")
    shown, code = ended(terminal)
    assert ("Done." in shown, code) == (True, 0)
    assert (opspawn.directory / "sent.txt").read_text() == "kim\n"


def test_a_no_at_the_prompt_is_a_refusal(opspawn):
    terminal = opspawn.terminal("run", "go", "--agent", "sender")
    terminal.expect(r"Approve\? \[y/n\]")
    terminal.sendline("n")
    terminal.expect("denied")
    _shown, code = ended(terminal)
    assert code == 0
    assert not (opspawn.directory / "sent.txt").exists()


def test_each_of_several_calls_is_asked_about_by_name(opspawn):
    terminal = opspawn.terminal("run", "go", "--agent", "two-letters")
    terminal.expect(r'Approve send \{"to": "kim"\}\? \[y/n\]')
    terminal.sendline("n")
    terminal.expect(r'Approve send \{"to": "lee"\}\? \[y/n\]')
    terminal.sendline("y")
    _shown, code = ended(terminal)
    assert code == 0
    assert (opspawn.directory / "sent.txt").read_text() == "lee\n"


def test_an_end_of_input_at_the_prompt_leaves_the_question_open(opspawn):
    terminal = opspawn.terminal("run", "go", "--agent", "sender")
    terminal.expect(r"Approve\? \[y/n\]")
    terminal.sendeof()
    shown, code = ended(terminal)
    assert ("opspawn approve" in shown, code) == (True, 5)


def test_an_answer_from_elsewhere_ends_the_question(opspawn):
    terminal = opspawn.terminal("run", "go", "--agent", "sender")
    terminal.expect(r"approval (\S+)")
    approval = plain(terminal.match[1])
    terminal.expect(r"Approve\? \[y/n\]")
    opspawn("approve", opspawn.json("list")[0]["id"], approval)
    shown, code = ended(terminal)
    assert ("Done." in shown, code) == (True, 0)


def test_ctrl_c_at_the_prompt_lets_the_run_go(opspawn):
    terminal = opspawn.terminal("run", "go", "--agent", "sender")
    terminal.expect(r"Approve\? \[y/n\]")
    terminal.sendintr()
    shown, code = ended(terminal)
    assert ("opspawn run --resume" in plain(shown), code) == (True, 130)


def test_ctrl_c_lets_go_at_the_next_step(opspawn):
    terminal = opspawn.terminal("run", "go", "--agent", "holder")
    opspawn.file("begun")
    terminal.sendintr()
    terminal.expect("letting go after this step")
    (opspawn.directory / "go").touch()
    shown, code = ended(terminal)
    assert ("3 steps recorded" in shown, code) == (True, 130)


def test_ctrl_c_twice_lets_go_at_once(opspawn):
    terminal = opspawn.terminal("run", "go", "--agent", "holder")
    opspawn.file("begun")
    terminal.sendintr()
    terminal.expect("letting go after this step")
    terminal.sendintr()
    shown, code = ended(terminal)
    assert ("2 steps recorded" in shown, code) == (True, 130)


def test_ctrl_c_while_watching_does_nothing_to_the_task(opspawn):
    task = opspawn("submit", "go", "--agent", "measurer").stdout.strip()
    terminal = opspawn.terminal("watch", task)
    terminal.expect("waiting for a worker")
    terminal.sendintr()
    shown, code = ended(terminal)
    assert ("Traceback" in shown, code) == (False, 130)
    assert opspawn.status(task) == "pending"


@pytest.mark.parametrize("columns", [30, 50, 200])
def test_steps_fit_the_terminal(opspawn, columns):
    terminal = opspawn.terminal("run", "go", "--agent", "measurer", columns=columns)
    shown, code = ended(terminal)
    assert code == 0
    rows = [plain(row) for row in ROWS.split(shown)]
    steps = [row for row in rows if re.match(r" +\d+ . (model|tool|failed)", row)]
    assert len(steps) == 5, shown
    assert max(map(len, steps)) <= columns


def test_the_terminal_may_be_resized(opspawn):
    terminal = opspawn.terminal("run", "go", "--agent", "talker", columns=120)
    terminal.expect("there was a very long")
    terminal.setwinsize(20, 32)
    terminal.expect("waiting for the model")
    (opspawn.directory / "go").touch()
    _shown, code = ended(terminal)
    assert code == 0


def test_no_color_is_respected(opspawn):
    shown, _code = ended(opspawn.terminal("run", "go", "--agent", "measurer"))
    assert COLOURS.search(shown)
    shown, _code = ended(opspawn.terminal("run", "go", "--agent", "measurer", NO_COLOR="1"))
    assert not COLOURS.search(shown)


def test_a_dumb_terminal_gets_plain_lines(opspawn):
    shown, code = ended(opspawn.terminal("run", "go", "--agent", "measurer", TERM="dumb"))
    assert code == 0
    assert "\x1b" not in shown


def test_a_terminal_that_is_closed_lets_the_run_go(opspawn):
    terminal = opspawn.terminal("run", "go", "--agent", "holder")
    opspawn.file("begun")
    os.close(terminal.child_fd)  # as a window that is closed: it gets SIGHUP, and can write nothing more
    terminal.child_fd, terminal.closed = -1, True
    (opspawn.directory / "go").touch()
    until(lambda: opspawn.json("list")[0]["status"] == "pending")


@pytest.mark.parametrize("answer, status", [("y", "cancelled"), ("n", "pending")])
def test_a_verb_on_many_tasks_is_confirmed_at_the_prompt(opspawn, answer, status):
    for _ in range(2):
        opspawn("submit", "go", "--agent", "measurer")
    terminal = opspawn.terminal("cancel", "--agent", "measurer")
    terminal.expect("2 tasks")
    terminal.expect(r"\[y/")
    terminal.sendline(answer)
    ended(terminal)
    assert [task["status"] for task in opspawn.json("list")] == [status] * 2


# --- output that is not read -------------------------------------------------------------------------------------


async def test_output_that_is_not_read_blocks_nobody():
    reading, writing = os.pipe()
    text = "a line of text\n" * 20_000  # more than a pipe holds
    with os.fdopen(reading, encoding="utf-8") as reader, os.fdopen(writing, "w", encoding="utf-8") as file:
        async with written_behind(file) as behind:
            for _ in range(3):
                behind.write(text)
                behind.flush()
            read = asyncio.create_task(asyncio.to_thread(reader.read, 3 * len(text)))
        assert await read == 3 * text
        assert not behind.is_broken


@pytest.mark.parametrize("ending", ["closed", "too much"])
async def test_output_that_nobody_will_read_is_broken(ending: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ops_core.cli.terminal.output.MAX_UNREAD", 200_000)
    reading, writing = os.pipe()
    file = os.fdopen(writing, "w", encoding="utf-8")
    behind = BackgroundFile(file)
    if ending == "closed":
        os.close(reading)
    with pytest.raises(BrokenPipeError):
        while True:
            behind.write("x" * 1000)
            await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await behind.close_after_writing()
    if ending == "too much":
        os.close(reading)
        await asyncio.to_thread(behind._thread.join)
    with suppress(BrokenPipeError):
        file.close()
