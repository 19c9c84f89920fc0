"""Catalog of the agents of a deployment, by name. ``opspawn.toml`` is read in :mod:`ops_core.config.loader`."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, redirect_stdout
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from agentkit.agent import Agent
from agentkit.errors import UsageError
from agentkit.mcp import McpPool
from agentkit.models import NamedEndpoint, check_settings, opened, split_name
from agentkit.models.settings import checked
from agentkit.ports import Model
from agentkit.tools.builtin.everyday import everyday_tools
from ops_core.config.import_path import import_object, what_broke
from ops_core.config.mcp import ServeTable
from ops_core.config.model_terms import ModelTerms
from ops_core.config.sandbox import Sandboxing
from ops_core.config.tables import DEFAULT_MODEL
from ops_core.errors import AgentNotFound, ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@:/-]{0,199}")
DEFAULT_AGENT = "assistant"


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """An agent as this deployment runs it.

    Attributes:
        agent: the declaration.
        deps: what its tools are given as ``ToolContext.deps``.
        deps_from: import path of what makes them, for tools in sandboxes: each call there makes its own. Where ``deps``
            are not given, this process makes them by it, too, if a tool needs them here.
    """

    agent: Agent[Any, Any]
    deps: Any = None
    deps_from: str | None = None


class Catalog:
    """Agents by name.

    Args:
        agents: agents that need no dependencies; others are added with :meth:`add`.
        endpoints: servers of models under names of their own, for all agents.
        terms: what models cost, how much they may be sent, and what may be spent.
        mcp: MCP servers that the agents use; whoever runs them opens and closes the connections.
        sandboxing: where tools run that do not say it themselves; the pool where not given. For tools that are
            trusted with everything this process has, ``Sandboxing(default="inprocess")``.
        serve: which agents are offered over MCP, and how.

    Raises:
        ConfigError: two agents have one name, or an endpoint is wrong.
    """

    def __init__(
        self,
        agents: Iterable[Agent[Any, Any]] = (),
        *,
        endpoints: Mapping[str, NamedEndpoint] | None = None,
        terms: ModelTerms | None = None,
        mcp: McpPool | None = None,
        sandboxing: Sandboxing | None = None,
        serve: ServeTable | None = None,
    ) -> None:
        self.mcp = McpPool(()) if mcp is None else mcp
        self.sandboxing = Sandboxing() if sandboxing is None else sandboxing
        self.serve = ServeTable() if serve is None else serve
        self.terms = ModelTerms() if terms is None else terms
        self.endpoints = {name: _checked(name, each) for name, each in (endpoints or {}).items()}
        self._served: dict[str, CatalogEntry] = {}
        for agent in agents:
            self.add(agent)

    def add(self, agent: Agent[Any, Any], deps: Any = None, *, deps_from: str | None = None) -> None:
        """Serve ``agent`` under its name, with ``deps`` for its tools; see :class:`CatalogEntry`.

        Raises:
            ConfigError: there is an agent of this name, or its name or its model's name cannot be used.
        """
        self._add(CatalogEntry(agent=agent, deps=deps, deps_from=deps_from))

    def _add(self, served: CatalogEntry) -> None:
        agent = served.agent
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
        if isinstance(agent.model, str):
            try:
                checked(
                    agent.settings, partial(check_settings, agent.model, endpoints=self.endpoints), agent.name
                )
            except UsageError as error:
                raise ConfigError(str(error), field="agents") from None
        if agent.name in self._served:
            message = f"two agents are called {agent.name}"
            raise ConfigError(message, field="agents")
        self._served[agent.name] = served

    def without(self, names: Collection[str]) -> Catalog:
        """The same agents, except these."""
        return self._of(served for name, served in self._served.items() if name not in names)

    def only(self, served: CatalogEntry) -> Catalog:
        """A catalog of one agent, which need not be one of these, with everything else of this one."""
        return self._of([served])

    def with_others(self, others: Mapping[str, CatalogEntry]) -> Catalog:
        """The same agents, of which these are declared otherwise."""
        return self._of(others.get(name, served) for name, served in self._served.items())

    def _of(self, served: Iterable[CatalogEntry]) -> Catalog:
        """Copy the catalog whole, then exchange the agents: a field that is added later cannot be left behind."""
        other = copy(self)
        other._served = {}  # noqa: SLF001  (of its own class)
        for each in served:
            other._add(each)  # noqa: SLF001
        return other

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all agents, in the order of their declaration."""
        return tuple(self._served)

    def get(self, name: str) -> CatalogEntry:
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
        with redirect_stdout(sys.stderr):
            return function()
    except ConfigError:
        raise
    except Exception as error:
        message = f"app: {path} breaks when it is called: {what_broke(error)}"
        raise ConfigError(message, field="app") from error
