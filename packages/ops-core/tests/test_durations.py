"""Every duration and moment that enters: in opspawn.toml, the environment, the command line, REST and gRPC."""

import json
from collections.abc import Iterator, Mapping
from datetime import time
from math import inf, nan
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BaseModel, ValidationError
from typer.testing import CliRunner

from ops_core.cli.app import app
from ops_core.config.loader import read_catalog
from ops_core.config.tables import ConfigFile
from ops_core.durations import MAX_SECONDS
from ops_core.errors import ConfigError, InvalidRequest
from ops_core.protocol.tasks import request_in
from ops_core.protocol.v1 import task_service_pb2
from ops_core.schemas import TaskRequest
from ops_core.settings import PREFIX, Settings, read_settings

LONG = {"longest_wait"}
"""Durations whose names do not say so."""

BAD = [
    True,
    False,
    "30s",
    "30",
    "",
    -1,
    -0.5,
    nan,
    -inf,
    1e300,
    10**400,
    -(10**400),
    2 * MAX_SECONDS,
    [],
    {},
    time(1),
]


def is_duration(name: str) -> bool:
    return name.endswith(("seconds", "_days")) or name in LONG


def tables(kind: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The places of all durations below a type of the configuration."""
    origin, inner = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            if is_duration(name):
                yield (*place, name)
            else:
                yield from tables(field.annotation, (*place, name))
    elif origin is Annotated:
        yield from tables(inner[0], place)
    elif origin is not None and issubclass(origin if isinstance(origin, type) else object, Mapping):
        yield from tables(inner[1], (*place, "x"))
    else:
        for each in inner:
            yield from tables(each, place)


PLACES = sorted(set(tables(ConfigFile)))


def test_there_are_durations_to_try():
    names = {".".join(place) for place in PLACES}
    assert {"agents.x.budget.seconds", "agents.x.policy.approval_seconds", "circuit.max_seconds"} <= names
    assert {
        "mcp.servers.x.call_seconds",
        "sandbox.limits.cpu_seconds",
        "endpoints.x.timeout_seconds",
    } <= names


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_a_duration_of_the_file_that_is_none_is_named(place: tuple[str, ...]):
    for bad in BAD:
        table: Any = bad
        for key in reversed(place):
            table = {key: table}
        with pytest.raises(ValidationError) as refused:
            ConfigFile.model_validate(table)
        told = [each for each in refused.value.errors() if each["loc"][-1] == place[-1]]
        assert told, (bad, refused.value.errors())
        assert "second" in told[0]["msg"] or "greater" in told[0]["msg"], told


@pytest.mark.parametrize(
    "written", ["true", "'5m'", "-1", "nan", "-inf", "1e300", "1" + 400 * "0", "07:32:00", "[]", "2030-01-31"]
)
def test_the_error_names_the_file_the_table_and_the_key(tmp_path: Path, written: str):
    file = tmp_path / "opspawn.toml"
    file.write_text(
        f'[agents.clerk]\nmodel = "offline:planner"\n[agents.clerk.budget]\nseconds = {written}\n'
    )
    with pytest.raises(ConfigError) as refused:
        read_catalog(file)
    assert str(file) in str(refused.value)
    assert "agents.clerk.budget.seconds" in str(refused.value)


def test_only_approvals_may_take_for_ever():
    table: dict[str, Any] = {"agents": {"x": {"policy": {"approval_seconds": inf}}}}
    assert ConfigFile.model_validate(table).agents["x"].policy.approval_seconds == inf


SETTINGS = sorted(name for name in Settings.model_fields if is_duration(name))
TEXTS = ["true", "30s", "-1", "nan", "inf", "-inf", "1e300", "9" * 400, "[]", "0x10", "\u0663\u0660s", "1,5"]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_duration_of_the_environment_that_is_none_is_named(name: str):
    for bad in TEXTS:
        with pytest.raises(ConfigError) as refused:
            read_settings({PREFIX + name.upper(): bad})
        assert PREFIX + name.upper() in str(refused.value), bad
    assert getattr(read_settings({PREFIX + name.upper(): "12.5"}), name) == 12.5
    with pytest.raises(ConfigError):
        read_settings({}, **{name: True})


# --- the command line -----------------------------------------------------------------------------------------------


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    from ops_core.cli.lazy import COMMANDS, load

    for name, stub in getattr(group, "commands", {}).items():
        command = stub if path or name not in COMMANDS else load(name)
        yield (*path, name), command
        yield from commands(command, (*path, name))


TIMED = ("seconds", "older", "age", "within", "expires", "timeout", "run_at", "every", "since")


def options() -> Iterator[tuple[tuple[str, ...], str, list[str]]]:
    """Every option that is a duration or a moment, with what its command needs besides."""
    import typer.main

    for path, command in commands(typer.main.get_command(app)):
        timed = [one for one in command.params if any(word in (one.name or "").split("_") for word in TIMED)]
        timed += [one for one in command.params if "seconds" in (one.name or "") and one not in timed]
        needed = ["x" for one in command.params if one.param_type_name == "argument"]
        for one in timed:
            if one.param_type_name == "option" and not getattr(one, "is_flag", False):
                yield path, one.opts[0], needed


OPTIONS = list(options())


def test_there_are_options_to_try():
    assert {option for _path, option, _needed in OPTIONS} >= {"--older-than", "--budget-seconds"}


@pytest.mark.parametrize("path, option, needed", OPTIONS, ids=str)
@pytest.mark.parametrize("bad", ["-1", "nan", "inf", "1e400", "30 parsecs", "9" * 400, ""])
def test_a_duration_of_an_option_that_is_none_is_named(path, option, needed, bad, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPSPAWN_STORE_URL", f"sqlite:///{tmp_path}/ops.db")
    result = CliRunner().invoke(app, [*path, *needed, f"{option}={bad}"])
    assert result.exit_code in (1, 2), (result.output, result.exception)
    assert option.strip("-").split("-")[-1] in (result.output + str(result.exception)).replace("_", "-")
    assert "Traceback" not in result.output


# --- REST and gRPC --------------------------------------------------------------------------------------------------

REQUEST = ["timeout_seconds", "expires_seconds", "budget.seconds", "run_at"]
MOMENTS = [
    "2030-01-31",
    "2030-01-31T09:00:00",
    1.8e9,
    True,
    "9999-12-31T23:59:59.999999Z",
    "now",
    "",
    "0000-01-01T00:00:00Z",
]


def test_every_duration_of_a_request_is_tried():
    schema = TaskRequest.model_json_schema()
    found = {name for name in schema["properties"] if is_duration(name) or name.endswith("_at")}
    found |= {f"budget.{name}" for name in schema["$defs"]["BudgetBody"]["properties"] if is_duration(name)}
    assert found == set(REQUEST)


@pytest.mark.parametrize("name", REQUEST)
def test_a_duration_or_moment_of_a_request_that_is_none_is_named(name: str):
    for bad in MOMENTS if name.endswith("_at") else BAD:
        outer, _dot, inner = name.partition(".")
        request = {"agent": "a", "input": "x", outer: {inner: bad} if inner else bad}
        with pytest.raises(ValidationError) as refused:
            TaskRequest.model_validate(request)
        assert ".".join(map(str, refused.value.errors()[0]["loc"])) == name, bad


@pytest.mark.parametrize("name", REQUEST)
def test_a_duration_or_moment_of_a_message_that_is_none_is_named(name: str):
    message = task_service_pb2.CreateTaskRequest(agent="a", input_json=json.dumps("x"))
    fields = message.DESCRIPTOR.fields_by_name
    doubles = {each.name for each in fields.values() if each.type == FieldDescriptor.TYPE_DOUBLE}
    assert doubles == {"timeout_seconds", "expires_seconds"}
    values: list[Any] = [-1, nan, inf, -inf, 1e300, 0]
    if name == "run_at":
        values = [
            Timestamp(seconds=2**62),
            Timestamp(seconds=-(2**62)),
            Timestamp(seconds=253402300799, nanos=-5),
        ]
        values += [
            Timestamp(seconds=253402300799, nanos=999_999_999),
            Timestamp(seconds=0, nanos=2_000_000_000),
        ]
    for value in values:
        told = task_service_pb2.CreateTaskRequest()
        told.CopyFrom(message)
        if name == "run_at":
            told.run_at.CopyFrom(value)
        elif name == "budget.seconds":
            told.budget.seconds = value
        else:
            setattr(told, name, value)
        with pytest.raises((ValidationError, InvalidRequest)) as refused:
            request_in(told)
        where: Any = getattr(refused.value, "field", None)
        if isinstance(refused.value, ValidationError):
            where = ".".join(map(str, refused.value.errors()[0]["loc"]))
        assert where == name
