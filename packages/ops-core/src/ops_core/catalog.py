"""What this deployment can run: agents by name, declared in Python or in ``opspawn.toml``."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from agentkit.agent import Agent
from agentkit.calls import place_of
from agentkit.compaction import Context, Strategy
from agentkit.errors import UsageError
from agentkit.limits import Limits
from agentkit.mcp import McpPool
from agentkit.memories import AgentMemory
from agentkit.messages import ToolSpec
from agentkit.models import NamedEndpoint, opened, split_name
from agentkit.models.breaker import Breaking
from agentkit.models.limiter import RateLimits
from agentkit.models.named import Kind
from agentkit.models.prices import Price
from agentkit.models.retrying import Retries
from agentkit.policies import SecurityPolicy
from agentkit.ports import Model
from agentkit.remembering import REMEMBER
from agentkit.sandbox import Confinement, Grants
from agentkit.telemetry import Telemetry
from agentkit.tools import Tool
from agentkit.tools.everyday import everyday_tools
from agentkit.tools.programs import ProgramTool, python_tool, shell_tool
from ops_core.errors import AgentNotFound, ConfigError
from ops_core.mcp import McpNames, McpTable, ServeTable
from ops_core.policies import PolicyError, PolicyTable
from ops_core.sandboxing import Sandboxing, SandboxTable, ToolTable
from ops_core.terms import Spending, Terms

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@:/-]{0,199}")
_PROGRAMS = {"python": python_tool, "shell": shell_tool}
DEFAULT_AGENT = "assistant"
DEFAULT_MODEL = "offline:planner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """An agent as this deployment runs it.

    Attributes:
        agent: the declaration.
        deps: what its tools are given as ``ToolContext.deps``.
    """

    agent: Agent[Any, Any]
    deps: Any = None


class Catalog:
    """Agents by name.

    Args:
        agents: agents that need no dependencies; others are added with :meth:`add`.
        endpoints: servers of models under names of their own, for all agents.
        terms: what models cost, how much they may be sent, and what may be spent.
        mcp: MCP servers that the agents use; whoever runs them opens and closes the connections.
        sandboxing: where tools run; in this process where nothing is said, as whoever hands objects over in Python
            has them in it. For ``opspawn.toml``, which names them, it is the pool.
        serve: which agents are offered over MCP, and how.

    Raises:
        ConfigError: two agents have one name, or an endpoint is wrong.
    """

    def __init__(
        self,
        agents: Iterable[Agent[Any, Any]] = (),
        *,
        endpoints: Mapping[str, NamedEndpoint] | None = None,
        terms: Terms | None = None,
        mcp: McpPool | None = None,
        sandboxing: Sandboxing | None = None,
        serve: ServeTable | None = None,
    ) -> None:
        self.mcp = McpPool(()) if mcp is None else mcp
        self.sandboxing = Sandboxing() if sandboxing is None else sandboxing
        self.serve = ServeTable() if serve is None else serve
        self.terms = Terms() if terms is None else terms
        self.endpoints = {name: _checked(name, each) for name, each in (endpoints or {}).items()}
        self._served: dict[str, Served] = {}
        for agent in agents:
            self.add(agent)

    def add(self, agent: Agent[Any, Any], deps: Any = None) -> None:
        """Serve ``agent`` under its name, with ``deps`` for its tools.

        Raises:
            ConfigError: there is an agent of this name, or its name or its model's name cannot be used.
        """
        if not _NAME.fullmatch(agent.name):
            message = f"an agent cannot be called {agent.name!r}: letters, digits and . _ - + @ : / only, at most 200"
            raise ConfigError(message, field="agents")
        for field, model in (("model", agent.model), *(("fallback", each) for each in agent.fallback)):
            if isinstance(model, str):
                try:
                    split_name(model, self.endpoints)
                except UsageError as error:
                    message = f"agent {agent.name}: {field}: {error}"
                    raise ConfigError(message, field="agents") from None
        if agent.name in self._served:
            message = f"two agents are called {agent.name}"
            raise ConfigError(message, field="agents")
        self._served[agent.name] = Served(agent=agent, deps=deps)

    def without(self, names: Collection[str]) -> Catalog:
        """The same agents, except these."""
        others = Catalog(
            endpoints=self.endpoints,
            terms=self.terms,
            mcp=self.mcp,
            sandboxing=self.sandboxing,
            serve=self.serve,
        )
        others._served = {name: served for name, served in self._served.items() if name not in names}
        return others

    def with_tools(self, tools: Mapping[str, Sequence[Any]]) -> Catalog:
        """The same agents, of which these have other tools."""
        others = Catalog(endpoints=self.endpoints, terms=self.terms, mcp=self.mcp, sandboxing=self.sandboxing)
        for name, served in self._served.items():
            given = tools.get(name, served.agent.tools)
            others.add(replace(served.agent, tools=given), served.deps)
        return others

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all agents, in the order of their declaration."""
        return tuple(self._served)

    def get(self, name: str) -> Served:
        """The agent of this name.

        Raises:
            AgentNotFound: there is none.
        """
        if name not in self._served:
            message = f"there is no agent {name!r} here; there are: {', '.join(self._served) or 'none'}"
            raise AgentNotFound(message, field="agent")
        return self._served[name]

    def opened(self, model: str | Model) -> AbstractAsyncContextManager[Model]:
        """``model``, ready for use, where its name may be one of the endpoints; see :func:`agentkit.models.opened`."""
        return opened(model, self.endpoints)


