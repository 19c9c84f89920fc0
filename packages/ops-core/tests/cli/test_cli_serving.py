"""What the one who serves is told, and what an unusable store looks like."""

import os
import re
import signal
import socket
from pathlib import Path

import httpx2
import pytest

from agentkit.agent import Agent
from ops_core.assembly import runnable
from ops_core.cli.doctor.command import _file
from ops_core.config.catalog import Catalog
from ops_core.errors import ConfigError, StoreUnavailable
from ops_core.stores import open_store


async def test_agents_whose_model_cannot_be_opened_are_named_and_left_to_others(caplog, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    fine, keyless = Agent("offline:planner", name="fine"), Agent("openai:x", name="keyless")
    assert (await runnable(Catalog([fine, keyless]))).names == ("fine",)
    assert "agent keyless cannot be run here, its tasks wait: " in caplog.text
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        await runnable(Catalog([keyless]))
    assert (await runnable(Catalog())).names == ()


def test_a_store_in_a_folder_that_is_not_there_is_named(tmp_path: Path):
    file = tmp_path / "none" / "tasks.db"
    with pytest.raises(StoreUnavailable, match=f"{file} cannot be used: .*unable to open .* its folder"):
        open_store(f"sqlite:///{file}").revision()


def test_doctor_says_when_the_folder_cannot_be_written(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    assert [(finding.state, finding.text) for finding in _file(tmp_path / "x.db")] == [
        ("missing", f"the folder of {tmp_path / 'x.db'} cannot be written")
    ]


def test_a_worker_shows_its_metrics_where_it_is_told_to(opspawn):
    worker = opspawn.start("worker", OPSPAWN_METRICS_PORT="0")
    assert worker.stdout is not None
    url = next(found[1] for line in worker.stdout if (found := re.search(r"(http://127\S+)/metrics", line)))
    with httpx2.Client(base_url=url, trust_env=False, timeout=20) as http:
        assert http.get("/health/live").json() == {"status": "ok"}
        assert "opspawn_run_slots 100.0" in http.get("/metrics").text
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0


def test_no_secret_is_logged_at_any_level(opspawn):
    secrets = {name: f"canary-of-the-{name}" for name in ("url", "environment", "input")}
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    env = {
        "OPSPAWN_DISPATCHER_URL": f"amqp://me:{secrets['url']}@127.0.0.1:{port}/",
        "OPSPAWN_LOG_LEVEL": "debug",
        "MY_OWN_TOKEN": secrets["environment"],
    }
    worker = opspawn.start("worker", **env)
    task = opspawn("submit", f"Say {secrets['input']}", "--agent", "sender").stdout.strip()
    assert worker.stderr is not None
    text = ""
    for line in worker.stderr:
        text += line
        if f'"{task}"' in text and f"127.0.0.1:{port}" in text and "run ended" in text:
            break
    worker.send_signal(signal.SIGTERM)
    text += worker.stderr.read()  # not communicate(), which passes by what was read ahead
    assert worker.wait(60) == 0
    assert not [secret for secret in secrets.values() if secret in text]
    assert [line for line in text.splitlines() if not line.startswith("{")] == []
