"""Loader of the agents that ``opspawn.toml`` declares."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, cast

from pydantic import ValidationError

from agentkit.agent import Agent
from agentkit.budget.limits import Limits
from agentkit.errors import UsageError
from agentkit.memories import AgentMemory
from agentkit.messages import ToolSpec
from agentkit.models import NamedEndpoint
from agentkit.models.resilience.retry import Retries
from agentkit.models.settings import ModelSettings
from agentkit.policies import SecurityPolicy
from agentkit.run.compaction import Context
from agentkit.run.memory import REMEMBER
from agentkit.run.telemetry import Telemetry
from agentkit.sandbox import Confinement, Grants, Trusted
from agentkit.schema import OutputSchema
from agentkit.tools import HttpToolset, Tool
from agentkit.tools.builtin.everyday import everyday_tools
from agentkit.tools.builtin.programs import ProgramTool, python_tool, shell_tool
from agentkit.tools.functions import as_tool
from ops_core.config.catalog import Catalog, CatalogEntry
from ops_core.config.grants import check_catalog_grants
from ops_core.config.import_path import import_object, what_broke
from ops_core.config.mcp import lock_of
from ops_core.config.policies import PolicyError
from ops_core.config.sandbox import SandboxTable, ToolTable
from ops_core.config.tables import AgentTable, ConfigFile, problems_of
from ops_core.errors import ConfigError
from ops_core.settings import variables

_PROGRAMS = {"python": python_tool, "shell": shell_tool}
_BUILT_IN = ("everyday", *_PROGRAMS)


def read_catalog(path: Path, environ: Mapping[str, str] | None = None) -> Catalog:
    """The agents that are declared in a file.

    Args:
        path: of the file.
        environ: what ``${NAME}`` in ``[tools.NAME]`` stands for; the environment of the process where not given.

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
        message = f"{path}: {problems_of(error)}"
        raise ConfigError(message, field="config") from None
    endpoints = {name: NamedEndpoint(**dict(table)) for name, table in config.endpoints.items()}
    pool = config.mcp.pool(path)
    apis = _apis(config, path, variables() if environ is None else environ)
    agents: list[CatalogEntry] = []
    for name, declared in config.agents.items():
        toolsets = config.mcp.tools(pool, declared, f"{path}: agents.{name}")
        tools = [*_tools(name, declared, config, path, apis), *toolsets]
        if declared.deps is not None:
            import_object(declared.deps, path.parent, f"{path}: agents.{name}.deps")
        try:
            agent = _agent(name, declared, path, tools)
        except UsageError as error:
            message = f"{path}: {error}"
            raise ConfigError(message, field="agents") from None
        agents.append(CatalogEntry(agent=agent, deps_from=declared.deps))
    _check_names(config.sandbox, [tool for each in agents for tool in each.agent.tools], path)
    sandboxing = config.sandbox.as_sandboxing(path.parent.resolve())
    serve = config.mcp.serve
    if unknown := set(serve.agents or ()) - set(config.agents):
        message = f"{path}: mcp.serve.agents.{min(unknown)}: there is no such agent"
        raise ConfigError(message, field="config")
    terms = config.terms()
    catalog = Catalog(endpoints=endpoints, terms=terms, mcp=pool, sandboxing=sandboxing, serve=serve)
    for each in agents:
        catalog.add(each.agent, deps_from=each.deps_from)
    check_catalog_grants(catalog, _trusted(config, path))
    return catalog


def _trusted(config: ConfigFile, path: Path) -> list[Trusted]:
    """Files that decide what tools may do: no tool may write them."""
    documents = [table.openapi for table in config.tools.values() if table.openapi is not None]
    return [
        Trusted("the configuration", path),
        Trusted("the file of approved MCP servers", lock_of(path)),
        Trusted("the folder of Python modules of the configuration", path.parent),
        *(Trusted("an OpenAPI document", path.parent / document) for document in documents),
    ]


def _apis(config: ConfigFile, path: Path, environ: Mapping[str, str]) -> dict[str, HttpToolset]:
    """What ``[tools.NAME]`` declares and enables."""
    found: dict[str, HttpToolset] = {}
    for name, table in config.tools.items():
        problem = "the name is taken" if name in _BUILT_IN else None
        try:
            if table.enabled:
                found[name] = table.toolset(name, path.parent, environ)
        except UsageError as error:
            problem = str(error)
        if problem is not None:
            message = f"{path}: tools.{name}: {problem}"
            raise ConfigError(message, field="config")
    return found


