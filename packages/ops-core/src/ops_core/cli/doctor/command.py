"""``opspawn doctor``: examines what is needed. Nothing is changed, no secret is shown."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ops_core import __version__
from ops_core.cli import phase
from ops_core.cli.exit_codes import Exit
from ops_core.cli.options import Json, Url

if TYPE_CHECKING or phase.to_run:
    import httpx2
    from rich.text import Text

    import agentkit
    from agentkit.errors import AgentkitError
    from ops_core.assembly import CONFIG_FILE, load_catalog
    from ops_core.cli.agentkit_check import FORMER_NAMES, OURS
    from ops_core.cli.doctor.finding import Finding, State
    from ops_core.cli.doctor.mcp_servers import examine_servers
    from ops_core.cli.doctor.models import call_models
    from ops_core.cli.doctor.sandboxes import examine_sandboxes
    from ops_core.cli.local_store import store_file
    from ops_core.cli.terminal.screen import STYLES, Screen
    from ops_core.cli.terminal.step_lines import counted
    from ops_core.cli.terminal.text import one_line, without_secrets
    from ops_core.config.http_tools import check_apis
    from ops_core.dispatchers import examine_dispatcher
    from ops_core.errors import ConfigError, OpsError, StoreUnavailable
    from ops_core.ports import Activity, Stats
    from ops_core.processes.server import grpc_is_installed
    from ops_core.settings import PREFIX, Settings, read_settings
    from ops_core.stores import REVISION, SqlStore, open_store
    from ops_core.stores.diagnostics import examine_database, try_to_write
    from ops_core.task import TaskStatus


def doctor(
    url: Url = None,
    live: Annotated[
        bool, typer.Option("--live", help="Call each model once, too: the provider bills a few tokens.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look at everything that is needed: versions, settings, store, agents, models, server.

    Nothing is changed, and no secret is shown. Ends with 1 when something that is needed is missing. With --live, every
    model that an agent names is called once, which shows that its key is good, and what it takes.
    """
    import asyncio

    raise typer.Exit(asyncio.run(examine(url=url, as_json=as_json, live=live)))


Result = TypeVar("Result")
MARKS = {"ok": ("✓", "good"), "note": ("·", "quiet"), "warning": ("!", "person"), "missing": ("✗", "bad")}
PLAIN_MARKS = {"ok": "+", "note": "-", "warning": "!", "missing": "x"}

SAFE_SQLITE = (3, 51, 3)
"""Before it, two processes that write to one file at the wrong moment can damage it (SQLite's WAL-reset bug)."""

LITTLE_DISK = 200 * 1024 * 1024
SERVER_SECONDS = 5.0
STORE_SECONDS = 10.0
AGENT_SECONDS = 10.0
DISPATCHER_SECONDS = 12.0
"""Whatever is asked, it is not waited for longer; `doctor` never hangs."""

NOTABLE_SKEW_SECONDS = 1.0
LATE_SECONDS = 30.0
"""A task that is due for so long is not only waiting for the next worker to look."""


async def examine(*, url: str | None, as_json: bool, live: bool = False) -> Exit:
    """Look at everything and tell it; with ``live`` also call each model."""
    screen = Screen()
    missing = False
    about = ""
    async for finding in _findings(url, live=live):
        missing = missing or finding.state == "missing"
        if as_json:
            screen.json(asdict(finding))
            continue
        if finding.about != about:
            screen.print(Text(("\n" if about else "") + finding.about, style=STYLES["strong"]))
            about = finding.about
        _print_finding(screen, finding)
    if screen.closed:
        return Exit.OUTPUT_CLOSED
    return Exit.FAILED if missing else Exit.OK


def _print_finding(screen: Screen, finding: Finding) -> None:
    mark, tone = MARKS[finding.state]
    if not screen.encoding.lower().startswith("utf"):
        mark = PLAIN_MARKS[finding.state]
    style = STYLES["quiet"] if finding.state == "note" else ""
    head = Text.assemble("  ", (mark, STYLES[tone]), f" {finding.name:<16} ")
    text = one_line(finding.text)
    lines = [text]
    if screen.is_terminal:  # at the words; a path or a URL stays whole, so that it can be copied
        room = max(screen.width - head.cell_len - 1, 20)
        lines = wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    for number, line in enumerate(lines):
        margin = head if number == 0 else Text(" " * head.cell_len)
        screen.print(margin + Text(line, style=style), soft_wrap=True)


