"""``opspawn run``: one goal, worked on in this process, with the person at the terminal."""

from __future__ import annotations

import asyncio
import getpass
import sys
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Annotated, cast

import typer

from ops_core.cli import phase
from ops_core.cli.exit_codes import Exit
from ops_core.cli.options import Attach, Json, MaxUsd, Thread, grouped

if TYPE_CHECKING or phase.to_run:
    from pydantic import ValidationError

    from agentkit.run.loop import Event
    from agentkit.transcript.steps import ApprovalAsked, ApprovalGiven, Recorded
    from ops_core.assembly import Ops, open_ops
    from ops_core.cli.error_lines import exit_of_status
    from ops_core.cli.inputs import chosen_agent, serving, with_attachments, with_model
    from ops_core.cli.signals import first_of, signals_to, warnings_to
    from ops_core.cli.task_ids import whole_id
    from ops_core.cli.terminal.live_view import JsonView, PeopleView, View, print_goal
    from ops_core.cli.terminal.output import written_behind
    from ops_core.cli.terminal.prompt import can_ask, confirm
    from ops_core.cli.terminal.screen import Screen, reserved_output
    from ops_core.cli.terminal.tables import how_to_answer, how_to_go_on, how_to_look
    from ops_core.cli.terminal.text import one_line, unmistakable
    from ops_core.config.catalog import CatalogEntry
    from ops_core.errors import ApprovalConflict, ApprovalExpired, InvalidRequest
    from ops_core.runner import Runner
    from ops_core.schemas import TaskBody, TaskRequest
    from ops_core.schemas.queries import task_id_of
    from ops_core.service import LocalClient
    from ops_core.settings import read_settings
    from ops_core.task import DEFAULT_TENANT, Task, TaskStatus


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
    from ops_core.processes.event_loop import run_lasting

    raise typer.Exit(run_lasting(run_here(options)))


GLANCE_SECONDS = 0.1
"""How often a run with an open question is looked at, until it waits for nothing else."""


async def run_here(options: RunOptions) -> Exit:
    """Work on one task until it ends, waits for somebody who is not here, or is let go."""
    if not options.as_json:
        return await _run_behind(options, sys.stdout)
    with reserved_output() as file:  # a tool that prints would be in the middle of the lines
        return await _run_behind(options, file)


async def _run_behind(options: RunOptions, output: IO[str]) -> Exit:
    async with written_behind(output) as file:
        code = await _run(options, Screen(file=cast("IO[str]", file)))
    return Exit.OUTPUT_CLOSED if file.is_broken and code is Exit.OK else code


async def _run(options: RunOptions, screen: Screen) -> Exit:
    settings = read_settings().model_copy(update={"concurrency": 1})
    async with open_ops(settings) as ops:
        declared = ops.catalog
        task = None
        if options.resume is not None:
            local = LocalClient(ops.engine, declared)
            task = await ops.engine.get(DEFAULT_TENANT, task_id_of(await whole_id(local, options.resume)))
            served = serving(declared, task.agent, options.model)
        else:
            served = with_model(declared.get(chosen_agent(declared.names, options.agent)), options.model)
        # whatever keeps the agent from running here (a key, a sandbox, an MCP server) is said before there is a task
        async with replace(ops, catalog=declared.only(served)).prepared() as prepared:
            if task is None:
                task = await _submitted(prepared, served, options)
            return await _Run(prepared, task, screen, as_json=options.as_json).carry(served)


async def _submitted(ops: Ops, served: CatalogEntry, options: RunOptions) -> Task:
    given = with_attachments(options.goal or "", options.attach or ())
    budget = None if options.budget_usd is None else {"usd": options.budget_usd}
    asked = {"agent": served.agent.name, "input": given, "thread_id": options.thread}
    try:
        request = TaskRequest.model_validate({**asked, "budget": budget})
    except ValidationError as error:
        problem = error.errors()[0]
        name = {"thread_id": "--thread", "budget": "--max-usd"}.get(str(problem["loc"][0]), "GOAL")
        message = f"{name}: {problem['msg'].removeprefix('Value error, ')}"
        raise InvalidRequest(message, field="goal") from None
    new = request.as_new_task()
    if new.thread is not None:  # other tasks are left alone here: it could wait for ever
        new = replace(new, thread=replace(new.thread, refuse=True))
    return (await ops.engine.submit(new)).task


