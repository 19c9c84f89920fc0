"""Lines of the log: what is on them, and what never is."""

import asyncio
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import httpx2
import pytest

from agentkit import Agent, tool
from agentkit.messages import ToolCall
from agentkit.testing.models import ScriptedModel
from ops_core.assembly import open_ops
from ops_core.config.catalog import Catalog
from ops_core.observability import logs
from ops_core.observability.log_writer import MAX_LINES
from ops_core.processes.server import serving_all
from ops_core.settings import Settings, known_secrets
from ops_core.task import DEFAULT_TENANT, NewTask
from ops_core.testing import open_test_ops

CANARY = "canary-4f1d"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root, hook = logging.getLogger(), threading.excepthook
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in logs.TALKATIVE}
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], threading.excepthook = handlers, hook
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


class Log(io.StringIO):
    """Where lines go, and how they are read."""

    def lines(self) -> list[str]:
        return self.getvalue().splitlines()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]


def set_up(level: str = "info", form: logs.Form | None = "json", secrets: tuple[str, ...] = ()) -> Log:
    log = Log()
    logs.set_up(level, form, secrets, log)
    return log


async def test_sessions_of_mcp_are_not_told():
    """Whoever knows the id of a session can speak in it."""
    log = set_up()
    begin = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": begin}
    settings = Settings(store_url="sqlite://", port=0)
    accepted = {"accept": "application/json, text/event-stream"}
    async with (
        open_ops(settings, Catalog([Agent("offline:planner")])) as ops,
        serving_all(ops) as [url, *_],
        httpx2.AsyncClient(trust_env=False) as http,
    ):
        begun = await http.post(f"{url}/mcp", json=asked, headers=accepted)
    assert begun.headers["mcp-session-id"] not in log.getvalue()
    assert not [event for event in log.events() if event["logger"].startswith("mcp")]


async def test_each_line_of_a_run_names_its_task_and_its_worker():
    @tool(effect="pure")
    def look() -> str:
        """Look."""
        logging.getLogger("my_tools").info("looked", extra={"found": 3})
        return "seen"

    log = set_up()
    model = ScriptedModel.by_turn([ToolCall(id="call_1", name="look", arguments={}), "done"])
    async with open_test_ops(Agent(model, name="looker", tools=[look])) as ops, ops.working():
        task = (await ops.engine.submit(NewTask(agent="looker", input="go"))).task
        await ops.engine.until_ended(DEFAULT_TENANT, task.id, 10)
    began, looked, ended = log.events()[:3]
    assert [began["event"], looked["event"], ended["event"]] == ["run began", "looked", "run ended"]
    assert (looked["found"], looked["logger"], ended["outcome"]) == (3, "my_tools", "completed")
    of = {"task": task.id, "tenant": DEFAULT_TENANT, "agent": "looker", "attempt": 1, "epoch": 1}
    for line in (began, looked, ended):
        assert of.items() <= line.items()
        assert line["worker"] == began["worker"] != ""


def test_a_line_says_when_how_bad_and_who():
    log = set_up()
    before = datetime.now(UTC)
    logging.getLogger("ops_core.x").warning("%d things\nhappened", 2)
    (line,) = log.events()
    assert (line["level"], line["logger"], line["event"]) == ("warning", "ops_core.x", "2 things\nhappened")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert abs((datetime.fromisoformat(line["time"]) - before).total_seconds()) < 5


def test_a_person_reads_words():
    log = set_up(form="text")
    with logs.about(task="t-1", note="two words"):
        logging.getLogger("ops_core.runner").info("run\nended", extra={"seconds": 1.23456})
    (line,) = log.lines()
    assert line.endswith('Z info    ops_core.runner: run ended task=t-1 note="two words" seconds=1.235')


@pytest.mark.parametrize("terminal, first", [(True, "2"), (False, "{")])
def test_the_form_follows_the_terminal_unless_it_is_set(terminal, first):
    log = Log()
    log.isatty = lambda: terminal  # type: ignore[method-assign]
    logs.set_up("info", None, (), log)
    logging.getLogger("ops_core").info("x")
    assert log.getvalue().startswith(first)


def test_levels_hold_for_all_and_libraries_that_tell_everything_are_quieter():
    log = set_up("info")
    logging.getLogger("ops_core").debug("no")
    logging.getLogger("httpx2").info("GET http://…")
    logging.getLogger("alembic.runtime").warning("yes")
    set_up("debug")
    assert [line["event"] for line in log.events()] == ["yes"]
    assert logging.getLogger("pika").isEnabledFor(logging.DEBUG)


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_is_its_type_and_its_place(form):
    log = set_up(form=form)
    for name in ("uvicorn.error", "asyncio", "anybody"):
        try:
            raise ExceptionGroup("several", [_raised()])
        except ExceptionGroup:
            logging.getLogger(name).exception("Exception in x\nwith its text: %s", CANARY)
    assert CANARY not in log.getvalue()
    for line in log.lines():
        assert "ValueError" in line
        assert "test_logs.py:" in line
        assert "Exception in x" in line


