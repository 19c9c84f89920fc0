"""Options that several commands share, and how a command takes many of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import wraps
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar, get_type_hints

import typer

TaskId: TypeAlias = Annotated[
    str, typer.Argument(metavar="ID", help="The task's id, or its beginning.", show_default=False)
]
TaskToSee: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="ID", help="The task's id, its beginning, or `last`.", show_default=False),
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
