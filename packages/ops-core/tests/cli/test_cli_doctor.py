"""What `opspawn doctor` finds on servers, and that it never hangs."""

import asyncio
import json
import os
import re
import resource
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from ops_core.cli.doctor import command
from ops_core.cli.doctor import models as calling
from ops_core.cli.doctor.command import bounded, examine
from ops_core.cli.exit_codes import Exit
from ops_core.stores import migrations, open_store
from ops_core.task import NewTask
from ops_core.testing import FakeClock

SECRET = "hunter2secret"


@pytest.fixture
def quiet(monkeypatch, tmp_path) -> None:
    """An empty directory, and no settings but those of the test."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPSPAWN_APP", "OPSPAWN_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def silent() -> Iterator[str]:
    """Where connections are accepted, and nobody says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


async def findings(capsys) -> dict[str, dict[str, str]]:
    await examine(url=None, as_json=True)
    printed = capsys.readouterr().out
    assert SECRET not in printed
    return {found["name"]: found for found in map(json.loads, printed.splitlines())}


async def test_a_server_is_named_with_what_makes_it_unsafe(
    postgres, postgres_database, quiet, monkeypatch, capsys
):
    monkeypatch.setenv("OPSPAWN_STORE_URL", postgres.url(postgres_database))
    assert (await findings(capsys))["schema"]["state"] == "missing"
    migrations.upgrade(open_store(postgres.url(postgres_database)))
    found = await findings(capsys)
    assert found["reachable"]["text"].startswith("PostgreSQL 1")
    assert found["durable"]["state"] == "warning"  # the tests' own server does not wait for the disk
    assert found["durable"]["text"].startswith("fsync off")
    assert (found["clock"]["state"], found["clock"]["text"]) == ("ok", "as on this machine")
    assert (found["leases"]["text"], found["queue"]["text"]) == (
        "0 tasks running",
        "0 tasks due, 0 waiting for an answer",
    )


@pytest.mark.parametrize("database", ["postgresql"])
async def test_what_is_late_is_a_warning(store, url, clock: FakeClock, quiet, monkeypatch, capsys):
    monkeypatch.setenv("OPSPAWN_STORE_URL", url)
    await store.insert(NewTask(agent="a", input="x"))
    await store.claim("somebody", 1, 5.0, ["a"])
    await store.insert(NewTask(agent="nobody", input="x"))
    clock.advance(45)
    found = await findings(capsys)
    assert found["queue"]["state"] == found["leases"]["state"] == found["clock"]["state"] == "warning"
    assert "due since 45 s" in found["queue"]["text"]
    assert "1 task running on 1 worker, 1 of a worker that is gone" in found["leases"]["text"]
    assert "harmless" in found["clock"]["text"]


async def test_rabbitmq_is_named_with_its_queue(rabbit, quiet, monkeypatch, capsys):
    monkeypatch.setenv("OPSPAWN_DISPATCHER_URL", f"{rabbit.url(queue='looked.at')}")
    found = (await findings(capsys))["wake-ups"]
    assert found["state"] == "ok"
    assert re.search(r"version \d.*queue looked\.at: made by the first process", found["text"])