def _raised() -> ValueError:
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        return error


async def test_what_asyncio_says_of_a_task_that_nobody_asked_is_told_without_its_text():
    log = set_up()

    async def fail() -> None:
        raise RuntimeError(CANARY)

    failing = asyncio.create_task(fail())
    await asyncio.wait({failing})
    handle = asyncio.get_running_loop().call_soon(lambda secret: 1 / 0, CANARY)
    assert handle is not None
    del failing
    await asyncio.sleep(0)
    assert CANARY not in log.getvalue()
    assert {line["error"] for line in log.events()} == {"RuntimeError", "ZeroDivisionError"}
    assert all(line["event"].startswith(("Task exception", "Exception in callback")) for line in log.events())


def test_a_thread_that_fails_is_one_line():
    log = set_up()
    thread = threading.Thread(target=lambda: {}[CANARY])
    thread.start()
    thread.join()
    (line,) = log.events()
    assert (line["error"], line["event"]) == ("KeyError", "a thread has ended by an error")
    assert CANARY not in log.getvalue()


def test_warnings_are_lines_too():
    log = set_up()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)  # the test runner has a hand in it, too
        logging.captureWarnings(capture=True)
        warnings.warn("old\nand new", DeprecationWarning, stacklevel=1)
    (line,) = log.events()
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")


@pytest.mark.parametrize("form", ["text", "json"])
def test_nothing_that_a_terminal_acts_on_reaches_a_line(form):
    log = set_up(form=form)
    with logs.about(agent="\x1b[31mred\u202e"):
        logging.getLogger("x").info("a\x1b]52;c;AAAA\x07b\rc\nd\x9b", extra={"note": "\x00 \u2028"})
    assert len(log.lines()) == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]", log.getvalue())


def test_a_wrong_call_is_still_a_line_and_harms_nobody(capsys):
    log = set_up()
    wrong = "%d and %d"
    logging.getLogger("x").info(wrong, CANARY)
    logging.getLogger("x").info("x", extra={"odd": {1, 2}})
    log.write = _full  # type: ignore[method-assign]
    logging.getLogger("x").info("lost")
    assert [line["event"] for line in log.events()] == ["%d and %d", "x"]
    assert capsys.readouterr().err == ""


def _full(_text: str) -> int:
    raise OSError(28, "No space left on device")


# --- secrets ------------------------------------------------------------------------------------------------------


def test_known_secrets_are_cut_out_of_every_line():
    settings = Settings(
        store_url="postgresql://opspawn:store%2Fsecret@db/opspawn?password=query-secret",
        dispatcher_url="amqp://opspawn:opspawn@mq",
        url="http://me:url-secret@[::1/",  # no URL at all: nobody ends for it here
    )
    environ = {"OPENAI_API_KEY": 'env"secret', "MY_TOKEN": "abc", "PATH": "/usr/local/bin"}
    secrets = known_secrets(settings, environ)
    assert secrets == {"store%2Fsecret", "store/secret", "query-secret", 'env"secret'}
    for form in ("json", "text"):
        log = set_up(form=form, secrets=tuple(secrets))
        logging.getLogger("opspawn").info("it is %s", 'env"secret', extra={"at": settings.store_url})
        logging.getLogger("opspawn").info("it is store/secret")
        text = log.getvalue()
        assert text.count(logs.CUT) == 4
        assert not any(form in text for secret in secrets for form in (secret, json.dumps(secret)[1:-1]))


