"""MCP servers of a deployment: declared in ``opspawn.toml``, approved in the file beside it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from agentkit.errors import UsageError
from agentkit.mcp import McpOAuth, McpPool, McpProxy, McpServer, McpToolset, Pins, TokenFolder
from agentkit.messages import Effect
from ops_core.durations import Seconds
from ops_core.errors import ConfigError

_HINTS = (("approved", "approve"), ("logged in", "login"))

LOCK_SUFFIX = ".mcp.lock"
"""``opspawn.toml`` is accompanied by ``opspawn.mcp.lock``. It is committed, like a lock of dependencies."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class OAuthTable(_Strict):
    """``[mcp.servers.NAME.oauth]``: see :class:`agentkit.mcp.McpOAuth`."""

    grant: Literal["authorization_code", "client_credentials"] = "authorization_code"
    issuer: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    client_metadata_url: str | None = None
    scope: str | None = None
    client_auth: Literal["basic", "post"] = "basic"
    redirect_port: int = Field(default=0, ge=0, le=65535)
    hosts: tuple[str, ...] = ()


class McpServerTable(_Strict):
    """``[mcp.servers.NAME]``: see :class:`agentkit.mcp.McpServer`. Programs run in the jail unless it says otherwise.

    Attributes:
        enabled: otherwise it is as if agents did not name it.
    """

    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = Field(default_factory=dict)
    cwd: str | None = None
    sandbox: Literal["jail", "none"] = "jail"
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    url: str | None = None
    headers: Mapping[str, str] = Field(default_factory=dict)
    private: bool = False
    oauth: OAuthTable | None = None
    tools: tuple[str, ...] = ("*",)
    effects: Mapping[str, Effect] = Field(default_factory=dict)
    reaches_out: bool = True
    resources: bool = False
    connect_seconds: Seconds = 30.0
    call_seconds: Seconds = 60.0
    enabled: bool = True


class Offer(_Strict):
    """``[mcp.serve.agents.NAME]``: how an agent is offered as a tool of our own MCP server.

    Attributes:
        description: what it does, for the model of whoever calls it.
        input: JSON schema of the arguments, which become the input of the task as they are; a ``goal``, which is the
            input alone, where not given.
        tasks: whether a caller that knows the extension of tasks is given a task (``optional``), a caller that does
            not is refused (``always``), or everybody waits (``never``).
    """

    description: str = ""
    input: Mapping[str, JsonValue] | None = None
    tasks: Literal["optional", "always", "never"] = "optional"


class ServeTable(_Strict):
    """``[mcp.serve]``: our own MCP server.

    Attributes:
        agents: those that are offered; all of them, where there is no such table.
        approvals: a caller that says it can ask a person may answer approvals of its tasks. It is mostly the host of a
            model, which could answer by itself.
    """

    agents: Mapping[str, Offer] | None = None
    approvals: bool = False


class McpTable(_Strict):
    """``[mcp]`` in ``opspawn.toml``.

    Attributes:
        tokens: folder in which is kept what people have granted by ``opspawn mcp login``, from the folder of the file;
            in the home of whoever runs this where not given.
    """

    tokens: str | None = None
    servers: Mapping[str, McpServerTable] = Field(default_factory=dict)
    serve: ServeTable = ServeTable()

    def pool(self, path: Path) -> McpPool:
        """The servers that are enabled, with what was approved of them.

        Args:
            path: of ``opspawn.toml``; relative folders are taken from there.

        Raises:
            ConfigError: a declaration is wrong, or the file of what was approved is.
        """
        try:
            servers = [_server(name, table) for name, table in self.servers.items() if table.enabled]
            tokens = None if self.tokens is None else TokenFolder(path.parent / self.tokens)
            return McpPool(servers, pins=read_pins(lock_of(path)), folder=str(path.parent), tokens=tokens)
        except UsageError as error:
            message = f"{path}: mcp.servers: {error}"
            raise ConfigError(message, field="config") from None

    def tools(self, pool: McpPool, named: McpNames, where: str) -> list[Any]:
        """The toolsets of an agent.

        Raises:
            ConfigError: it names a server that is not declared, or one in two ways; the message begins with ``where``.
        """
        for field, names in (("mcp", named.mcp), ("mcp_proxy", named.mcp_proxy)):
            for name in names:
                if name not in self.servers:
                    known = ", ".join(self.servers) or "none"
                    message = f"{where}.{field}: there is no MCP server {name!r}; there are: {known}"
                    raise ConfigError(message, field="config")
        if both := set(named.mcp) & set(named.mcp_proxy):
            message = f"{where}: {', '.join(sorted(both))} is named in mcp and in mcp_proxy"
            raise ConfigError(message, field="config")
        expanded = [pool.toolset(name) for name in named.mcp if name in pool.servers]
        behind = [name for name in named.mcp_proxy if name in pool.servers]
        return [*expanded, *([pool.proxy(behind)] if behind else [])]


class McpNames(_Strict):
    """Which MCP servers an agent may use.

    Attributes:
        mcp: each tool of these is a tool of the agent.
        mcp_proxy: the tools of these are found and called by three tools; for many of them.
    """

    mcp: tuple[str, ...] = ()
    mcp_proxy: tuple[str, ...] = ()


def _server(name: str, table: McpServerTable) -> McpServer:
    fields = {field: value for field, value in dict(table).items() if field not in {"enabled", "oauth"}}
    oauth = None if table.oauth is None else McpOAuth(**dict(table.oauth))
    return McpServer(name=name, oauth=oauth, **fields)


def check_mcp(pool: McpPool, tools: Iterable[object]) -> None:
    """See whether the MCP servers of an agent may be used here, as far as can be said without asking them.

    Raises:
        UsageError: one of them may not; the message names it.
    """
    for tool in tools:
        names = tool.servers if isinstance(tool, McpProxy) else ()
        names = (tool.server.name,) if isinstance(tool, McpToolset) else names
        for name in names:
            if name in pool.servers and (problem := pool.problem_of(name)) is not None:
                hint = next(
                    (f" (`opspawn mcp {verb} {name}`)" for word, verb in _HINTS if word in problem), ""
                )
                raise UsageError(f"MCP server {name}: {problem}{hint}")


def lock_of(path: Path) -> Path:
    """The file of what was approved, beside ``path`` of ``opspawn.toml``."""
    return path.with_suffix(LOCK_SUFFIX)


def read_pins(lock: Path) -> Pins:
    """What was approved; nothing where there is no file.

    Raises:
        ConfigError: it cannot be read, or is not as it was written: nothing is approved then.
    """
    try:
        return Pins.from_text(lock.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Pins()
    except UsageError as error:
        message = f"{lock}: {error}: restore it, or delete it and approve again (`opspawn mcp approve`)"
        raise ConfigError(message, field="config") from None
    except (OSError, UnicodeDecodeError) as error:
        message = f"{lock}: it cannot be read: {type(error).__name__}"
        raise ConfigError(message, field="config") from None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def write_pins(lock: Path, pins: Pins) -> None:
    """Keep what was approved: wholly, or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    fresh = lock.with_name(f"{lock.name}.{os.getpid()}.new")
    try:
        fresh.unlink(missing_ok=True)
        with open(fresh, "x", encoding="utf-8", opener=_private) as file:
            file.write(pins.as_text())
        fresh.replace(lock)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        message = f"{lock}: it cannot be written: {error.strerror}"
        raise ConfigError(message, field="config") from None