async def test_rabbitmq_that_is_away_is_a_warning_as_tasks_run_without_it(quiet, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("OPSPAWN_DISPATCHER_URL", f"amqp://me:{SECRET}@127.0.0.1:{port}/")
    found = (await findings(capsys))["wake-ups"]
    assert (found["state"], "Connection refused" in found["text"]) == ("warning", True)


async def test_rabbitmq_that_says_nothing_is_not_waited_for(silent, quiet, monkeypatch, capsys):
    monkeypatch.setattr(command, "DISPATCHER_SECONDS", 0.2)
    monkeypatch.setenv("OPSPAWN_DISPATCHER_URL", f"amqp://me:{SECRET}@{silent}/")
    found = (await findings(capsys))["wake-ups"]
    assert (found["state"], found["text"]) == ("warning", "no answer within 0.2 s")


async def test_a_dispatcher_that_is_none_is_missing(quiet, monkeypatch, capsys):
    monkeypatch.setenv("OPSPAWN_DISPATCHER_URL", f"redis://:{SECRET}@127.0.0.1/")
    assert (await findings(capsys))["wake-ups"]["state"] == "missing"


async def test_a_store_that_says_nothing_is_not_waited_for(silent, quiet, monkeypatch, capsys):
    monkeypatch.setattr(command, "STORE_SECONDS", 0.2)
    monkeypatch.setenv("OPSPAWN_STORE_URL", f"postgresql://me:{SECRET}@{silent}/x?connect_timeout=3")
    found = await findings(capsys)
    assert (found["usable"]["state"], found["usable"]["text"]) == ("missing", "no answer within 0.2 s")
    assert "assistant" in found  # the rest was looked at


async def test_a_server_that_says_nothing_is_not_waited_for(silent, quiet, monkeypatch, capsys):
    monkeypatch.setattr(command, "SERVER_SECONDS", 0.2)
    monkeypatch.setenv("OPSPAWN_URL", f"http://me:{SECRET}@{silent}")
    assert (await findings(capsys))["reachable"]["state"] == "missing"


async def test_a_look_that_takes_too_long_is_left_behind():
    gone = threading.Event()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await bounded(lambda: gone.wait(30), 0.05)
    assert time.monotonic() - began < 20
    gone.set()
    assert await bounded(lambda: 7, 5) == 7
    with pytest.raises(ZeroDivisionError):
        await bounded(lambda: 1 // 0, 5)
    await asyncio.sleep(0)


# --- --live ------------------------------------------------------------------------------------------------------


class Provider(BaseHTTPRequestHandler):
    """Speaks Chat Completions; the model's name says how the call goes."""

    asked: ClassVar[list[dict]] = []

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(asked)
        status = {"busy": 429, "locked": 401}.get(asked["model"], 200)
        message = {"role": "assistant", "content": "OK"}
        body = {
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "model": asked["model"],
        }
        body["usage"] = {"prompt_tokens": 14, "completion_tokens": 2}
        answer = json.dumps(body if status == 200 else {"error": {"message": f"{SECRET} is wrong"}}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def provider(monkeypatch) -> Iterator[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(Provider, "asked", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), Provider) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        serving.join()


def declare(provider: str, *models: str) -> None:
    endpoint = f'[endpoints.local]\nbase_url = "{provider}"\napi_key_env = "LOCAL_KEY"\n'
    agents = "".join(f'[agents.a{place}]\nmodel = "{model}"\n' for place, model in enumerate(models))
    Path("opspawn.toml").write_text(endpoint + agents)


async def test_each_model_is_called_once_where_that_is_asked_for(quiet, provider, monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_KEY", SECRET)
    declare(provider, "local:tiny", "local:tiny", "local:busy", "local:locked", "offline:planner")
    assert "calls" not in await findings(capsys)
    assert Provider.asked == []
    await examine(url=None, as_json=True, live=True)
    printed = capsys.readouterr().out
    assert SECRET not in printed
    found = {
        each["name"]: each for each in map(json.loads, printed.splitlines()) if each["about"] == "Models"
    }
    assert found["calls"]["text"] == "3 small calls, one for each model; the provider bills it"
    assert re.fullmatch(r"answered in \d+\.\d s \(14 \+ 2 tokens\)", found["local:tiny"]["text"])
    states = {name: each["state"] for name, each in found.items()}
    assert states == {"calls": "note", "local:tiny": "ok", "local:busy": "warning", "local:locked": "missing"}
    assert found["local:locked"]["text"].startswith("model_auth: ")
    assert sorted(asked["model"] for asked in Provider.asked) == ["busy", "locked", "tiny"]
    assert all(asked["max_tokens"] == 16 for asked in Provider.asked)


async def test_a_model_in_this_process_is_not_called(quiet, capsys):
    await examine(url=None, as_json=True, live=True)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["text"] for each in found if each["about"] == "Models"] == [
        "none: no agent has a model outside of this process"
    ]


async def test_a_provider_that_says_nothing_is_not_waited_for(quiet, silent, monkeypatch, capsys):
    monkeypatch.setattr(calling, "CALL_SECONDS", 0.2)
    monkeypatch.setenv("LOCAL_KEY", SECRET)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    declare(f"http://{silent}/v1", "local:tiny")
    assert await examine(url=None, as_json=True, live=True) == Exit.FAILED
    assert "no answer within 0.2 s" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="tools are confined on Linux only")
async def test_each_control_of_a_sandbox_is_named_with_how_it_is_held(quiet, capsys):
    found = (await findings(capsys))["pool"]
    assert found["about"] == "Sandbox"
    assert re.search(r"enforced: .*\bfiles\b.*\bnetwork\b", found["text"])
    assert "jail" in await findings(capsys)


# --- a store that takes no writes -----------------------------------------------------------------------------------


@pytest.fixture
def in_file(quiet, file_url, monkeypatch, tmp_path) -> Path:
    migrations.upgrade(open_store(file_url))
    monkeypatch.setenv("OPSPAWN_STORE_URL", file_url)
    return tmp_path / "ops.db"


async def test_a_store_is_tried_with_a_write_that_leaves_nothing(in_file: Path, capsys):
    assert (await findings(capsys))["writable"]["state"] == "ok"
    with closing(sqlite3.connect(in_file)) as store:
        tables = store.execute("SELECT count(*) FROM sqlite_master WHERE name = 'probe'").fetchone()
        assert tables == (0,)


async def test_a_full_disk_is_noticed_by_a_write(in_file: Path, capsys):
    """A limit of the size of files refuses as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(sqlite3.connect(in_file)) as held:
        held.execute("SELECT count(*) FROM task").fetchone()  # the files beside it are there
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
        try:
            found = await findings(capsys)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert found["reachable"]["state"] == "ok"
    assert found["writable"]["state"] == "missing"
    assert "takes no writes" in found["writable"]["text"]


@pytest.fixture
def ordinary() -> Iterator[Path]:
    """A folder of an ordinary user, who this process is meanwhile: root may write everywhere."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0:
            yield Path(folder)
            return
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


NOBODY = 65534


@pytest.mark.parametrize("what", ["file", "folder"])
async def test_a_file_or_folder_without_the_right_to_write_is_missing(
    quiet, ordinary: Path, what: str, monkeypatch, capsys
):
    monkeypatch.chdir(ordinary)
    url, file = f"sqlite:///{ordinary}/ops.db", ordinary / "ops.db"
    with closing(sqlite3.connect(file)) as made:  # not by the store, which keeps its files open
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("CREATE TABLE alembic_version (version_num TEXT)")
    monkeypatch.setenv("OPSPAWN_STORE_URL", url)
    file.chmod(0o400) if what == "file" else ordinary.chmod(0o500)
    try:
        found = await findings(capsys)
    finally:
        ordinary.chmod(0o700)
    assert "missing" in {found.get(name, {}).get("state") for name in ("usable", "writable")}


async def test_a_server_that_only_reads_or_gives_no_right_to_write_is_missing(
    postgres, postgres_database, quiet, monkeypatch, capsys
):
    url = postgres.url(postgres_database)
    migrations.upgrade(open_store(url))
    postgres.execute("CREATE ROLE reader LOGIN")
    try:
        postgres.execute("GRANT USAGE ON SCHEMA public TO reader", postgres_database)
        postgres.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader", postgres_database)
        monkeypatch.setenv("OPSPAWN_STORE_URL", url.replace("opspawn@", "reader@"))
        found = await findings(capsys)
        assert (found["reachable"]["state"], found["writable"]["state"]) == ("ok", "missing"), found
        assert "permission denied" in found["writable"]["text"]
        monkeypatch.setenv("OPSPAWN_STORE_URL", url)
        assert (await findings(capsys))["writable"]["state"] == "ok"
        postgres.execute(f"ALTER DATABASE {postgres_database} SET default_transaction_read_only = on")
        found = await findings(capsys)
        assert found["usable"]["state"] == "missing"
        assert "read-only" in found["usable"]["text"]
    finally:
        postgres.execute(f"ALTER DATABASE {postgres_database} RESET default_transaction_read_only")
        postgres.execute("DROP OWNED BY reader", postgres_database)
        postgres.execute("DROP ROLE reader")