async def test_no_secret_of_a_run_is_logged_whatever_goes_wrong():
    @tool(effect="pure")
    def leak(password: str) -> str:
        """Leak."""
        message = f"could not log in with {password}"
        raise PermissionError(message)

    def broken(_request: object) -> str:
        raise RuntimeError(CANARY)

    log = set_up("debug")
    call = ToolCall(id="call_1", name="leak", arguments={"password": CANARY})
    leaking = Agent(ScriptedModel.by_turn([call, CANARY]), name="leaking", instructions=CANARY, tools=[leak])
    failing = Agent(ScriptedModel.by_turn({0: broken}), name="failing")
    async with open_test_ops(leaking, failing) as ops, ops.working():
        new = [NewTask(agent=name, input={"key": CANARY}, max_attempts=1) for name in ("leaking", "failing")]
        tasks = [(await ops.engine.submit(one)).task for one in new]
        ended = [await ops.engine.until_ended(DEFAULT_TENANT, task.id, 10) for task in tasks]
    assert [task.status for task in ended] == ["completed", "failed"]
    events = [line["event"] for line in log.events() if line["logger"].startswith(("ops_core", "agentkit"))]
    assert any("PermissionError" in event for event in events)
    assert any("unexpected RuntimeError" in event for event in events)
    # the text of what a tool raised, without known secrets, is for those who develop it: at `debug`, by one logger
    assert {line["logger"] for line in log.events() if CANARY in json.dumps(line)} <= {"agentkit.tools"}


# --- a log that blocks ---------------------------------------------------------------------------------------------


@contextmanager
def piped() -> Iterator[tuple[TextIO, TextIO]]:
    """A pipe as a stream to write to, which nobody reads, and one to read from."""
    reads, writes = os.pipe()
    with os.fdopen(reads, encoding="utf-8") as reader, os.fdopen(writes, "w", encoding="utf-8") as writer:
        yield reader, writer


def read_numbers(reader: TextIO, end: int) -> tuple[int, list[dict[str, str]]]:
    """Read the lines numbered below ``end``; how many are there, and the notices that stand for the others."""
    number, written, notices = 0, 0, list[dict[str, str]]()
    while number < end:
        line = json.loads(reader.readline())
        first, second, *_ = line["event"].split()
        if second == "lines":
            number += int(first)
            notices.append(line)
        else:
            assert int(first) == number
            number, written = number + 1, written + 1
    return written, notices


def read_until(reader: TextIO, wanted: str) -> list[str]:
    lines = [reader.readline()]
    while wanted not in lines[-1]:
        lines.append(reader.readline())
    return lines


async def test_a_log_that_nobody_reads_does_not_stop_the_event_loop():
    log, line = logging.getLogger("test"), "x" * 1000
    with piped() as (reader, writer):
        logs.set_up("info", "json", (CANARY,), writer)
        for number in range(2 * MAX_LINES):
            log.info("%d %s", number, line)
            await asyncio.sleep(0)  # a loop that is blocked never comes here again
        reading = asyncio.to_thread(read_numbers, reader, 2 * MAX_LINES)
        written, notices = await asyncio.wait_for(reading, 30)
        assert 1000 < written <= MAX_LINES
        assert {notice["level"] for notice in notices} == {"warning"}
        log.info("again")
        assert json.loads(await asyncio.to_thread(reader.readline))["event"] == "again"


def test_a_log_on_a_full_disk_loses_lines_and_nothing_else(tmp_path: Path):
    """/dev/full refuses as a full disk does; its place is then taken by one with room."""
    room = os.open(tmp_path / "log", os.O_CREAT | os.O_RDWR)
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        logs.set_up("info", "text", (), full)
        (handler,) = logging.getLogger().handlers
        for number in range(3):
            logging.getLogger("test").info("lost %d", number)
        handler.flush()
        os.dup2(room, full.fileno())
        logging.getLogger("test").info("kept")
        handler.flush()
        said = (tmp_path / "log").read_text()
        assert "kept" in said
        assert "lost" not in said.replace("lines were left out", "")
        assert "3 lines were left out" in said
    os.close(room)


SPEAKER = """
import logging
from ops_core.observability import logs
logs.set_up("info", "text")
for number in range(3000):
    logging.getLogger("test").info("%d %s", number, "x" * 1000)
"""


def test_a_process_whose_log_nobody_reads_ends():
    """The reader of its log holds the pipe open, as a log driver that stands still."""
    with piped() as (_reader, writer):
        command = [sys.executable, "-c", SPEAKER]
        assert subprocess.run(command, stderr=writer, timeout=60, check=False).returncode == 0


def test_the_last_lines_of_a_process_are_in_its_log():
    ended = subprocess.run([sys.executable, "-c", SPEAKER], capture_output=True, timeout=60, check=True)
    assert ended.stderr.count(b"\n") == 3000


async def test_a_descriptor_that_does_not_wait_loses_no_line():
    with piped() as (reader, writer):
        os.set_blocking(writer.fileno(), False)
        logs.set_up("info", "text", (), writer)
        for number in range(500):
            logging.getLogger("test").info("%d %s", number, "x" * 1000)
        logging.getLogger("test").info("the last one")
        said = await asyncio.wait_for(asyncio.to_thread(read_until, reader, "the last one"), 30)
        assert len(said) == 501
