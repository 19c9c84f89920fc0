"""Commands about tasks: through a server where one is named, else on the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import typer

from ops_core.cli.options import (
    Attach,
    Json,
    Key,
    Limit,
    MaxUsd,
    TaskToSee,
    Thread,
    Url,
    Within,
    grouped,
)

OneTask: TypeAlias = Annotated[
    str | None, typer.Argument(metavar="ID", help="The task's id, or its beginning.", show_default=False)
]
OfStatus: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--status", metavar="STATUS", help="In this status; several with commas, or repeated."),
]
OfAgent: TypeAlias = Annotated[str | None, typer.Option("--agent", metavar="NAME", help="Of this agent.")]
OfLabel: TypeAlias = Annotated[
    str | None, typer.Option("--label", metavar="KEY[=VALUE]", help="With this label.")
]
OfThread: TypeAlias = Annotated[
    str | None, typer.Option("--thread", metavar="THREAD", help="Of this thread.")
]
OlderThan: TypeAlias = Annotated[
    str | None, typer.Option("--older-than", metavar="AGE", help="Submitted longer ago: 30d, 2h, 45m or 90s.")
]
Everything: TypeAlias = Annotated[bool, typer.Option("--all", help="Every task.")]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Only say how many would be meant.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOptions:
    """What ``opspawn submit`` is told."""

    goal: Annotated[
        str | None, typer.Argument(metavar="GOAL", help="What the agent is to do.", show_default=False)
    ] = None
    attach: Attach = None
    input: Annotated[
        str | None, typer.Option(metavar="JSON", help="Instead of GOAL: JSON, or @FILE that holds it.")
    ] = None
    file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Instead of GOAL: many tasks, a line of JSON each; - reads stdin."),
    ] = None
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="The agent; needed where there are several.")
    ] = None
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="For finding it again; may be repeated.")
    ] = None
    priority: Annotated[int, typer.Option(help="Higher ones are started first.")] = 0
    run_at: Annotated[str | None, typer.Option(metavar="TIME", help="Not before: 2030-01-31T09:00:00Z.")] = (
        None
    )
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="From its first start to its end, waiting included."),
    ] = None
    expires: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Not started later than this: 10m, 2h; it then ends as expired."),
    ] = None
    max_attempts: Annotated[int | None, typer.Option(metavar="N", help="So often it is started.")] = None
    budget_steps: Annotated[int | None, typer.Option(metavar="N", help="At most so many steps.")] = None
    budget_tokens: Annotated[int | None, typer.Option(metavar="N", help="At most so many tokens.")] = None
    budget_seconds: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="At most so long, waiting for people not counted.")
    ] = None
    thread: Thread = None
    budget_usd: MaxUsd = None
    idempotency_key: Key = None
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end, as `watch` does.")] = False
    within: Within = None
    url: Url = None
    as_json: Json = False


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


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelOptions:
    """Options of ``opspawn cancel``."""

    task_id: OneTask = None
    status: OfStatus = None
    agent: OfAgent = None
    label: OfLabel = None
    thread: OfThread = None
    older_than: OlderThan = None
    everything: Everything = False
    dry_run: DryRun = False
    yes: Yes = False
    url: Url = None
    as_json: Json = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """Options of ``opspawn retry``."""

    task_id: OneTask = None
    idempotency_key: Key = None
    status: OfStatus = None
    agent: OfAgent = None
    label: OfLabel = None
    thread: OfThread = None
    older_than: OlderThan = None
    everything: Everything = False
    dry_run: DryRun = False
    yes: Yes = False
    url: Url = None
    as_json: Json = False


@grouped(SubmitOptions)
def submit(options: SubmitOptions) -> None:
    """Hand in a goal, for a worker to carry out; prints the task's id.

    It is durable when the id is printed. Without --wait the program ends then, with 0. With --file, each line is a task
    as REST takes it, {"agent": …, "input": …, "idempotency_key": …}; the ids are printed in the same order, and a task
    that is refused harms no other.
    """
    from ops_core.cli import following, many

    do(following.submit(options) if options.file is None else many.submit(options, options.file))


@grouped(ListOptions)
def list_tasks(options: ListOptions) -> None:
    """List tasks, newest first."""
    from ops_core.cli import following

    do(following.list_tasks(options))


def show(task_id: TaskToSee, url: Url = None, as_json: Json = False) -> None:
    """Show a task and all its steps. With --json: a line for each step, then the task."""
    from ops_core.cli import following

    do(following.show(task_id, url, as_json))


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
    from ops_core.cli import following

    do(following.watch(task_id, following.Following(after=after, within=within, url=url, as_json=as_json)))


@grouped(CancelOptions)
def cancel(options: CancelOptions) -> None:
    """Cancel a task, or with a filter all that fit. One that is running ends at its next step.

    One that has ended stays as it is. With a filter the tasks are counted, and you are asked; a script says --yes.
    Without --status, all that have not ended are meant.
    """
    from ops_core.cli import bulk, following

    one = _one_or_many(options.task_id, many=bulk.has_filter(options))
    do(bulk.cancel(options) if one is None else following.cancel(one, options.url, options.as_json))


@grouped(RetryOptions)
def retry(options: RetryOptions) -> None:
    """Carry on a failed or cancelled task, or with a filter all that fit: new tasks with their steps and new budgets.

    A task is retried once: asked again, this prints the id of the task that carries it on. With a filter the tasks are
    counted, and you are asked; a script says --yes. Without --status, those that failed are meant.
    """
    from ops_core.cli import bulk, following

    one = _one_or_many(options.task_id, many=bulk.has_filter(options))
    key = options.idempotency_key
    do(bulk.retry(options) if one is None else following.retry(one, key, options.url, options.as_json))


def _one_or_many(task_id: str | None, *, many: bool) -> str | None:
    if (task_id is not None) == many:
        message = (
            "give the ID of a task, or a filter: --status, --agent, --label, --thread, --older-than or --all"
        )
        raise typer.BadParameter(message)
    return task_id


def agents(url: Url = None, as_json: Json = False) -> None:
    """List the agents that can be run, with their tools."""
    from ops_core.cli import following

    do(following.agents(url, as_json))


def do(work: Any) -> None:
    """Carry out what a command does; its exit code ends the program."""
    import asyncio

    raise typer.Exit(asyncio.run(work))