def _checked(name: str, endpoint: NamedEndpoint) -> NamedEndpoint:
    try:
        return endpoint.checked(name)
    except UsageError as error:
        message = f"endpoints.{name}: {error}"
        raise ConfigError(message, field="endpoints") from None


def default_catalog(directory: Path) -> Catalog:
    """One agent for a first look: the offline model with the everyday tools, reading in ``directory`` only."""
    return Catalog([Agent(DEFAULT_MODEL, name=DEFAULT_AGENT, tools=everyday_tools(directory))])


# --- opspawn.toml ------------------------------------------------------------------------------------------------


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Budget(_Strict):
    """``[agents.NAME.budget]``: see :class:`agentkit.limits.Limits`."""

    steps: PositiveInt | None = 100
    tokens: PositiveInt | None = None
    seconds: PositiveFloat | None = None
    usd: PositiveFloat | None = None


class RetriesTable(_Strict):
    """``[agents.NAME.retries]``: see :class:`agentkit.models.retrying.Retries`."""

    tries: PositiveInt = 3
    first_seconds: NonNegativeFloat = 0.5
    most_seconds: NonNegativeFloat = 8.0
    longest_wait: NonNegativeFloat = 20.0


class PriceTable(_Strict):
    """``[prices."PROVIDER:NAME"]``: see :class:`agentkit.models.prices.Price`."""

    input_usd_per_million: NonNegativeFloat
    output_usd_per_million: NonNegativeFloat
    cached_input_usd_per_million: NonNegativeFloat | None = None
    cache_write_usd_per_million: NonNegativeFloat | None = None
    max_output_tokens: PositiveInt | None = None


class LimitsTable(_Strict):
    """``[limits.PROVIDER]`` or ``[limits."PROVIDER:NAME"]``: see :class:`agentkit.models.limiter.RateLimits`."""

    concurrency: PositiveInt | None = None
    requests_per_minute: PositiveInt | None = None
    tokens_per_minute: PositiveInt | None = None


class CircuitTable(_Strict):
    """``[circuit]``: see :class:`agentkit.models.breaker.Breaking`."""

    failures: PositiveInt = 5
    seconds: PositiveFloat = 15.0
    most_seconds: PositiveFloat = 240.0

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.seconds > self.most_seconds:
            message = f"seconds ({self.seconds:g}) must not be more than most_seconds ({self.most_seconds:g})"
            raise ValueError(message)
        return self


class SpendingTable(_Strict):
    """``[spending]``: see :class:`ops_core.terms.Spending`."""

    usd_per_day: PositiveFloat | None = None
    tenants: Mapping[str, PositiveFloat] = Field(default_factory=dict)
    when_reached: Literal["fail", "wait"] = "fail"


class TelemetryTable(_Strict):
    """``[agents.NAME.telemetry]``: see :class:`agentkit.telemetry.Telemetry`."""

    content: bool = False


class ContextTable(_Strict):
    """``[agents.NAME.context]``: see :class:`agentkit.compaction.Context`."""

    window: PositiveInt | None = None
    strategy: Strategy = "summary"


class MemoryTable(_Strict):
    """``[agents.NAME.memory]``: see :class:`agentkit.memories.AgentMemory`."""

    memory: Literal["database"] = "database"
    embeddings: str = "offline:hash"
    remember: Literal["nothing", "outcome", "tool"] = "nothing"
    recall: NonNegativeInt = 5
    tokens: PositiveInt = 1000
    min_score: Annotated[float, Field(ge=-1, le=1)] = 0.0
    per: str | None = None