async def _findings(url: str | None, *, live: bool) -> AsyncIterator[Finding]:
    for finding in _versions():
        yield finding
    try:
        settings = read_settings(url=url)
    except ConfigError as error:
        yield Finding(about="Settings", name="environment", state="missing", text=str(error))
        return
    for finding in _sqlite(settings):
        yield finding
    for finding in _settings(settings, url):
        yield finding
    async for finding in _store(settings):
        yield finding
    yield await _dispatcher(settings.dispatcher_url)
    async for finding in _agents(settings):
        yield finding
    async for finding in examine_sandboxes():
        yield finding
    if live:
        async for finding in _models(settings):
            yield finding
    if settings.url is not None:
        yield await _server(settings.url)


async def bounded(look: Callable[[], Result], seconds: float) -> Result:
    """What ``look``, which blocks, returns or raises.

    Its thread is left behind when it takes too long, and does not keep the process from ending.

    Raises:
        TimeoutError: it took too long.
    """
    found: Future[Result] = Future()
    found.set_running_or_notify_cancel()  # from here on nobody takes it away from the thread

    def work() -> None:
        try:
            found.set_result(look())
        except Exception as error:  # noqa: BLE001  (it is raised where it is waited for)
            found.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    async with asyncio.timeout(seconds):
        return await asyncio.wrap_future(found)


# --- versions and settings ----------------------------------------------------------------------------------------


def _versions() -> Iterator[Finding]:
    about = "Versions"
    yield Finding(about=about, name="opspawn", state="ok", text=__version__)
    yield _companion()
    yield Finding(
        about=about, name="Python", state="ok", text=f"{platform.python_version()} on {platform.system()}"
    )
    if grpc_is_installed():
        yield Finding(about=about, name="gRPC", state="ok", text=version("grpcio"))
    else:
        yield Finding(about=about, name="gRPC", state="note", text="off: install the extra opspawn[grpc]")


def _sqlite(settings: Settings) -> Iterator[Finding]:
    about, found = "Versions", sqlite3.sqlite_version
    if not settings.store_url.startswith("sqlite"):
        return
    if sqlite3.sqlite_version_info >= SAFE_SQLITE:
        yield Finding(about=about, name="SQLite", state="ok", text=found)
    else:
        safe = ".".join(map(str, SAFE_SQLITE))
        text = f"{found}: before {safe}, several processes that write to one store may damage it; let one process write"
        yield Finding(about=about, name="SQLite", state="warning", text=text)


def _companion() -> Finding:
    """Our agentkit; whether it is ours was looked at before. Where both were installed, files may be of either."""
    name, text = "agentkit", f"{agentkit.__version__}, of {OURS}"
    others = [each for each in FORMER_NAMES if _is_installed(each)]
    if not others:
        return Finding(about="Versions", name=name, state="ok", text=text)
    text += f"; {' and '.join(others)}, of another project, may have replaced some of its files: "
    text += f"`pip uninstall {' '.join(others)}`, then install opspawn again with --force-reinstall"
    return Finding(about="Versions", name=name, state="warning", text=text)


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _settings(settings: Settings, url: str | None) -> Iterator[Finding]:
    for name in Settings.model_fields:
        value = settings.listening_grpc_port if name == "grpc_port" else getattr(settings, name)
        if name == "url" and url is not None:
            source = "--url"
        else:
            source = f"{PREFIX}{name.upper()}" if name in settings.model_fields_set else "default"
        text = f"{'—' if value is None else without_secrets(str(value))} ({source})"
        yield Finding(about="Settings", name=name, state="note" if source == "default" else "ok", text=text)


# --- store --------------------------------------------------------------------------------------------------------


