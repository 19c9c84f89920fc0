"""The composition: what can be held to without an engine that runs it. Its form is that of Compose's own reader."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops_core.cli.lazy import load
from ops_core.settings import PREFIX, Settings, read_settings

from .health import is_well, server  # type: ignore[import-not-found]

ROOT = Path(__file__).parents[1]
PASSWORDS = {"POSTGRES_PASSWORD": "a" * 48, "RABBITMQ_PASSWORD": "b" * 48}
OURS = ("migrate", "api", "worker")


def composed() -> dict[str, Any]:
    """The composition, its variables filled in as for somebody who has set the passwords only."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")

    def fill(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        return PASSWORDS[name] if kind == ":?" else rest

    composition: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{(\w+)(:\?|:-)([^}]*)\}", fill, text))
    return composition


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = composed()["services"]
    return found


def test_there_is_no_password_and_no_default_for_one():
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    uses = re.findall(r"\$\{(\w*PASSWORD\w*)(.{2})", text)
    assert {name for name, _ in uses} == set(PASSWORDS)
    assert {kind for _, kind in uses} == {":?"}
    assert not re.search(r"PASS\w*: +(?!\$\{)\S", text)


def test_nothing_can_be_reached_from_outside(services):
    assert not any(
        set(service) & {"ports", "expose", "network_mode", "privileged"} for service in services.values()
    )
    assert composed()["networks"]["servers"] == {"internal": True}
    assert {name for name in services if services[name]["networks"] == ["servers"]} == {
        "postgres",
        "rabbitmq",
    }


@pytest.mark.parametrize("name", OURS)
def test_our_processes_have_no_power(services, name):
    service = services[name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(volume.endswith(":ro") for volume in service["volumes"])


@pytest.mark.parametrize("name", OURS)
def test_our_processes_are_told_what_they_know(services, name):
    given = {key: str(value) for key, value in services[name]["environment"].items() if value is not None}
    settings = read_settings({key: value for key, value in given.items() if key.startswith(PREFIX)})
    assert settings.store_url == "postgresql://opspawn@postgres/opspawn"
    assert settings.dispatcher_url == f"amqp://opspawn:{PASSWORDS['RABBITMQ_PASSWORD']}@rabbitmq/"
    assert given["PGPASSWORD"] == PASSWORDS["POSTGRES_PASSWORD"]
    grace = float(services[name]["stop_grace_period"].removesuffix("s"))
    assert grace >= Settings().grace_seconds + 10


@pytest.mark.parametrize("name", OURS)
def test_our_commands_exist(services, name):
    command, *options = services[name]["command"]
    found = load(command)
    known = {option for parameter in found.params for option in parameter.opts}
    assert set(options) <= known


def test_every_image_names_a_version_and_every_server_is_watched(services):
    for name, service in services.items():
        assert re.search(r":(local|\d+[\w.-]*)$", service["image"]), name
        assert service["restart"] in ("unless-stopped", "on-failure")
        if name not in OURS:
            assert service["healthcheck"]["test"][0] == "CMD"
            assert any(volume.split(":")[0] in composed()["volumes"] for volume in service["volumes"])
    assert services["worker"]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


async def test_the_check_of_a_worker_tells_the_living_from_the_dead(services, tmp_path):
    program = services["worker"]["healthcheck"]["test"][3]
    (metrics,) = {str(services["worker"]["environment"]["OPSPAWN_METRICS_PORT"])}
    assert program.count(metrics) == 1
    async with server(tmp_path) as port:
        assert await is_well(program.replace(metrics, str(port)), port)
    assert not await is_well(program.replace(metrics, str(port)), port)
