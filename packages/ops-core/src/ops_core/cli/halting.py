"""What the commands of the kill switch do."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.text import Text

from ops_core.cli.connecting import connected
from ops_core.cli.exits import Exit
from ops_core.cli.narration import seconds_of
from ops_core.cli.screen import STYLES, Screen
from ops_core.cli.text import one_line
from ops_core.client import Client
from ops_core.errors import InvalidRequest, OpsError
from ops_core.halt import MOST_BY, MOST_REASON, MOST_TARGET, HaltKind
from ops_core.listing import PAGE_MOST
from ops_core.strict_json import is_unicode
from ops_core.wire import HaltBody, HaltRequest, LiftRequest, TaskBody


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be halted, as it is typed."""

    kind: str
    target: str
    reason: str = ""
    idempotency_key: str | None = None


async def halt(order: Order, url: str | None, as_json: bool) -> Exit:
    """Halt something."""
    _check("target", order.target, MOST_TARGET)
    _check("reason", order.reason, MOST_REASON)
    request = HaltRequest(kind=HaltKind(order.kind), target=order.target, reason=order.reason, by=_person())
    request.as_new()
    async with connected(url) as client:
        made = await client.halt(request, idempotency_key=order.idempotency_key)
    screen = Screen()
    if as_json:
        screen.json(made.model_dump(mode="json"))
    else:
        screen.raw(made.id)
    return Exit.OK


async def list_halts(*, everything: bool, limit: int, url: str | None, as_json: bool) -> Exit:
    """What is halted."""
    screen = Screen()
    async with connected(url) as client:
        page = await client.halts(in_force=not everything, limit=limit)
    for one in page.items:
        if as_json:
            screen.json(one.model_dump(mode="json"))
        else:
            told_halt(screen, one)
    if not as_json and screen.is_terminal:
        if not page.items:
            screen.say("nothing is halted", "quiet")
        if page.next_cursor is not None:
            screen.say("there are more: --limit", "quiet", indent=0)
    return Exit.OUTPUT_CLOSED if screen.closed else Exit.OK


async def lift(halt_id: str, reason: str, url: str | None, as_json: bool) -> Exit:
    """Lift a halt."""
    _check("reason", reason, MOST_REASON)
    async with connected(url) as client:
        lifted = await client.lift(halt_id, LiftRequest(reason=reason, by=_person()))
        others = [one for one in (await client.halts()).items if _same(one, lifted)]
    screen = Screen()
    if as_json:
        screen.json(lifted.model_dump(mode="json"))
        return Exit.OK
    screen.raw(f"lifted: {what(lifted)}")
    for one in others:
        screen.raw(f"still halted by {one.id}" + (f": {one_line(one.reason)}" if one.reason else ""))
    return Exit.OK


async def holding(client: Client, task: TaskBody) -> HaltBody | None:
    """What holds a task that has not ended; of several, the newest one that is found soon."""
    if task.status.terminal:
        return None
    targets = {HaltKind.ALL: "", HaltKind.AGENT: task.agent, HaltKind.TASK: task.id}
    try:
        page = await client.halts(limit=PAGE_MOST)
    except OpsError:  # of the release before: it knows no halts
        return None
    return next((one for one in page.items if targets.get(one.kind) == one.target), None)


def told_holding(one: HaltBody) -> str:
    """That a task does not go on, and how it would."""
    why = f": {one_line(one.reason)}" if one.reason else ""
    return f"{what(one)} is halted{_by(one.by)}{why}; to let it go on: opspawn lift {one.id}"


def told_halt(screen: Screen, one: HaltBody) -> None:
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


def _same(one: HaltBody, lifted: HaltBody) -> bool:
    return (one.kind, one.target) == (lifted.kind, lifted.target)


def _ago(moment: datetime) -> str:
    return f"{seconds_of(max(0.0, (datetime.now(UTC) - moment).total_seconds()))} ago"


def _by(person: str) -> str:
    return f" by {one_line(person)}" if person else ""


def _person() -> str:
    return getpass.getuser()[:MOST_BY]


def _check(field: str, text: str, most: int) -> None:
    if len(text) > most:
        message = f"{field} must have at most {most} characters"
        raise InvalidRequest(message, field=field)
    if not is_unicode(text):  # a terminal that does not write UTF-8
        message = f"{field} must be Unicode text; your terminal seems to write another encoding"
        raise InvalidRequest(message, field=field)
