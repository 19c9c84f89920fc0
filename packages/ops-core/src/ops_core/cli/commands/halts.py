"""``opspawn halt``, ``halts`` and ``lift``: the kill switch."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ops_core.cli import phase
from ops_core.cli.exit_codes import Exit
from ops_core.cli.options import Json, Key, Limit, Url, do

if TYPE_CHECKING or phase.to_run:
    from ops_core.cli.connect import connected
    from ops_core.cli.task_ids import whole_id
    from ops_core.cli.terminal.halt_lines import print_halt, what
    from ops_core.cli.terminal.screen import Screen
    from ops_core.cli.terminal.text import one_line
    from ops_core.errors import InvalidRequest
    from ops_core.halt import MAX_BY, MAX_REASON, MAX_TARGET, HaltKind
    from ops_core.schemas import HaltBody, HaltRequest, LiftRequest
    from ops_core.strict_json import is_unicode


class Halted(StrEnum):
    """What can be halted; as :class:`ops_core.halt.HaltKind`, which takes longer to load."""

    TASK = "task"
    AGENT = "agent"
    TOOL = "tool"
    SERVER = "server"
    ALL = "all"


Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; it is kept, and the model is told it.")]


def halt(
    kind: Annotated[
        Halted, typer.Argument(help="What is halted; server: an MCP server.", show_default=False)
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="The task's id; the name of the agent, tool (* and ? fit any) or server.",
            show_default=False,
        ),
    ] = "",
    reason: Reason = "",
    idempotency_key: Key = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Halt a task, an agent, a tool, an MCP server, or everything; prints the halt's id.

    It holds when the id is printed: no worker claims what is halted, and none makes a call that it holds and that may
    change something. Runs that are under way are let go within a second, and go on when the halt is lifted; a call that
    is under way is cancelled. Other tools of a run go on, and its model is told why one is refused.
    """
    order = Order(kind=kind, target=target, reason=reason, idempotency_key=idempotency_key)
    do(_halt(order, url, as_json))


def halts(
    everything: Annotated[bool, typer.Option("--all", help="Those that were lifted, too.")] = False,
    limit: Limit = 20,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List what is halted, by whom and why; the newest first."""
    do(list_halts(everything=everything, limit=limit, url=url, as_json=as_json))


def lift(
    halt_id: Annotated[str, typer.Argument(metavar="HALT", help="The halt's id.", show_default=False)],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is kept.")] = "",
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Lift a halt: what it held goes on, unless another halt holds it."""
    do(_lift(halt_id, reason, url, as_json))


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be halted, as it is typed."""

    kind: str
    target: str
    reason: str = ""
    idempotency_key: str | None = None


async def _halt(order: Order, url: str | None, as_json: bool) -> Exit:
    """Halt something."""
    _check("target", order.target, MAX_TARGET)
    _check("reason", order.reason, MAX_REASON)
    request = HaltRequest(kind=HaltKind(order.kind), target=order.target, reason=order.reason, by=_person())
    request.as_new()
    async with connected(url) as client:
        if request.kind is HaltKind.TASK:
            request = request.model_copy(update={"target": await whole_id(client, request.target)})
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
            print_halt(screen, one)
    if not as_json and screen.is_terminal:
        if not page.items:
            screen.say("nothing is halted", "quiet")
        if page.next_cursor is not None:
            screen.say("there are more: --limit", "quiet", indent=0)
    return Exit.OUTPUT_CLOSED if screen.closed else Exit.OK


async def _lift(halt_id: str, reason: str, url: str | None, as_json: bool) -> Exit:
    """Lift a halt."""
    _check("reason", reason, MAX_REASON)
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


def _same(one: HaltBody, lifted: HaltBody) -> bool:
    return (one.kind, one.target) == (lifted.kind, lifted.target)


def _person() -> str:
    return getpass.getuser()[:MAX_BY]


def _check(field: str, text: str, most: int) -> None:
    if len(text) > most:
        message = f"{field} must have at most {most} characters"
        raise InvalidRequest(message, field=field)
    if not is_unicode(text):  # a terminal that does not write UTF-8
        message = f"{field} must be Unicode text; your terminal seems to write another encoding"
        raise InvalidRequest(message, field=field)
