"""Lines about halts."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.text import Text

from ops_core.cli.terminal.screen import STYLES, Screen
from ops_core.cli.terminal.step_lines import seconds_of
from ops_core.cli.terminal.text import one_line
from ops_core.errors import OpsError
from ops_core.halt import HaltKind
from ops_core.operations import Operations
from ops_core.schemas import HaltBody, TaskBody
from ops_core.schemas.queries import PAGE_MOST


async def holding(client: Operations, task: TaskBody) -> HaltBody | None:
    """What holds a task that has not ended; of several, the newest one that is found soon."""
    if task.status.terminal:
        return None
    targets = {HaltKind.ALL: "", HaltKind.AGENT: task.agent, HaltKind.TASK: task.id}
    try:
        page = await client.halts(limit=PAGE_MOST)
    except OpsError:  # of the release before: it knows no halts
        return None
    return next((one for one in page.items if targets.get(one.kind) == one.target), None)


def describe_halt(one: HaltBody) -> str:
    """That a task does not go on, and how it would."""
    why = f": {one_line(one.reason)}" if one.reason else ""
    return f"{what(one)} is halted{_by(one.by)}{why}; to let it go on: opspawn lift {one.id}"


def print_halt(screen: Screen, one: HaltBody) -> None:
    """A halt, on a line or two."""
    state = f"{_ago(one.at)}{_by(one.by)}"
    if one.lifted_at is not None:
        state += f", lifted {_ago(one.lifted_at)}{_by(one.lifted_by)}"
    tone = STYLES["person" if one.lifted_at is None else "quiet"]
    row = Text.assemble(one.id, "  ", (what(one), tone), (f"  {state}", STYLES["quiet"]))
    screen.print(row, soft_wrap=True)
    for why in (one.reason, one.lifted_reason):
        if why:
            screen.print(Text(f"  {one_line(why)}", STYLES["quiet"]), soft_wrap=True)


def what(one: HaltBody) -> str:
    """What is halted, in words."""
    return "everything" if one.kind is HaltKind.ALL else f"{one.kind} {one_line(one.target)}"


def _ago(moment: datetime) -> str:
    return f"{seconds_of(max(0.0, (datetime.now(UTC) - moment).total_seconds()))} ago"


def _by(person: str) -> str:
    return f" by {one_line(person)}" if person else ""
