"""``opspawn submit``, ``list``, ``show``, ``watch``, ``cancel``, ``retry`` and ``agents``: tasks at a server, else
in the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops_core.cli import phase
from ops_core.cli.exit_codes import Exit
from ops_core.cli.options import (
    CancelOptions,
    Json,
    Limit,
    RetryOptions,
    SubmitOptions,
    TaskToSee,
    Url,
    Within,
    do,
    grouped,
)

if TYPE_CHECKING or phase.to_run:
    from pydantic import ValidationError

    from agentkit.transcript.codec import recorded_to_json
    from agentkit.transcript.steps import ApprovalAsked
    from ops_core.cli.commands import batch, bulk
    from ops_core.cli.connect import connected
    from ops_core.cli.error_lines import exit_of_status
    from ops_core.cli.inputs import chosen_agent, json_or_file, seconds_in, with_attachments
    from ops_core.cli.task_ids import whole_id
    from ops_core.cli.terminal.halt_lines import describe_halt, holding
    from ops_core.cli.terminal.live_view import JsonView, PeopleView, View, print_goal
    from ops_core.cli.terminal.screen import Screen
    from ops_core.cli.terminal.tables import print_agents, print_task, print_tasks, said
    from ops_core.cli.terminal.worker_table import lease_in_words
    from ops_core.errors import InvalidRequest, OpsError
    from ops_core.operations import Operations
    from ops_core.schemas import LeaseBody, TaskBody, TaskRequest
    from ops_core.task import TaskStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    """What ``opspawn list`` is told."""

    status: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATUS",
            help="pending, running, waiting, completed, failed or cancelled; several with commas, or repeated.",
        ),
    ] = None
    agent: Annotated[str | None, typer.Option(metavar="NAME", help="Of this agent.")] = None
    label: Annotated[str | None, typer.Option(metavar="KEY[=VALUE]", help="With this label.")] = None
    thread: Annotated[str | None, typer.Option(metavar="THREAD", help="Of this thread.")] = None
    limit: Limit = 20
    url: Url = None
    as_json: Json = False


@grouped(SubmitOptions)
def submit(options: SubmitOptions) -> None:
    """Hand in a goal, for a worker to carry out; prints the task's id.

    It is durable when the id is printed. Without --wait the program ends then, with 0. With --file, each line is a task
    as REST takes it, {"agent": …, "input": …, "idempotency_key": …}; the ids are printed in the same order, and a task
    that is refused harms no other.
    """
    do(_submit(options) if options.file is None else batch.submit(options, options.file))


@grouped(ListOptions)
def list_tasks(options: ListOptions) -> None:
    """List tasks, newest first."""
    do(_list_tasks(options))


def show(task_id: TaskToSee, url: Url = None, as_json: Json = False) -> None:
    """Show a task and all its steps. With --json: a line for each step, then the task."""
    do(show_task(task_id, url, as_json))


def watch(
    task_id: TaskToSee,
    after: Annotated[
        int, typer.Option(metavar="N", min=-1, help="Leave out the steps up to this number.")
    ] = -1,
    within: Within = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Follow a task until it ends; the exit code says how it ended.

    It goes on while the task waits for a person; with --within, a task that still waits then gives 5, and one that is
    under way gives 6. Stopping it does nothing to the task.
    """
    do(_watch(task_id, Following(after=after, within=within, url=url, as_json=as_json)))


@grouped(CancelOptions)
def cancel(options: CancelOptions) -> None:
    """Cancel a task, or with a filter all that fit. One that is running ends at its next step.

    One that has ended stays as it is. With a filter the tasks are counted, and you are asked; a script says --yes.
    Without --status, all that have not ended are meant.
    """
    one = _one_or_many(options.task_id, many=bulk.has_filter(options))
    do(bulk.cancel(options) if one is None else _cancel(one, options.url, options.as_json))


@grouped(RetryOptions)
def retry(options: RetryOptions) -> None:
    """Carry on a failed or cancelled task, or with a filter all that fit: new tasks with their steps and new budgets.

    A task is retried once: asked again, this prints the id of the task that carries it on. With a filter the tasks are
    counted, and you are asked; a script says --yes. Without --status, those that failed are meant.
    """
    one = _one_or_many(options.task_id, many=bulk.has_filter(options))
    key = options.idempotency_key
    do(bulk.retry(options) if one is None else _retry(one, key, options.url, options.as_json))


