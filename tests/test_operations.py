"""What the page for operators shows is what the program knows: units, processes, alerts, settings, commands."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops_core.cli.lazy import load
from ops_core.settings import PREFIX, Settings, read_settings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "how-to" / "operate.md").read_text(encoding="utf-8")
METRICS = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
OF_COMPOSE = {"OPSPAWN_AGENTS"}
"""Read by Compose, not by the program."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def files() -> dict[str, str]:
    """The files that the page shows, by name."""
    return {block.split("\n")[0].rpartition("/")[2]: block for block in blocks("ini")}


def command(line: str) -> None:
    """Hold a command line to what the program knows."""
    words = line.split()
    found = load(words[1])
    known = {option for parameter in found.params for option in parameter.opts}
    assert {word for word in words[2:] if word.startswith("--")} <= known | {"--help"}, line


def test_units_are_understood_by_systemd(tmp_path: Path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    units = {name: text for name, text in files().items() if name.endswith(".service")}
    assert set(units) == {"opspawn-migrate.service", "opspawn-worker.service"}
    for name, text in units.items():  # it looks whether the program is there
        (tmp_path / name).write_text(text.replace("/opt/opspawn/bin/opspawn", sys.executable))
    checked = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / name) for name in units)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (checked.returncode, checked.stderr) == (0, "")


def test_units_give_a_worker_time_and_run_what_there_is():
    for name, text in files().items():
        if name.endswith(".service"):
            (line,) = re.findall(r"^ExecStart=\S*/(opspawn .*)$", text, re.MULTILINE)
            command(line)
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", files()["opspawn-worker.service"], re.MULTILINE)
    assert float(seconds) >= Settings().grace_seconds + 10


def test_the_file_of_settings_is_accepted():
    lines = [line.partition("=") for line in files()["opspawn.env"].splitlines() if not line.startswith("#")]
    settings = read_settings({name: value for name, _, value in lines if name.startswith(PREFIX)})
    assert settings.log_format == "json"


def test_processes_of_the_procfile_exist():
    (procfile,) = (block for block in blocks("text") if block.startswith("migrate:"))
    processes = dict(line.split(": ") for line in procfile.splitlines())
    assert set(processes) == {"migrate", "api", "worker"}
    for line in processes.values():
        command(line)


def test_commands_and_settings_of_the_page_exist():
    for line in re.findall(r"`(opspawn [a-z]+[^`]*)`", PAGE):
        command(line)
    named = set(re.findall(rf"{PREFIX}[A-Z_]+", PAGE)) - OF_COMPOSE
    assert {name.removeprefix(PREFIX).lower() for name in named} <= Settings.model_fields.keys()


def test_alerts_are_about_metrics_that_there_are():
    (text,) = blocks("yaml")
    (group,) = yaml.safe_load(text)["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    assert len(rules) == len({rule["alert"] for rule in rules}) >= 5
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "annotations", "labels"}
        assert rule["expr"].count("(") == rule["expr"].count(")")
        named = exposed(rule["expr"])
        assert named, rule["alert"]
        assert all(f"| `{name}` |" in METRICS for name in named), rule["expr"]


def test_metrics_of_the_page_exist():
    assert all(f"| `{name}` |" in METRICS for name in exposed(PAGE))


def exposed(text: str) -> set[str]:
    """The metrics that are named, without what is appended to a histogram's."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bopspawn_[a-z_]+\b", text)}
