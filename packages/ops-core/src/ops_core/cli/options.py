"""Options that several commands share, and how a command takes many of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from inspect import Parameter, Signature, iscoroutinefunction
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar, get_type_hints

import typer

TaskId: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="The task's id, its beginning, or - for the newest.", show_default=False
    ),
]
TaskToSee: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="The task's id, its beginning, or - for the newest.", show_default=False
    ),
]
Thread: TypeAlias = Annotated[
    str | None,
    typer.Option("--thread", metavar="THREAD", help="Go on with this conversation; a new one begins so."),
]
Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print JSON, one value a line, and nothing else.")
]
Url: TypeAlias = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Ask this server instead of opening the store. [OPSPAWN_URL]"),
]
Key: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key", metavar="KEY", help="The same key with the same request has the same result."
    ),
]
Limit: TypeAlias = Annotated[int, typer.Option(metavar="N", min=1, max=200, help="At most so many.")]
Attach: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--attach",
        metavar="FILE",
        help="An image or a document to go with GOAL; may be repeated.",
        show_default=False,
    ),
]


def _checked_seconds(value: float | None) -> float | None:
    from ops_core.durations import read_seconds  # with pydantic, which --help does without

    try:
        return None if value is None else read_seconds(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Within: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--within",
        metavar="SECONDS",
        min=0,
        callback=_checked_seconds,
        help="Stop following after so long; the task goes on.",
    ),
]

MaxUsd: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--max-usd",
        metavar="USD",
        help="At most so much for all calls of models; one whose price nobody knows is refused.",
    ),
]

Given = TypeVar("Given")
Command: TypeAlias = Callable[[Given], None]


def grouped(group: type[Given]) -> Callable[[Command[Given]], Callable[..., None]]:
    """A command that takes its many options as one value: each field of the dataclass ``group`` is one of them."""

    def decorate(command: Command[Given]) -> Callable[..., None]:
        @wraps(command)
        def wrapper(**given: Any) -> None:
            command(group(**given))

        hints = get_type_hints(group, include_extras=True)
        parameters = [
            Parameter(
                field.name,
                Parameter.KEYWORD_ONLY,
                default=Parameter.empty if field.default is MISSING else field.default,
                annotation=hints[field.name],
            )
            for field in fields(group)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        ]
        wrapper.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {}
        return wrapper

    return decorate


OneTask: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="ID", help="The task's id, its beginning, or - for the newest.", show_default=False
    ),
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


def do(work: Any) -> None:
    """Carry out what a command does; its exit code ends the program."""
    import asyncio

    raise typer.Exit(asyncio.run(work))


def runs(command: Callable[..., Any]) -> Callable[..., None]:
    """The command as typer calls it: one that is a coroutine runs to its end, and its exit code ends the program."""
    if not iscoroutinefunction(command):
        return command

    @wraps(command)
    def wrapper(**given: Any) -> None:
        do(command(**given))

    return wrapper