class AgentTable(McpNames):
    """``[agents.NAME]`` in ``opspawn.toml``.

    Attributes:
        model: ``provider:name``.
        fallback: models that are asked, in this order, where the one before has no reply.
        retries: how often a call of a model that failed is made again.
        instructions: what the model is told before everything else.
        tools: import paths ``package.module:name`` of tools, functions, toolsets, or lists of these; ``everyday``
            stands for the built-in ones, reading below the folder of the file, ``python`` for scripts that the model
            writes, ``shell`` for commands.
        mcp, mcp_proxy: MCP servers, see :class:`ops_core.mcp.McpNames`.
        planning: ``native`` or ``react``.
        budget: the limits of each run.
        policy: rules about tool calls.
        patience: fruitless turns in a row before a run is failed.
        context: what is done when a conversation outgrows the model.
        telemetry: whether spans tell what is said.
        memory: what outlives its runs; nothing where there is no such table.
    """

    model: str = DEFAULT_MODEL
    fallback: tuple[str, ...] = ()
    retries: RetriesTable = RetriesTable()
    instructions: str = ""
    tools: tuple[str, ...] = ()
    planning: Literal["native", "react"] = "native"
    budget: Budget = Budget()
    policy: PolicyTable = PolicyTable()
    patience: PositiveInt = 3
    context: ContextTable = ContextTable()
    telemetry: TelemetryTable = TelemetryTable()
    memory: MemoryTable | None = None


class EndpointTable(_Strict):
    """``[endpoints.NAME]``: see :class:`agentkit.models.NamedEndpoint`."""

    kind: Kind = "openai"
    base_url: str | None = None
    api_key_env: str | None = None
    headers: Mapping[str, str] = Field(default_factory=dict)
    body: Mapping[str, JsonValue] = Field(default_factory=dict)
    timeout_seconds: PositiveFloat = 300.0


class ConfigFile(_Strict):
    """``opspawn.toml`` as a whole."""

    endpoints: Mapping[str, EndpointTable] = Field(default_factory=dict)
    agents: Mapping[str, AgentTable] = Field(default_factory=dict)
    prices: Mapping[str, PriceTable] = Field(default_factory=dict)
    limits: Mapping[str, LimitsTable] = Field(default_factory=dict)
    circuit: CircuitTable = CircuitTable()
    spending: SpendingTable = SpendingTable()
    mcp: McpTable = McpTable()
    sandbox: SandboxTable = SandboxTable()

    def terms(self) -> Terms:
        """On what terms models are asked."""
        return Terms(
            prices={name: Price(**dict(table)) for name, table in self.prices.items()},
            limits={name: RateLimits(**dict(table)) for name, table in self.limits.items()},
            breaking=Breaking(**dict(self.circuit)),
            spending=Spending(**dict(self.spending)),
        )


