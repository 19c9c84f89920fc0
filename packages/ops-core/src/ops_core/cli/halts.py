"""``opspawn halt``, ``halts`` and ``lift``: the kill switch."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ops_core.cli.options import Json, Key, Limit, Url
from ops_core.cli.tasks import do


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
    from ops_core.cli import halting

    order = halting.Order(kind=kind, target=target, reason=reason, idempotency_key=idempotency_key)
    do(halting.halt(order, url, as_json))


def halts(
    everything: Annotated[bool, typer.Option("--all", help="Those that were lifted, too.")] = False,
    limit: Limit = 20,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List what is halted, by whom and why; the newest first."""
    from ops_core.cli import halting

    do(halting.list_halts(everything=everything, limit=limit, url=url, as_json=as_json))


def lift(
    halt_id: Annotated[str, typer.Argument(metavar="HALT", help="The halt's id.", show_default=False)],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is kept.")] = "",
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Lift a halt: what it held goes on, unless another halt holds it."""
    from ops_core.cli import halting

    do(halting.lift(halt_id, reason, url, as_json))
