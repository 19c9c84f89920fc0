"""``opspawn run``: one goal, worked on in this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from ops_core.cli.options import Attach, Json, MaxUsd, Thread, grouped


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What ``opspawn run`` is told."""

    goal: Annotated[
        str | None, typer.Argument(metavar="GOAL", help="What the agent is to do.", show_default=False)
    ] = None
    attach: Attach = None
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="The agent; needed where there are several.")
    ] = None
    model: Annotated[
        str | None, typer.Option(metavar="PROVIDER:NAME", help="Takes the place of the agent's model.")
    ] = None
    thread: Thread = None
    resume: Annotated[
        str | None, typer.Option(metavar="ID", help="Carry on this task, instead of a new goal.")
    ] = None
    budget_usd: MaxUsd = None
    as_json: Json = False


@grouped(RunOptions)
def run(options: RunOptions) -> None:
    """Work on one goal in this process, and show every step.

    The run is a task like any other: every step is in the store before the next one begins. Other tasks in the store
    are left alone, and OPSPAWN_URL does not matter here.

    Ctrl-C lets the run go at its next step; a second Ctrl-C does not wait for it. Either way nothing that is recorded
    is lost: `opspawn run --resume ID` goes on, `opspawn cancel ID` ends it.

    With --thread the run is shown what was asked and answered in that conversation before. Another task of the thread
    that has not ended must end first.

    Where a tool needs approval you are asked; without a terminal, and with --json, the program ends with 5 and says
    how to answer.
    """
    if (options.goal is None) == (options.resume is None):
        message = "give a GOAL, or a task with --resume ID"
        raise typer.BadParameter(message)
    if options.resume is not None and options.attach:
        message = "a task that is carried on with --resume has its attachments already"
        raise typer.BadParameter(message)
    if options.resume is not None and options.thread is not None:
        message = "a task that is carried on with --resume has its thread already"
        raise typer.BadParameter(message)
    from ops_core.cli.lasting import run_lasting
    from ops_core.cli.running import run_here

    raise typer.Exit(run_lasting(run_here(options)))
