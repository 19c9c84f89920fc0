"""Settings of a deployment: environment variables ``OPSPAWN_…``, read here and nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError

from ops_core.durations import SecondsOfText, read_days_of_text, read_seconds_of_text
from ops_core.errors import ConfigError
from ops_core.task import TURNS_SEEN

PREFIX = "OPSPAWN_"

SECRET_NAMES = ("KEY", "PASSWORD", "PASSWD", "SECRET", "TOKEN")
"""What the name of a variable ends in whose value is a secret."""

SHORTEST_SECRET = 6
"""A shorter text is found in too many words to be cut out of them."""


class Settings(BaseModel):
    """All settings. Each is the environment variable ``OPSPAWN_`` + its name in capitals."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store_url: str = Field(
        default="sqlite:///opspawn.db",
        description="Where tasks are kept: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/DATABASE`.",
    )
    dispatcher_url: str = Field(
        default="local://",
        description="How workers are woken: `local://`, or through RabbitMQ with "
        "`amqp://USER:PASSWORD@HOST/VHOST` (`?queue=NAME` for another queue than `opspawn.wake`).",
    )
    auto_migrate: bool = Field(
        default=True,
        description="Bring the schema of an SQLite file up to date when it is opened. That of PostgreSQL, which "
        "processes share, is left to `opspawn migrate`.",
    )
    config: Path | None = Field(
        default=None, description="The file that declares agents; `opspawn.toml` where there is one."
    )
    app: str | None = Field(
        default=None,
        description="Import path `package.module:name` of a catalog; takes the place of the file.",
    )
    url: str | None = Field(
        default=None,
        description="A running server, `http://HOST:PORT` or `grpc://HOST:PORT`, for `submit`, `list`, `show`, "
        "`watch`, `cancel`, `retry`, `thread`, `memory` and `spending`; without it these work on the store directly.",
    )
    host: Literal["127.0.0.1", "::1", "localhost"] = Field(
        default="127.0.0.1",
        description="Where `serve` listens; loopback only, as there is no authentication yet.",
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8700, description="Port of `serve`; 0 for any free one."
    )
    grpc_port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        default=None,
        description="Port of gRPC; 0 for any free one. Where nothing is said it is the one after `OPSPAWN_PORT`, "
        "8701 as a rule. Needs the extra `opspawn[grpc]`.",
    )
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        default=None,
        description="Port of `/metrics` and `/health` of `worker`, on the loopback; 0 for any free one. Of several "
        "processes each takes the next free port. `serve` shows them on its own port.",
    )
    concurrency: PositiveInt = Field(default=100, description="So many runs a worker carries at a time.")
    lease_seconds: Annotated[float, Field(ge=1, le=3600), BeforeValidator(read_seconds_of_text)] = Field(
        default=15.0,
        description="A worker that is silent for so long has lost its tasks; it reports three times as often.",
    )
    poll_seconds: SecondsOfText = Field(
        default=1.0, description="A worker that nobody wakes looks for work this often."
    )
    sweep_seconds: SecondsOfText = Field(
        default=1.0, description="How often tasks of dead workers and tasks out of time are looked for."
    )
    retention_days: Annotated[float, Field(gt=0), BeforeValidator(read_days_of_text)] | None = Field(
        default=None,
        description="Workers delete tasks, with their steps, so long after their end; without it, they are kept until "
        "`opspawn purge`.",
    )
    grace_seconds: Annotated[float, Field(ge=0, le=3600), BeforeValidator(read_seconds_of_text)] = Field(
        default=10.0,
        description="When stopping, so long a step may take to reach its end before it is given up.",
    )
    thread_busy: Literal["queue", "refuse"] = Field(
        default="queue",
        description="What becomes of a task whose thread has another one that has not ended: it waits for its turn, or "
        "it is refused.",
    )
    thread_turns: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=TURNS_SEEN, description="So many of the last turns of its thread a run is shown."
    )
    max_body_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = Field(
        default=1 << 20, description="Largest request body that the API accepts."
    )
    max_batch_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = Field(
        default=16 << 20, description="The same for a batch of tasks."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="How much `serve` and `worker` log."
    )
    log_format: Literal["text", "json"] | None = Field(
        default=None, description="Form of a line of the log; `text` on a terminal and `json` otherwise."
    )

    @property
    def listening_grpc_port(self) -> int:
        """Where gRPC is served; 0 for any free port."""
        if self.grpc_port is not None:
            return self.grpc_port
        return 0 if self.port in (0, 65535) else self.port + 1