def _one_or_many(task_id: str | None, *, many: bool) -> str | None:
    if (task_id is not None) == many:
        message = (
            "give the ID of a task, or a filter: --status, --agent, --label, --thread, --older-than or --all"
        )
        raise typer.BadParameter(message)
    return task_id


def agents(url: Url = None, as_json: Json = False) -> None:
    """List the agents that can be run, with their tools."""
    do(_agents(url, as_json))


LEASE_LOOK_SECONDS = 2.0
"""How often a task that is followed is looked at for a lease that has run out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """How a task is followed."""

    after: int = -1
    within: float | None = None
    url: str | None = None
    as_json: bool = False


# --- submitting ---------------------------------------------------------------------------------------------------


async def _submit(options: SubmitOptions) -> Exit:
    """Hand in a task, and follow it where that is wanted."""
    given = _input_of(options)
    screen = Screen()
    async with connected(options.url, with_agents=True) as client:
        names = [agent.name for agent in await client.agents()]
        request = _request(options, given, chosen_agent(names, options.agent))
        task = await client.submit(request, idempotency_key=options.idempotency_key)
        if options.wait:
            return await _follow(
                client, task, Following(within=options.within, as_json=options.as_json), screen
            )
    if options.as_json:
        screen.json(task.model_dump(mode="json"))
    elif not screen.is_terminal:
        screen.raw(task.id)
    else:
        screen.raw(task.id)
        screen.pairs({"follow it": f"opspawn watch {task.id}"})
    return Exit.OK


def _input_of(options: SubmitOptions) -> Any:
    if (options.goal is None) == (options.input is None):
        message = "give a GOAL, or the input with --input JSON"
        raise InvalidRequest(message, field="goal")
    if options.goal is not None:
        return with_attachments(options.goal, options.attach or ())
    if options.attach:
        message = "--attach goes with GOAL; in JSON an attachment is an object with the key $attachment"
        raise InvalidRequest(message, field="attach")
    return json_or_file(options.input or "", "--input", "for a plain text use GOAL")


def _request(options: SubmitOptions, given: Any, agent: str) -> TaskRequest:
    budget = {
        "steps": options.budget_steps,
        "tokens": options.budget_tokens,
        "seconds": options.budget_seconds,
        "usd": options.budget_usd,
    }
    asked: dict[str, Any] = {
        "agent": agent,
        "input": given,
        "labels": _labels(options.label or []),
        "priority": options.priority,
        "run_at": options.run_at,
        "timeout_seconds": options.timeout,
        "expires_seconds": None if options.expires is None else seconds_in(options.expires, "expires"),
        "budget": budget if any(limit is not None for limit in budget.values()) else None,
        "max_attempts": options.max_attempts,
        "thread_id": options.thread,
    }
    try:
        return TaskRequest.model_validate({name: value for name, value in asked.items() if value is not None})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        )
        raise InvalidRequest(problems, field=str(error.errors()[0]["loc"][0])) from None


def _labels(given: Sequence[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for label in given:
        key, equals, value = label.partition("=")
        if not equals or key in labels:
            message = f"--label {label}: " + ("given twice" if equals else "write KEY=VALUE")
            raise InvalidRequest(message, field="labels")
        labels[key] = value
    return labels


# --- looking ------------------------------------------------------------------------------------------------------


async def _list_tasks(options: ListOptions) -> Exit:
    """The newest tasks."""
    screen = Screen()
    async with connected(options.url) as client:
        page = await client.list(
            status=[name for each in options.status or () for name in each.split(",") if name],
            agent=options.agent,
            label=options.label,
            thread_id=options.thread,
            limit=options.limit,
        )
    if options.as_json:
        for task in page.items:
            screen.json(task.model_dump(mode="json"))
    else:
        print_tasks(screen, page)
    return _unless_closed(screen, Exit.OK)


async def show_task(task_id: str, url: str | None, as_json: bool) -> Exit:
    """A task and its steps."""
    screen = Screen()
    async with connected(url) as client:
        task = await client.get(await whole_id(client, task_id, last=True))
        steps = await client.steps(task.id)
        held = None if as_json else await holding(client, task)
    if as_json:
        for recorded in steps:
            screen.json(recorded_to_json(recorded))
        screen.json(task.model_dump(mode="json"))
    else:
        print_task(screen, task, steps)
    if held is not None:
        screen.say(describe_halt(held), "person")
    return _unless_closed(screen, Exit.OK)


async def _watch(task_id: str, how: Following) -> Exit:
    """A task until its end."""
    screen = Screen()
    async with connected(how.url) as client:
        task = await client.get(await whole_id(client, task_id, last=True))
        return await _follow(client, task, how, screen)


async def _follow(client: Operations, task: TaskBody, how: Following, screen: Screen) -> Exit:
    view: View = JsonView(screen, how.after) if how.as_json else PeopleView(screen, how.after)
    if not how.as_json:
        print_goal(screen, task)
    view.begin()
    held = await holding(client, task)
    if held is not None:
        view.note(describe_halt(held))
    leases = asyncio.create_task(_print_lost_leases(client, task, view))
    try:
        async with asyncio.timeout(how.within):
            await _show_steps(client, task.id, how, view, screen)
    except TimeoutError:
        pass
    finally:
        leases.cancel()
        await asyncio.wait({leases})
        view.pause()
    task = await client.get(task.id)
    view.end(task)
    return _unless_closed(screen, exit_of_status(task.status))


async def _show_steps(client: Operations, task_id: str, how: Following, view: View, screen: Screen) -> None:
    gone = asyncio.Event()
    screen.when_closed = gone.set
    async for recorded in client.watch(task_id, after=how.after):
        view.step(recorded)
        if isinstance(recorded.step, ApprovalAsked):
            view.note(f"opspawn approve {task_id} {recorded.step.approval_id}")
        if gone.is_set():
            return


async def _print_lost_leases(client: Operations, task: TaskBody, view: View) -> None:
    """Say it once for each lease of the task that runs out, until cancelled."""
    known: LeaseBody | None = None
    while True:
        lease = task.lease
        if lease is not None and lease.expired_seconds is not None:
            if known is None or (known.worker, known.since) != (lease.worker, lease.since):
                view.note(lease_in_words(lease))
            known = lease
        await asyncio.sleep(LEASE_LOOK_SECONDS)
        with suppress(OpsError):  # whoever follows the steps says so
            task = await client.get(task.id)


def _unless_closed(screen: Screen, code: Exit) -> Exit:
    return Exit.OUTPUT_CLOSED if screen.closed else code


# --- acting -------------------------------------------------------------------------------------------------------


async def _cancel(task_id: str, url: str | None, as_json: bool) -> Exit:
    """Cancel a task."""
    async with connected(url) as client:
        task = await client.cancel(await whole_id(client, task_id))
    asked = task.status is TaskStatus.RUNNING
    said(task, "cancelling: it ends at its next step" if asked else f"{task.status}", as_json)
    return Exit.OK


async def _retry(task_id: str, idempotency_key: str | None, url: str | None, as_json: bool) -> Exit:
    """Carry on a task that did not complete."""
    async with connected(url) as client:
        task = await client.retry(await whole_id(client, task_id), idempotency_key=idempotency_key)
    screen = Screen()
    if as_json:
        screen.json(task.model_dump(mode="json"))
    else:
        screen.raw(task.id)
        if screen.is_terminal:
            screen.pairs(
                {"follow it": f"opspawn watch {task.id}", "or run it": f"opspawn run --resume {task.id}"}
            )
    return Exit.OK


async def _agents(url: str | None, as_json: bool) -> Exit:
    """What can be run."""
    screen = Screen()
    async with connected(url, with_agents=True) as client:
        found = await client.agents()
    if as_json:
        for agent in found:
            screen.json(agent.model_dump(mode="json"))
    else:
        print_agents(screen, found)
    return _unless_closed(screen, Exit.OK)
