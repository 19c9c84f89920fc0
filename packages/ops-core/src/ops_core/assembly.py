"""Assembly of the platform: settings become an open platform. No other module builds one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from agentkit.errors import AgentkitError
from agentkit.models.resilience.provider_state import ProviderState
from agentkit.sandbox import Sandboxes, SandboxOptions
from agentkit.signatures import is_instance
from agentkit.tools import Tool
from agentkit.tools.sandboxed import ConfinedTool, Dependencies, confined, preloaded
from ops_core import __version__
from ops_core.config.catalog import Catalog, CatalogEntry, default_catalog, import_catalog
from ops_core.config.grants import check_catalog_grants, store_files
from ops_core.config.http_tools import check_apis
from ops_core.config.import_path import make_deps
from ops_core.config.loader import read_catalog
from ops_core.config.mcp import check_mcp
from ops_core.config.sandbox import Sandboxing
from ops_core.dispatchers import open_dispatcher
from ops_core.dispatchers.wake_up_counter import CountedDispatcher
from ops_core.engine import Engine
from ops_core.errors import ConfigError
from ops_core.memory import check_memory
from ops_core.observability.logs import about
from ops_core.observability.metrics import Metrics, watching_the_loop
from ops_core.observability.store_gauges import StoreGauges
from ops_core.runner import OnTaskEvent, Runner, RunnerOptions
from ops_core.settings import Settings, granted_secrets
from ops_core.stores import migrate_if_needed, open_store
from ops_core.sweeper import purge_forever, sweep_forever
from ops_core.workers import Announcement, worker_name

CONFIG_FILE = "opspawn.toml"

log = logging.getLogger("ops_core.assembly")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ops:
    """An open platform.

    Attributes:
        settings: how it was opened.
        catalog: what it can run.
        engine: the verbs.
        metrics: what this process has counted since it was opened.
        gauges: how full its store is.
        traffic: what is known of the providers of models; all runs of this process share it.
    """

    settings: Settings
    catalog: Catalog
    engine: Engine
    metrics: Metrics
    gauges: StoreGauges
    traffic: ProviderState = field(default_factory=ProviderState)

    @asynccontextmanager
    async def working(
        self, on_event: OnTaskEvent | None = None, only: frozenset[str] | None = None
    ) -> AsyncGenerator[Runner]:
        """A worker and a sweeper in this process; leaving lets go of the tasks within ``grace_seconds``.

        Args:
            on_event: told what happens in the runs.
            only: ids of the tasks that it may take; ``None`` for any.

        Raises:
            ConfigError: not one of the agents can be run here.
        """
        async with self.prepared() as prepared, prepared.carrying(on_event, only) as runner:
            yield runner

    @asynccontextmanager
    async def prepared(self) -> AsyncGenerator[Ops]:
        """The same platform, with the agents that can be run here and their tools where they run.

        Raises:
            ConfigError: not one of the agents can be run here.
        """
        async with open_sandboxes(self.catalog) as sandboxes:
            yield replace(self, catalog=await runnable(self.catalog, sandboxes))

    @asynccontextmanager
    async def carrying(
        self, on_event: OnTaskEvent | None = None, only: frozenset[str] | None = None
    ) -> AsyncGenerator[Runner]:
        """What :meth:`working` does, on a platform that was :meth:`prepared`; the arguments are the same."""
        catalog = self.catalog
        settings = self.settings
        name = worker_name()
        announcement = Announcement(
            name=name, version=__version__, agents=tuple(catalog.names), capacity=settings.concurrency
        )
        options = RunnerOptions(
            owner=name,
            concurrency=settings.concurrency,
            lease_seconds=settings.lease_seconds,
            poll_seconds=settings.poll_seconds,
            grace_seconds=settings.grace_seconds,
            on_event=on_event,
            only=only,
            announcement=announcement if only is None else None,
        )
        runner = Runner(self.engine, catalog, options, self.metrics.runs, self.traffic)
        async with catalog.mcp, asyncio.TaskGroup() as group:
            with about(worker=options.owner):
                sweep = sweep_forever(
                    self.engine, settings.sweep_seconds, settings.lease_seconds, self.metrics.upkeep
                )
                sweeping = group.create_task(sweep)
                keeping = group.create_task(purge_forever(self.engine, settings.retention_days))
                looking = group.create_task(self.engine.halt_watch.look_forever())
            group.create_task(runner.run())
            try:
                yield runner
            finally:
                held = runner.carrying
                log.info(
                    "stopping: no task is claimed any more, %d under way are let go at their next step", held
                )
                sweeping.cancel()
                keeping.cancel()
                looking.cancel()
                runner.stop()


@asynccontextmanager
async def open_ops(settings: Settings, catalog: Catalog | None = None) -> AsyncGenerator[Ops]:
    """The platform that ``settings`` describe.

    Args:
        settings: see there.
        catalog: takes the place of what the settings name.

    Raises:
        ConfigError: a setting or a declaration is wrong.
        SchemaMismatch: the database is to be migrated first, or was migrated by a newer release.
        StoreUnavailable: the database cannot be opened.
    """
    catalog = load_catalog(settings) if catalog is None else catalog
    check_catalog_grants(catalog, store_files(settings.store_url))
    metrics = Metrics()
    store = open_store(settings.store_url, metrics=metrics.writer)
    if settings.auto_migrate and store.migrates_itself:
        await asyncio.to_thread(migrate_if_needed, store)
    async with store, open_dispatcher(settings.dispatcher_url) as dispatcher:
        await store.check()
        spent = partial(store.spent, None) if catalog.terms.spending.is_limited else None
        gauges = StoreGauges(store, spent, partial(store.check, writes=True))
        metrics.registry.register(gauges)
        terms = catalog.terms
        traffic = ProviderState(terms.limits, breaking=terms.breaking, on_call=metrics.models.called)
        metrics.models.watch(traffic.circuits, traffic.queues)
        catalog.mcp.watch(metrics.mcp)
        engine = Engine(
            store,
            CountedDispatcher(dispatcher, metrics.upkeep),
            refuse_busy=settings.thread_busy == "refuse",
            turns_seen=settings.thread_turns,
        )
        # one that reaches other processes needs no second messenger
        alone = settings.dispatcher_url.startswith("local:")
        async with watching_the_loop(metrics.upkeep), engine.listening(wake=alone):
            yield Ops(
                settings=settings,
                catalog=catalog,
                engine=engine,
                metrics=metrics,
                gauges=gauges,
                traffic=traffic,
            )


def open_sandboxes(catalog: Catalog) -> Sandboxes:
    """The sandboxes for the tools of these agents; each is started when it is first asked for.

    Raises:
        ConfigError: a secret that a tool is granted is not in the environment.
    """
    told = catalog.sandboxing
    tools = [tool for name in catalog.names for tool in catalog.get(name).agent.tools]
    options = SandboxOptions(
        limits=told.limits,
        allow_degraded=told.allow_degraded,
        preload=preloaded(tools, usual=told.default, terms=told.tools),
        secrets=granted_secrets(told.secrets),
    )
    if told.concurrency is not None:
        options["concurrency"] = told.concurrency
    return Sandboxes(**options)


async def _placed(served: CatalogEntry, sandboxing: Sandboxing, sandboxes: Sandboxes) -> CatalogEntry:
    """An agent with its tools where they run, the sandboxes that they need open, and its dependencies made."""
    tools = confined(
        served.agent.tools,
        sandboxes,
        usual=sandboxing.default,
        terms=sandboxing.tools,
        deps=Dependencies(given=served.deps is not None, made_by=served.deps_from),
        timeout=served.agent.tool_timeout,
    )
    for tool in tools:
        if isinstance(tool, ConfinedTool):
            await sandboxes.get(tool.confinement.sandbox or "pool")
    deps = served.deps
    needed = any(map(_needs_deps_here, tools)) or not is_instance(deps, served.agent.deps)
    if deps is None and served.deps_from is not None and needed:
        deps = make_deps(served.deps_from, Path.cwd())
    return replace(served, agent=replace(served.agent, tools=tools), deps=deps)


def _needs_deps_here(tool: Any) -> bool:
    if isinstance(tool, Tool):
        return tool.takes_context and not isinstance(tool, ConfinedTool)
    return not type(tool).__module__.startswith("agentkit.")  # of the toolsets, ours need none


async def runnable(catalog: Catalog, sandboxes: Sandboxes | None = None) -> Catalog:
    """The agents whose model, memory and sandboxes can be opened in this process, and whose MCP servers and HTTP tools
    may be used.

    Tasks of the others are not claimed, so that a worker that was started without a key ends nothing: they wait for
    one that has it.

    Raises:
        ConfigError: not one of them can.
    """
    reasons: dict[str, Exception] = {}
    placed: dict[str, CatalogEntry] = {}
    for name in catalog.names:
        try:
            agent = catalog.get(name).agent
            for model in (agent.model, *agent.fallback):
                async with catalog.opened(model):
                    pass
            if agent.memory is not None:
                await check_memory(agent.memory, catalog.endpoints)
            check_mcp(catalog.mcp, agent.tools)
            check_apis(agent.tools)
            if sandboxes is not None:
                placed[name] = await _placed(catalog.get(name), catalog.sandboxing, sandboxes)
        except (AgentkitError, ConfigError) as error:
            reasons[name] = error
    if reasons and len(reasons) == len(catalog.names):
        message = "; ".join(f"agent {name}: {reason}" for name, reason in reasons.items())
        raise ConfigError(message, field="agents")
    for name, reason in reasons.items():
        log.warning("agent %s cannot be run here, its tasks wait: %s", name, reason)
    return catalog.with_others(placed).without(reasons)


def load_catalog(settings: Settings) -> Catalog:
    """The agents that the settings name: an app, a file, or the default agent where there is neither.

    Raises:
        ConfigError: what is named does not exist or is wrong.
    """
    here = Path.cwd()
    if settings.app is not None:
        return import_catalog(settings.app, here)
    file = settings.config or here / CONFIG_FILE
    if settings.config is not None or file.exists():
        return read_catalog(file)
    return default_catalog(here)