async def _store(settings: Settings) -> AsyncIterator[Finding]:
    about = "Store"
    try:
        file = store_file(settings)
        if file is not None:
            for finding in _file(file):
                yield finding
            if not file.exists():
                return
        store = open_store(settings.store_url)
        found = await bounded(partial(examine_database, store), STORE_SECONDS)
    except OpsError as error:
        yield Finding(about=about, name="usable", state="missing", text=str(error))
        return
    except TimeoutError:
        text = f"no answer within {STORE_SECONDS:g} s"
        yield Finding(about=about, name="usable", state="missing", text=text)
        return
    yield Finding(about=about, name="reachable", state="ok", text=found.product)
    if found.revision is not None or store.migrates_itself:
        yield await _writable(store)
    yield _schema(found.revision, by_itself=settings.auto_migrate and store.migrates_itself)
    if found.unsafe:
        text = f"{', '.join(found.unsafe)} off: a power cut can take back what was acknowledged"
        yield Finding(about=about, name="durable", state="warning", text=text)
    if found.stats is not None:
        if not store.migrates_itself:
            yield _clock(found.skew_seconds)
        for finding in _tasks(found.stats):
            yield finding
    if found.activity is not None:
        yield _workers(found.activity)


async def _writable(store: SqlStore) -> Finding:
    """Whether the store takes a write: one that is only read looks well until the first task."""
    try:
        await bounded(partial(try_to_write, store), STORE_SECONDS)
    except StoreUnavailable as error:
        return Finding(about="Store", name="writable", state="missing", text=str(error))
    except TimeoutError:
        text = f"no answer to a write within {STORE_SECONDS:g} s"
        return Finding(about="Store", name="writable", state="missing", text=text)
    return Finding(about="Store", name="writable", state="ok", text="a write was tried, and taken back")


def _file(file: Path) -> Iterator[Finding]:
    folder = file.absolute().parent
    if not file.exists():
        if not folder.is_dir():
            yield Finding(
                about="Store", name="file", state="missing", text=f"the folder of {file} does not exist"
            )
            return
        if not os.access(folder, os.W_OK | os.X_OK):
            yield Finding(
                about="Store", name="file", state="missing", text=f"the folder of {file} cannot be written"
            )
            return
        yield Finding(about="Store", name="file", state="ok", text=f"{file} is made when it is first needed")
    else:
        yield Finding(
            about="Store", name="file", state="ok", text=f"{file}, {file.stat().st_size / 1e6:,.1f} MB"
        )
    free = shutil.disk_usage(folder).free
    state: State = "ok" if free >= LITTLE_DISK else "warning"
    yield Finding(about="Store", name="free disk", state=state, text=f"{free / 1e9:,.1f} GB")


def _schema(found: str | None, *, by_itself: bool) -> Finding:
    if found == REVISION:
        return Finding(about="Store", name="schema", state="ok", text=found)
    what = "none" if found is None else found
    if found is not None and found > REVISION:
        text = f"{what} is of a newer release; this one works with {REVISION}: upgrade Opspawn"
        return Finding(about="Store", name="schema", state="missing", text=text)
    if by_itself:
        text = f"{what}; brought to {REVISION} when the store is opened"
        return Finding(about="Store", name="schema", state="ok", text=text)
    text = f"{what}; this release works with {REVISION}: run `opspawn migrate`"
    return Finding(about="Store", name="schema", state="missing", text=text)


def _clock(skew_seconds: float) -> Finding:
    if abs(skew_seconds) < NOTABLE_SKEW_SECONDS:
        return Finding(about="Store", name="clock", state="ok", text="as on this machine")
    ahead = "ahead of" if skew_seconds > 0 else "behind"
    text = f"{abs(skew_seconds):,.1f} s {ahead} this machine's; harmless to tasks, which go by the database's clock, "
    text += "but the times in logs differ"
    return Finding(about="Store", name="clock", state="warning", text=text)


def _tasks(stats: Stats) -> Iterator[Finding]:
    running = stats.tasks[TaskStatus.RUNNING]
    text = f"{counted(running, 'task')} running"
    if stats.workers:
        text += f" on {counted(stats.workers, 'worker')}"
    if stats.expired_leases:
        text += f", {stats.expired_leases} of a worker that is gone; the next worker takes them over"
    yield Finding(about="Store", name="leases", state="warning" if stats.expired_leases else "ok", text=text)
    about = "about " if stats.estimated else ""
    text = f"{about}{counted(stats.due, 'task')} due, {stats.tasks[TaskStatus.WAITING]} waiting for an answer"
    late = stats.oldest_due_seconds >= LATE_SECONDS
    if late:
        text += f"; the oldest is due since {stats.oldest_due_seconds:,.0f} s: "
        text += "are there workers, with free slots, that can run its agent?"
    yield Finding(about="Store", name="queue", state="warning" if late else "ok", text=text)
    if stats.halts:
        text = f"{counted(stats.halts, 'halt')} in force: `opspawn halts`"
        yield Finding(about="Store", name="halted", state="warning", text=text)


