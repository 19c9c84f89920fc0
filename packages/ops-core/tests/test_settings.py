"""What an operator can set."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from ops_core.errors import ConfigError
from ops_core.settings import PREFIX, Settings, read_settings


def test_nothing_set_is_fine():
    assert read_settings({}) == Settings()


def test_other_variables_are_nobody_of_ours():
    assert read_settings({"PATH": "/bin", "OPSPAWNER": "x", "opspawn_port": "x"}) == Settings()


@pytest.mark.parametrize(
    "service", ["OPSPAWN", "OPSPAWN_GRPC", "OPSPAWN_METRICS", "OPSPAWN_WORKER", "OPSPAWN_API_V2"]
)
def test_variables_of_kubernetes_about_a_service_are_no_settings(service):
    links = {
        f"{service}_SERVICE_HOST": "10.96.12.7",
        f"{service}_SERVICE_PORT": "8700",
        f"{service}_SERVICE_PORT_HTTP": "8700",
        f"{service}_PORT": "tcp://10.96.12.7:8700",
        f"{service}_PORT_8700_TCP": "tcp://10.96.12.7:8700",
        f"{service}_PORT_8700_TCP_PROTO": "tcp",
        f"{service}_PORT_8700_TCP_PORT": "8700",
        f"{service}_PORT_8700_TCP_ADDR": "10.96.12.7",
        f"{service}_PORT_53_UDP": "udp://[fd00::7]:53",
    }
    assert read_settings({**links, "OPSPAWN_CONCURRENCY": "7"}) == Settings(concurrency=7)


@pytest.mark.parametrize(
    "name, value",
    [("OPSPAWN_PORT", "tcp://"), ("OPSPAWN_PORTS", "tcp://1.2.3.4:5"), ("OPSPAWN_SERVICE", "x")],
)
def test_what_only_resembles_them_is_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        read_settings({name: value})


def test_every_setting_can_be_set():
    given = {
        "store_url": "sqlite:///here.db",
        "dispatcher_url": "local://",
        "auto_migrate": "false",
        "config": "agents.toml",
        "app": "package.module:catalog",
        "url": "http://localhost:8700",
        "host": "::1",
        "port": "0",
        "metrics_port": "0",
        "concurrency": "7",
        "lease_seconds": "2.5",
        "poll_seconds": "0.1",
        "sweep_seconds": "0.2",
        "retention_days": "30",
        "grace_seconds": "0",
        "thread_busy": "refuse",
        "thread_turns": "7",
        "max_body_bytes": "4096",
        "max_batch_bytes": "8192",
        "grpc_port": "8702",
        "log_level": "debug",
        "log_format": "json",
    }
    assert given.keys() == Settings.model_fields.keys(), "a setting is missing here"
    found = read_settings({f"{PREFIX}{name.upper()}": value for name, value in given.items()})
    assert (found.auto_migrate, found.config, found.port, found.lease_seconds) == (
        False,
        Path("agents.toml"),
        0,
        2.5,
    )
    unchanged = {
        name for name, field in Settings.model_fields.items() if getattr(found, name) == field.default
    }
    assert unchanged == {"dispatcher_url"}


def test_every_setting_says_what_it_does():
    assert all(field.description for field in Settings.model_fields.values())


def test_an_empty_variable_is_not_set():
    assert read_settings({"OPSPAWN_PORT": "", "OPSPAWN_APP": ""}) == Settings()


@pytest.mark.parametrize(
    "name, meant",
    [
        *(("OPSPAWN_PROT", "OPSPAWN_PORT"), ("OPSPAWN_STORE", "OPSPAWN_STORE_URL")),
        *(("OPSPAWN_LEASE_SECOND", "OPSPAWN_LEASE_SECONDS"), ("OPSPAWN_XYZZY", None)),
    ],
)
def test_an_unknown_variable_is_refused_with_a_hint(name, meant):
    with pytest.raises(ConfigError, match=f"{name} is not a setting") as refused:
        read_settings({name: "secret"})
    assert (meant is None) == ("did you mean" not in str(refused.value))
    assert meant is None or f"did you mean {meant}?" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "name, value",
    [
        *(("port", value) for value in ("s3cret", "-1", "65536", "8o80", "1.5")),
        *(("concurrency", value) for value in ("0", "-3", "s3cret")),
        *(("lease_seconds", value) for value in ("0.5", "3601", "nan", "s3cret", "inf")),
        *(("poll_seconds", value) for value in ("0", "-1", "nan", "s3cret")),
        *(("grace_seconds", value) for value in ("-1", "1e9", "s3cret")),
        *(("host", value) for value in ("0.0.0.0", "s3cret", "::")),
        *(("log_level", value) for value in ("DEBUG!", "s3cret")),
        *(("auto_migrate", value) for value in ("perhaps", "s3cret")),
        *(("max_body_bytes", value) for value in ("1", "s3cret")),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_not_quoted(name, value):
    with pytest.raises(ConfigError, match=PREFIX + name.upper()) as refused:
        read_settings({PREFIX + name.upper(): value})
    assert refused.value.field == name
    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_all_that_is_wrong_is_named_at_once():
    with pytest.raises(ConfigError) as refused:
        read_settings({"OPSPAWN_PORT": "x", "OPSPAWN_CONCURRENCY": "0"})
    assert "OPSPAWN_PORT" in str(refused.value)
    assert "OPSPAWN_CONCURRENCY" in str(refused.value)


def test_the_command_line_wins_where_it_says_something():
    environ = {"OPSPAWN_PORT": "1000", "OPSPAWN_CONCURRENCY": "3"}
    found = read_settings(environ, port=2000, concurrency=None)
    assert (found.port, found.concurrency) == (2000, 3)


def test_the_command_line_is_checked_too():
    with pytest.raises(ConfigError, match="PORT"):
        read_settings({}, port=-1)
    with pytest.raises(ConfigError, match="NONSENSE"):
        read_settings({}, nonsense=1)


def test_the_environment_of_the_process_is_read_where_none_is_given(monkeypatch):
    monkeypatch.setenv("OPSPAWN_PORT", "1234")
    assert read_settings().port == 1234


def test_settings_never_change():
    with pytest.raises(ValidationError):
        Settings().port = 1