def _tools(
    name: str, declared: AgentTable, config: ConfigFile, path: Path, apis: Mapping[str, HttpToolset]
) -> Iterator[Any]:
    """The tools that an agent names, but for those of MCP servers."""
    for index, wanted in enumerate(declared.tools):
        field = f"{path}: agents.{name}.tools.{index}"
        if wanted == "everyday":
            yield from everyday_tools(path.parent)
        elif wanted in _PROGRAMS:
            yield _program(wanted, config.sandbox, field)
        elif wanted in config.tools:
            if wanted in apis:  # as if it were not named, where it is not enabled
                yield apis[wanted]
        elif ":" not in wanted:
            known = ", ".join([*_BUILT_IN, *config.tools])
            message = f"{field}: {wanted!r} is not an import path package.module:name, nor one of {known}"
            raise ConfigError(message, field="config")
        else:
            found = import_object(wanted, path.parent, field)
            several = cast("Sequence[Any]", found if isinstance(found, list | tuple) else (found,))
            yield from (_checked_tool(tool, f"{field}: {wanted}") for tool in several)


def _agent(name: str, declared: AgentTable, path: Path, tools: Sequence[Any]) -> Agent[Any, Any]:
    known = _known(tools)
    twice = [tool for tool, count in Counter(spec.name for spec in known).items() if count > 1]
    if twice:
        message = f"{path}: agents.{name}.tools: two tools are called {twice[0]}"
        raise ConfigError(message, field="config")
    return Agent(
        declared.model,
        name=name,
        fallback=declared.fallback,
        retries=Retries(**dict(declared.retries)),
        instructions=declared.instructions,
        tools=tools,
        output=_output(name, declared, path),
        deps=NoneType if declared.deps is None else object,
        tool_timeout=declared.tool_timeout_seconds,
        parallel_tools=declared.parallel_tools,
        sequential_tools=declared.sequential_tools,
        limits=Limits(**declared.budget.model_dump()),
        policy=_policy(name, declared, tools, path),
        planning=declared.planning,
        patience=declared.patience,
        context=Context(**declared.context.model_dump()),
        settings=_settings(name, declared, path),
        telemetry=Telemetry(content=declared.telemetry.content),
        memory=None if declared.memory is None else AgentMemory(**declared.memory.model_dump()),
    )


def _settings(name: str, declared: AgentTable, path: Path) -> ModelSettings:
    try:
        return ModelSettings(**declared.settings.model_dump())
    except UsageError as error:
        raise ConfigError(f"{path}: agents.{name}.{error}", field="config") from None


def _output(name: str, declared: AgentTable, path: Path) -> Any:
    """The type of the output; one that JSON cannot express is refused now, not in the first run."""
    if declared.output is None:
        return str
    field = f"{path}: agents.{name}.output"
    found = import_object(declared.output, path.parent, field)
    try:
        _ = OutputSchema(found).json_schema
    except Exception as error:  # noqa: BLE001  (whatever pydantic, or the type's own code, raises)
        message = f"{field}: {declared.output} cannot be the type of an output: {what_broke(error)}"
        raise ConfigError(message, field="config") from None
    return found


def _known(tools: Iterable[Any]) -> list[ToolSpec]:
    """The tools that are known before a run: other toolsets say only then what they have."""
    specs: list[ToolSpec] = []
    for tool in tools:
        if isinstance(tool, Tool):
            specs.append(tool.spec)
        elif isinstance(tool, HttpToolset):
            specs += [made.spec for made in tool.tools]
    return specs


def _check_names(sandbox: SandboxTable, tools: Sequence[Any], path: Path) -> None:
    """What is said of a tool that no agent has would be said in vain."""
    unknown = sandbox.tools.keys() - {tool.name for tool in tools if isinstance(tool, Tool)}
    if unknown and all(isinstance(tool, Tool | HttpToolset) for tool in tools):
        message = f"{path}: sandbox.tools: no agent has a function, or program, {', '.join(sorted(unknown))}"
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
    if not all(isinstance(tool, Tool | HttpToolset) for tool in tools):
        specs = None
    else:
        specs = {spec.name: spec for spec in _known(tools)}
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
    try:
        made = as_tool(tool)
        _ = made.spec
    except (UsageError, TypeError, ValueError) as error:
        message = f"{where} cannot be a tool: {error}"
        raise ConfigError(message, field="config") from None
    return made