class _Run:
    """Everything about the one task that happens in this process."""

    def __init__(self, ops: Ops, task: Task, screen: Screen, *, as_json: bool) -> None:
        self._engine = ops.engine
        self._ops = ops
        self._task = task
        self._screen = screen
        self._people = not as_json
        self._view: View = JsonView(self._screen) if as_json else PeopleView(self._screen)
        self._asked: dict[str, ApprovalAsked] = {}
        self._prompt: asyncio.Task[bool | None] | None = None
        self._stop = asyncio.Event()
        self._signal: Exit | None = None
        self._runner: Runner | None = None

    async def carry(self, served: CatalogEntry) -> Exit:
        """Carry the task as far as it goes here."""
        if self._people:
            model = served.agent.model
            print_goal(self._screen, self._task, model if isinstance(model, str) else model.name)
        with signals_to(self._interrupt), warnings_to(self._view.note):
            self._view.begin()
            await self._say_what_it_waits_for()
            async with self._ops.carrying(self._happened, only=frozenset({self._task.id})) as runner:
                self._runner = runner
                self._screen.when_closed = lambda: self._interrupt(Exit.OUTPUT_CLOSED)
                await first_of(self._watch(), self._answer(), self._stop.wait())
            return await self._close()

    async def _say_what_it_waits_for(self) -> None:
        halt_watch = self._engine.halt_watch
        await halt_watch.refresh_quietly()
        halt = halt_watch.holding(self._task)
        if halt is not None:
            self._view.note(f"{halt}; to let it go on: opspawn lift {halt.id}")
        elif self._task.status is TaskStatus.RUNNING:
            seconds = self._ops.settings.lease_seconds
            self._view.note(
                f"another worker has it; if that one is gone, it goes on here within {seconds:g} s"
            )

    async def _watch(self) -> None:
        """Steps that another process has recorded, and those of this one where they were not shown yet."""
        async for recorded in self._engine.watch(DEFAULT_TENANT, self._task.id):
            self._step(recorded)

    def _happened(self, _task_id: str, event: Event) -> None:
        if isinstance(event, Recorded):
            self._step(event)
        else:
            self._view.event(event)

    def _step(self, recorded: Recorded) -> None:
        step = recorded.step
        if isinstance(step, ApprovalAsked):
            self._asked[step.approval_id] = step
        elif isinstance(step, ApprovalGiven):
            self._asked.pop(step.approval_id, None)
            if self._prompt is not None:
                self._prompt.cancel()
        self._view.step(recorded)

    # --- the person -----------------------------------------------------------------------------------------------

    async def _answer(self) -> None:
        """Ask the person here whenever the run waits for nothing else; returns when somebody else must answer."""
        while True:
            questions = await self._open_questions()
            self._view.pause()
            if not self._people or not can_ask(self._screen):
                return
            answers: list[ApprovalGiven] = []
            for asked in questions:
                call = f" {one_line(asked.tool)} {unmistakable(asked.arguments)}"
                which = call if len(questions) > 1 else ""
                answer = await self._ask(f"Approve{which}?")
                if asked.approval_id not in self._asked:
                    continue  # answered elsewhere in the meantime
                if answer is None:
                    return
                answers.append(
                    ApprovalGiven(
                        approval_id=asked.approval_id,
                        approved=answer,
                        by=getpass.getuser(),
                        digest=asked.digest,
                    )
                )
            for given in answers:
                try:
                    await self._engine.answer(DEFAULT_TENANT, self._task.id, given)
                except (ApprovalConflict, ApprovalExpired):
                    self._view.note("somebody else has answered before")

    async def _ask(self, question: str) -> bool | None:
        self._prompt = asyncio.create_task(confirm(self._screen, question))
        try:
            await asyncio.wait({self._prompt})
            return None if self._prompt.cancelled() else self._prompt.result()
        finally:
            self._prompt.cancel()
            self._prompt = None

    async def _open_questions(self) -> list[ApprovalAsked]:
        while True:
            if self._asked:
                task = await self._engine.get(DEFAULT_TENANT, self._task.id)
                due = task.run_after is not None and task.run_after <= task.updated_at
                if task.status is TaskStatus.WAITING and not due and self._asked:
                    return list(self._asked.values())
            await asyncio.sleep(GLANCE_SECONDS)

    # --- the end --------------------------------------------------------------------------------------------------

    def _interrupt(self, how: Exit) -> None:
        """The first time: let go at the next step; the second time: at once."""
        if self._signal is not None and self._runner is not None:
            self._runner.stop(at_once=True)
            return
        self._signal = how
        self._stop.set()
        if self._people and how is Exit.INTERRUPTED:
            self._view.note("letting go after this step; Ctrl-C again to let go now")

    async def _close(self) -> Exit:
        for recorded in await self._engine.steps(DEFAULT_TENANT, self._task.id):
            self._view.step(recorded)
        self._view.pause()
        task = await self._engine.get(DEFAULT_TENANT, self._task.id)
        screen = self._screen if self._people else Screen(stderr=True)
        if task.status.terminal:
            self._view.end(TaskBody.of(task))
            if self._people:
                how_to_look(screen, task.id)
            return Exit.OUTPUT_CLOSED if self._screen.closed else exit_of_status(task.status)
        if not self._people:
            self._view.end(TaskBody.of(task))
        if self._signal is not None:
            how_to_go_on(screen, task.id, task.steps)
            return self._signal
        how_to_answer(screen, task.id, list(self._asked.values()))
        return Exit.WAITING