def read_settings(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """The settings of this process.

    Args:
        environ: the environment; the process's own where not given.
        overrides: values from the command line, which win; ``None`` for those that were not given.

    Raises:
        ConfigError: a variable is unknown or its value wrong; the message names it, and never holds the value.
    """
    environ = os.environ if environ is None else environ
    given = {
        name[len(PREFIX) :].lower(): value
        for name, value in environ.items()
        if name.startswith(PREFIX) and not _is_service_link(name[len(PREFIX) :], value)
    }
    for name in given:
        if name not in Settings.model_fields:
            close = get_close_matches(name, Settings.model_fields, n=1)
            hint = f"; did you mean {PREFIX}{close[0].upper()}?" if close else ""
            message = f"{PREFIX}{name.upper()} is not a setting{hint}"
            raise ConfigError(message, field=name)
    given = {name: value for name, value in given.items() if value != ""}
    given.update({name: value for name, value in overrides.items() if value is not None})
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        problems = "; ".join(
            f"{PREFIX}{'.'.join(map(str, item['loc'])).upper()}: {item['msg']}" for item in error.errors()
        )
        raise ConfigError(problems, field=str(error.errors()[0]["loc"][0])) from None


_LINK_NAME = re.compile(r"(.+_)?SERVICE_(HOST|PORT(_.+)?)|(.+_)?PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
_LINK_NAME_OF_PORT = re.compile(r"(.+_)?PORT")
_LINK_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+:\d+")


def _is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes has set this variable: it describes each Service of a namespace to each pod, and a Service
    called ``opspawn`` or ``opspawn-grpc`` shares our prefix (``enableServiceLinks``).
    """
    if _LINK_NAME.fullmatch(name):
        return True
    return bool(_LINK_NAME_OF_PORT.fullmatch(name) and _LINK_ADDRESS.fullmatch(value))


def granted_secrets(names: Collection[str], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The values of these variables, for the tools that are granted them.

    Args:
        names: of environment variables.
        environ: the environment; the process's own where not given.

    Raises:
        ConfigError: one is not set; the message names it.
    """
    environ = os.environ if environ is None else environ
    missing = sorted(name for name in names if not environ.get(name))
    if missing:
        message = f"sandbox: secrets that are granted and not set: {', '.join(missing)}"
        raise ConfigError(message, field="sandbox")
    return {name: environ[name] for name in names}


def variables(environ: Mapping[str, str] | None = None) -> Mapping[str, str]:
    """What ``${NAME}`` in ``opspawn.toml`` stands for: the environment, looked at when a value is needed."""
    return os.environ if environ is None else environ


def known_secrets(settings: Settings, environ: Mapping[str, str] | None = None) -> frozenset[str]:
    """Texts that must not be shown: passwords in addresses, and what the environment calls a key or a token.

    Args:
        settings: whose addresses.
        environ: the environment; the process's own where not given.
    """
    environ = os.environ if environ is None else environ
    found = {value for name, value in environ.items() if name.upper().endswith(SECRET_NAMES)}
    for url in (settings.store_url, settings.dispatcher_url, settings.url or ""):
        found |= _secrets_of_url(url)
    return frozenset(secret for secret in found if len(secret) >= SHORTEST_SECRET)


def _secrets_of_url(url: str) -> set[str]:
    try:
        parts = urlsplit(url)
    except ValueError:  # whoever opens it says what is wrong with it
        return set()
    who, _at, _host = parts.netloc.rpartition("@")
    user, _colon, password = who.partition(":")
    named = {value for name, value in parse_qsl(parts.query) if name.upper().endswith(SECRET_NAMES)}
    return named | ({password, unquote(password)} - {user})
