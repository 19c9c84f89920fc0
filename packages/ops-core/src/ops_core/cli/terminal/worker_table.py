"""Workers as a table, and leases in words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.cells import set_cell_size
from rich.text import Text

from ops_core.cli.terminal.screen import STYLES, Screen
from ops_core.cli.terminal.step_lines import seconds_of
from ops_core.cli.terminal.text import one_line
from ops_core.schemas import HeldTaskBody, LeaseBody, WorkerBody

NAME_WIDTH = 28
AGENTS_WIDTH = 18


def print_workers(screen: Screen, workers: Sequence[WorkerBody]) -> None:
    """A line for each worker, and one for each task that it holds."""
    if not workers:
        screen.say("no worker is alive: `opspawn worker` or `opspawn serve` starts one", "quiet")
        return
    if screen.is_terminal:
        screen.print(Text(_row("WORKER", "AGENTS", "TASKS", "SEEN", "VERSION"), STYLES["quiet"]))
    for worker in workers:
        _print_worker(screen, worker)


def lease_in_words(lease: LeaseBody) -> str:
    """Who has a task, and whether the worker is still heard of."""
    if lease.expired_seconds is None:
        since = "" if lease.since is None else f", for {_age(lease.since)}"
        return f"held by {one_line(lease.worker)}{since}"
    ago = seconds_of(lease.expired_seconds) or "0 s"
    return f"held by {one_line(lease.worker)}, lease expired {ago} ago; the next worker takes it over"


def _print_worker(screen: Screen, worker: WorkerBody) -> None:
    name = worker.name if worker.host is None else f"{worker.host} pid {worker.pid}"
    agents = ", ".join(worker.agents) if worker.version is not None else "(own task only)"
    tasks = f"{worker.running}" if worker.capacity is None else f"{worker.running}/{worker.capacity}"
    seen = "" if worker.silent_seconds is None else f"{seconds_of(worker.silent_seconds) or '0 s'} ago"
    text = _row(one_line(name), one_line(agents), tasks, seen, worker.version or "")
    _print(screen, Text(text if worker.alive else f"{text}  silent", "" if worker.alive else STYLES["bad"]))
    for held in worker.tasks:
        tone = STYLES["quiet" if held.expired_seconds is None else "bad"]
        _print(screen, Text(f"  {held.task_id}  {one_line(held.agent)}  {_held(held)}", tone))
    if worker.running > len(worker.tasks):
        _print(screen, Text(f"  and {worker.running - len(worker.tasks):,} more", STYLES["quiet"]))


def _row(name: str, agents: str, tasks: str, seen: str, version: str) -> str:
    fields = (set_cell_size(name, NAME_WIDTH), set_cell_size(agents, AGENTS_WIDTH), f"{tasks:>8}")
    return "  ".join((*fields, f"{seen:>10}", version)).rstrip()


def _held(held: HeldTaskBody) -> str:
    since = "" if held.since is None else f", held for {_age(held.since)}"
    if held.expired_seconds is not None:
        return f"lease expired {seconds_of(held.expired_seconds) or '0 s'} ago{since}"
    left = (held.until - datetime.now(UTC)).total_seconds()
    return f"lease {seconds_of(max(left, 0.0)) or '0 s'}{since}"


def _age(moment: datetime) -> str:
    return seconds_of(max(0.0, (datetime.now(UTC) - moment).total_seconds())) or "0 s"


def _print(screen: Screen, row: Text) -> None:
    if screen.is_terminal:
        row.truncate(screen.width, overflow="ellipsis")
    screen.print(row, soft_wrap=True)
