"""Sandbox settings ``[sandbox]`` of ``opspawn.toml``: where tools run, and what the operator grants them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from agentkit.errors import UsageError
from agentkit.sandbox import Confinement, Grants, HostRule
from agentkit.sandbox import Limits as CallLimits
from ops_core.durations import Seconds
from ops_core.errors import ConfigError

Place: TypeAlias = Literal["inprocess", "pool", "jail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandboxing:
    """Where tools run.

    Attributes:
        default: those that do not say it themselves; ``inprocess`` is an explicit choice.
        tools: what the operator says of tools, by their names; it goes before what they say themselves.
        limits: of calls of tools for which nothing else is said.
        allow_degraded: tools run although a control that their sandbox needs is missing on this machine.
        concurrency: so many calls run at a time in each sandbox; ``None`` for four per processor.
    """

    default: Place = "pool"
    tools: Mapping[str, Confinement] = field(default_factory=dict[str, Confinement])
    limits: CallLimits = CallLimits()
    allow_degraded: bool = False
    concurrency: int | None = None

    @property
    def secrets(self) -> frozenset[str]:
        """The names of all secrets that some tool is granted."""
        return frozenset(name for told in self.tools.values() for name in told.grants.secrets)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class CallLimitsTable(_Strict):
    """``[sandbox.limits]`` and ``[sandbox.tools.NAME.limits]``: see :class:`agentkit.sandbox.terms.CallLimits`."""

    seconds: Seconds | None = None
    cpu_seconds: Seconds | None = None
    memory_bytes: PositiveInt | None = None
    processes: PositiveInt | None = None
    descriptors: PositiveInt | None = None
    output_bytes: PositiveInt | None = None
    result_bytes: PositiveInt | None = None
    disk_bytes: PositiveInt | None = None

    def over(self, others: CallLimitsTable) -> CallLimits:
        """These limits, with the others where nothing is said."""
        said = {**others.model_dump(exclude_none=True), **self.model_dump(exclude_none=True)}
        return CallLimits(**said)


class HostTable(_Strict):
    """A host that is granted: see :class:`agentkit.net.hosts.HostRule`."""

    host: str
    port: PositiveInt = 443
    private: bool = False


class ToolTable(_Strict):
    """``[sandbox.tools.NAME]``: where one tool runs, and what it may reach.

    Attributes:
        sandbox: ``pool``, ``jail`` or ``inprocess``; the default where nothing is said.
        granted: the tool may be used; only ``shell`` has to be granted.
        read: files and folders, absolute or from the folder of the file.
        write: as above, and they may be changed.
        hosts: ``HOST``, ``HOST:PORT``, or a table with ``private``.
        secrets: names of environment variables of the worker.
        reaches_out: data can leave with a call; as the tool and its grants say, where nothing is said.
        limits: of each call.
    """

    sandbox: Place | None = None
    granted: bool = False
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    hosts: tuple[str | HostTable, ...] = ()
    secrets: tuple[str, ...] = ()
    reaches_out: bool | None = None
    limits: CallLimitsTable = CallLimitsTable()

    def as_confinement(self, folder: Path, limits: CallLimitsTable) -> Confinement:
        """The same for the library.

        Raises:
            UsageError: a host is written wrongly.
        """
        rules = (
            HostRule.of(host) if isinstance(host, str) else HostRule(**dict(host)) for host in self.hosts
        )
        grants = Grants(
            read=tuple(folder / path.expanduser() for path in self.read),
            write=tuple(folder / path.expanduser() for path in self.write),
            hosts=tuple(rules),
            secrets=self.secrets,
        )
        own = self.limits.over(limits) if self.limits.model_fields_set else None
        # a relative path means the same in the tool as in the file, where something there is granted
        there = any(
            true.is_relative_to(folder) or folder.is_relative_to(true)
            for true in (Path(path).resolve() for path in (*grants.read, *grants.write))
        )
        return Confinement(
            sandbox=self.sandbox,
            limits=own,
            grants=grants,
            folder=str(folder) if there else None,
            reaches_out=self.reaches_out,
        )


class SandboxTable(_Strict):
    """``[sandbox]``: where tools run.

    Attributes:
        default: of tools that do not say it themselves, in a file.
        allow_degraded: tools run although a control that their sandbox needs is missing on this machine.
        concurrency: so many calls run at a time in each sandbox; four per processor where nothing is said.
        limits: of calls of tools for which nothing else is said.
        tools: by the names that the model knows.
    """

    default: Place = "pool"
    allow_degraded: bool = False
    concurrency: PositiveInt | None = None
    limits: CallLimitsTable = CallLimitsTable()
    tools: Mapping[str, ToolTable] = Field(default_factory=dict)

    def as_sandboxing(self, folder: Path) -> Sandboxing:
        """The same as the catalog keeps it.

        Args:
            folder: relative paths are from there.

        Raises:
            ConfigError: something is granted that makes no sense.
        """
        tools: dict[str, Confinement] = {}
        for name, table in self.tools.items():
            try:
                tools[name] = table.as_confinement(folder, self.limits)
            except UsageError as error:
                message = f"sandbox.tools.{name}: {error}"
                raise ConfigError(message, field="sandbox") from None
        return Sandboxing(
            default=self.default,
            tools=tools,
            limits=self.limits.over(CallLimitsTable()),
            allow_degraded=self.allow_degraded,
            concurrency=self.concurrency,
        )
