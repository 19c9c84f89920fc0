"""What the commands about tasks do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from agentkit.transcript.codec import recorded_to_json
from agentkit.transcript.steps import ApprovalAsked
from ops_core.cli.answering import json_or_file, said
from ops_core.cli.attaching import with_attachments
from ops_core.cli.choosing import chosen_agent
from ops_core.cli.connecting import connected
from ops_core.cli.durations import seconds_in
from ops_core.cli.exits import Exit
from ops_core.cli.failures import exit_of_status
from ops_core.cli.halting import holding, told_holding
from ops_core.cli.ids import whole_id
from ops_core.cli.screen import Screen
from ops_core.cli.tables import told_agents, told_task, told_tasks
from ops_core.cli.tasks import ListOptions, SubmitOptions
from ops_core.cli.views import JsonView, PeopleView, View, told_goal
from ops_core.cli.worker_table import lease_in_words
from ops_core.client import Client
from ops_core.errors import InvalidRequest, OpsError
from ops_core.task import TaskStatus
from ops_core.wire import LeaseBody, TaskBody, TaskRequest

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


async def submit(options: SubmitOptions) -> Exit:
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


async def list_tasks(options: ListOptions) -> Exit:
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
        told_tasks(screen, page)
    return _unless_closed(screen, Exit.OK)


async def show(task_id: str, url: str | None, as_json: bool) -> Exit:
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
        told_task(screen, task, steps)
    if held is not None:
        screen.say(told_holding(held), "person")
    return _unless_closed(screen, Exit.OK)


async def watch(task_id: str, how: Following) -> Exit:
    """A task until its end."""
    screen = Screen()
    async with connected(how.url) as client:
        task = await client.get(await whole_id(client, task_id, last=True))
        return await _follow(client, task, how, screen)


async def _follow(client: Client, task: TaskBody, how: Following, screen: Screen) -> Exit:
    view: View = JsonView(screen, how.after) if how.as_json else PeopleView(screen, how.after)
    if not how.as_json:
        told_goal(screen, task)
    view.begin()
    held = await holding(client, task)
    if held is not None:
        view.note(told_holding(held))
    leases = asyncio.create_task(_tell_of_lost_leases(client, task, view))
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


async def _show_steps(client: Client, task_id: str, how: Following, view: View, screen: Screen) -> None:
    gone = asyncio.Event()
    screen.when_closed = gone.set
    async for recorded in client.watch(task_id, after=how.after):
        view.step(recorded)
        if isinstance(recorded.step, ApprovalAsked):
            view.note(f"opspawn approve {task_id} {recorded.step.approval_id}")
        if gone.is_set():
            return


async def _tell_of_lost_leases(client: Client, task: TaskBody, view: View) -> None:
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


async def cancel(task_id: str, url: str | None, as_json: bool) -> Exit:
    """Cancel a task."""
    async with connected(url) as client:
        task = await client.cancel(await whole_id(client, task_id))
    asked = task.status is TaskStatus.RUNNING
    said(task, "cancelling: it ends at its next step" if asked else f"{task.status}", as_json)
    return Exit.OK


async def retry(task_id: str, idempotency_key: str | None, url: str | None, as_json: bool) -> Exit:
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


async def agents(url: str | None, as_json: bool) -> Exit:
    """What can be run."""
    screen = Screen()
    async with connected(url, with_agents=True) as client:
        found = await client.agents()
    if as_json:
        for agent in found:
            screen.json(agent.model_dump(mode="json"))
    else:
        told_agents(screen, found)
    return _unless_closed(screen, Exit.OK)