def read_catalog(path: Path) -> Catalog:
    """The agents that are declared in a file.

    Raises:
        ConfigError: the file cannot be read, or a field is wrong; the message names it.
    """
    try:
        config = ConfigFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        message = f"{path}: {error.strerror}"
        raise ConfigError(message, field="config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"{path} is not TOML: {error}"
        raise ConfigError(message, field="config") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        message = f"{path}: {problems}"
        raise ConfigError(message, field="config") from None
    endpoints = {name: NamedEndpoint(**dict(table)) for name, table in config.endpoints.items()}
    pool = config.mcp.pool(path)
    agents: list[Agent[Any, Any]] = []
    for name, declared in config.agents.items():
        toolsets = config.mcp.tools(pool, declared, f"{path}: agents.{name}")
        agents.append(_agent(name, declared, path, toolsets, config.sandbox))
    _check_names(config.sandbox, [tool for agent in agents for tool in agent.tools], path)
    sandboxing = config.sandbox.as_sandboxing(path.parent.resolve())
    serve = config.mcp.serve
    if unknown := set(serve.agents or ()) - set(config.agents):
        message = f"{path}: mcp.serve.agents.{min(unknown)}: there is no such agent"
        raise ConfigError(message, field="config")
    terms = config.terms()
    return Catalog(agents, endpoints=endpoints, terms=terms, mcp=pool, sandboxing=sandboxing, serve=serve)


def _agent(
    name: str, declared: AgentTable, path: Path, toolsets: Iterable[Any], sandbox: SandboxTable
) -> Agent[Any, Any]:
    tools: list[Any] = []
    for index, wanted in enumerate(declared.tools):
        if wanted == "everyday":
            tools += everyday_tools(path.parent)
            continue
        field = f"{path}: agents.{name}.tools.{index}"
        if wanted in _PROGRAMS:
            tools.append(_program(wanted, sandbox, field))
            continue
        found = import_object(wanted, path.parent, field)
        several = cast("Sequence[Any]", found if isinstance(found, list | tuple) else (found,))
        tools += [_checked_tool(tool, f"{field}: {wanted}") for tool in several]
    tools += toolsets
    return Agent(
        declared.model,
        name=name,
        fallback=declared.fallback,
        retries=Retries(**dict(declared.retries)),
        instructions=declared.instructions,
        tools=tools,
        limits=Limits(**declared.budget.model_dump()),
        policy=_policy(name, declared, tools, path),
        planning=declared.planning,
        patience=declared.patience,
        context=Context(**declared.context.model_dump()),
        telemetry=Telemetry(content=declared.telemetry.content),
        memory=None if declared.memory is None else AgentMemory(**declared.memory.model_dump()),
    )


def _check_names(sandbox: SandboxTable, tools: Sequence[Any], path: Path) -> None:
    """What is said of a tool that no agent has would be said in vain."""
    unknown = sandbox.tools.keys() - {tool.name for tool in tools if isinstance(tool, Tool)}
    if unknown and all(isinstance(tool, Tool) for tool in tools):
        message = f"{path}: sandbox.tools: no agent has a tool {', '.join(sorted(unknown))}"
        raise ConfigError(message, field="sandbox")


def _program(name: str, sandbox: SandboxTable, field: str) -> ProgramTool:
    """A built-in tool that runs programs; its effect depends on what it was granted."""
    told = sandbox.tools.get(name, ToolTable())
    if name == "shell" and not told.granted:
        message = (
            f"{field}: the tool shell has to be granted: write `[sandbox.tools.shell]` with `granted = true`"
        )
        raise ConfigError(message, field="config")
    if told.sandbox not in {None, "jail"}:
        message = f"{field}: the tool {name} runs in the jail, and nowhere else"
        raise ConfigError(message, field="config")
    reaches_out = Grants(write=tuple(told.write), hosts=tuple(str(host) for host in told.hosts))
    return _PROGRAMS[name](Confinement(grants=reaches_out))


def _policy(name: str, declared: AgentTable, tools: Sequence[Any], path: Path) -> SecurityPolicy:
    specs: dict[str, ToolSpec] | None
    if any(not isinstance(tool, Tool) for tool in tools):
        specs = None  # a toolset says only in a run what it has
    else:
        specs = {tool.name: tool.spec for tool in tools}
        if declared.memory is not None and declared.memory.remember == "tool":
            specs[REMEMBER.name] = REMEMBER
    try:
        return declared.policy.as_policy(path.parent.resolve(), specs)
    except PolicyError as error:
        message = f"{path}: agents.{name}.policy.{error.field}: {error}"
        raise ConfigError(message, field="config") from None


def _checked_tool(tool: Any, where: str) -> Any:
    """A tool whose parameters can be described to a model; what cannot is refused now, not in the first run."""
    if hasattr(tool, "specs"):
        return tool
    if not callable(tool):
        message = f"{where} is neither a tool, a function, a toolset, nor a list of these"
        raise ConfigError(message, field="config")
    made = tool if isinstance(tool, Tool) else Tool(tool)
    try:
        _ = made.spec
    except (UsageError, TypeError, ValueError) as error:
        message = f"{where} cannot be a tool: {error}"
        raise ConfigError(message, field="config") from None
    return made


def import_catalog(path: str, directory: Path) -> Catalog:
    """The catalog at an import path ``package.module:name``: a Catalog, an Agent, a list of Agents, or a function
    without arguments that returns one of these.

    Raises:
        ConfigError: it cannot be imported, or is something else.
    """
    found = import_object(path, directory, "app")
    if callable(found) and not isinstance(found, Catalog | Agent):
        found = _called(found, path)
    agents = cast("Sequence[Any]", found if isinstance(found, list | tuple) else (found,))
    if all(isinstance(agent, Agent) for agent in agents):
        found = Catalog(agents)
    if not isinstance(found, Catalog):
        message = (
            f"app: {path} is neither a Catalog, an Agent, a list of Agents, nor a function that returns one"
        )
        raise ConfigError(message, field="app")
    return found


def _called(function: Any, path: str) -> Any:
    if inspect.iscoroutinefunction(function):
        message = f"app: {path} is a coroutine function; it must be an ordinary one"
        raise ConfigError(message, field="app")
    try:
        return function()
    except ConfigError:
        raise
    except Exception as error:
        message = f"app: {path} breaks when it is called: {type(error).__name__} at {place_of(error)}"
        raise ConfigError(message, field="app") from error


def import_object(path: str, directory: Path, field: str) -> Any:
    """What stands at ``package.module:name``; modules in ``directory`` are found too.

    Raises:
        ConfigError: there is nothing; the message begins with ``field``.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not name:
        message = f"{field}: {path!r} is not an import path package.module:name"
        raise ConfigError(message, field=field)
    if str(directory.resolve()) not in sys.path:
        sys.path.insert(0, str(directory.resolve()))
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        message = f"{field}: cannot import {module_name}: {error}"
        raise ConfigError(message, field=field) from error
    except (Exception, SystemExit) as error:
        what = f"{type(error).__name__} at {place_of(error)}"
        message = f"{field}: {module_name} breaks when it is imported: {what}"
        raise ConfigError(message, field=field) from error
    for part in name.split("."):
        if not hasattr(found, part):
            message = f"{field}: {module_name} has no {name}"
            raise ConfigError(message, field=field)
        found = getattr(found, part)
    return found