def _workers(activity: Activity) -> Finding:
    alive = activity.idle + activity.busy
    text = f"{counted(alive, 'worker')} alive, {activity.idle} without a task"
    if not activity.unserved:
        return Finding(about="Store", name="workers", state="ok", text=text)
    agents = ", ".join(one_line(agent) for agent in activity.unserved)
    word = "agent" if len(activity.unserved) == 1 else "agents"
    text += f"; tasks are due, and no living worker serves {word} {agents}: see `opspawn workers`"
    return Finding(about="Store", name="workers", state="warning", text=text)


# --- dispatcher ---------------------------------------------------------------------------------------------------


async def _dispatcher(url: str) -> Finding:
    about, name = "Dispatcher", "wake-ups"
    try:
        usable, text = await bounded(partial(examine_dispatcher, url), DISPATCHER_SECONDS)
    except ConfigError as error:
        return Finding(about=about, name=name, state="missing", text=str(error))
    except TimeoutError:
        usable, text = False, f"no answer within {DISPATCHER_SECONDS:g} s"
    return Finding(about=about, name=name, state="ok" if usable else "warning", text=text)


# --- agents and server --------------------------------------------------------------------------------------------


async def _agents(settings: Settings) -> AsyncIterator[Finding]:
    about = "Agents"
    try:
        catalog = load_catalog(settings)
    except OpsError as error:
        yield Finding(about=about, name="declared in", state="missing", text=str(error))
        return
    yield Finding(about=about, name="declared in", state="ok", text=_source(settings))
    if not catalog.names:
        yield Finding(about=about, name="agents", state="warning", text="none: nothing can be run")
    for name in catalog.names:
        agent = catalog.get(name).agent
        model = agent.model
        called = model if isinstance(model, str) else model.name
        try:
            async with asyncio.timeout(AGENT_SECONDS), catalog.opened(model):
                check_apis(agent.tools)
            yield Finding(about=about, name=one_line(name), state="ok", text=f"{called} can be opened")
        except TimeoutError:
            text = f"{called}: cannot be opened within {AGENT_SECONDS:g} s"
            yield Finding(about=about, name=one_line(name), state="missing", text=text)
        except AgentkitError as error:
            yield Finding(about=about, name=one_line(name), state="missing", text=f"{called}: {error}")
    async for finding in examine_servers(catalog.mcp):
        yield finding


async def _models(settings: Settings) -> AsyncIterator[Finding]:
    try:
        catalog = load_catalog(settings)
    except OpsError:
        return  # told above
    async for finding in call_models(catalog):
        yield finding


def _source(settings: Settings) -> str:
    if settings.app is not None:
        return settings.app
    if settings.config is not None or Path(CONFIG_FILE).exists():
        return str(settings.config or CONFIG_FILE)
    return f"the default agent, as there is no {CONFIG_FILE}"


async def _server(url: str) -> Finding:
    shown = without_secrets(url)
    if url.startswith("grpc://"):
        return await _server_over_grpc(url, shown)
    try:
        client = httpx2.AsyncClient(timeout=SERVER_SECONDS, trust_env=False)
        async with asyncio.timeout(SERVER_SECONDS), client:
            answer = await client.get(f"{url.rstrip('/')}/health/ready")
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
        return Finding(
            about="Server", name="reachable", state="missing", text=f"{shown}: {type(error).__name__}"
        )
    if answer.status_code == 200:
        return Finding(about="Server", name="ready", state="ok", text=shown)
    return Finding(
        about="Server", name="ready", state="missing", text=f"{shown} answers {answer.status_code}"
    )


async def _server_over_grpc(url: str, shown: str) -> Finding:
    if not grpc_is_installed():
        return Finding(about="Server", name="ready", state="missing", text=f"{shown}: gRPC is not installed")
    from ops_core.client.grpc import GrpcClient

    try:
        async with asyncio.timeout(SERVER_SECONDS), GrpcClient(url) as client:
            await client.check()
    except OpsError as error:
        return Finding(about="Server", name="ready", state="missing", text=f"{shown}: {error}")
    except TimeoutError:
        return Finding(about="Server", name="ready", state="missing", text=f"{shown}: it does not answer")
    return Finding(about="Server", name="ready", state="ok", text=shown)
