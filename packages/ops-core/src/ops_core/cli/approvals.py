"""``opspawn approvals``, ``approve`` and ``deny``: tool calls that wait for a person."""

from __future__ import annotations

from typing import Annotated

import typer

from ops_core.cli.options import Json, Limit, TaskId, Url
from ops_core.cli.tasks import do

ApprovalId = Annotated[str, typer.Argument(metavar="APPROVAL", help="The approval's id.", show_default=False)]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="The model is told it.")]
Digest = Annotated[
    str | None,
    typer.Option(metavar="DIGEST", help="Of the approval that was shown; refuses if it is another one."),
]


def approvals(limit: Limit = 20, url: Url = None, as_json: Json = False) -> None:
    """List tool calls that wait for a person, with their true arguments; those of the newest tasks first."""
    from ops_core.cli import answering

    do(answering.list_approvals(limit, url, as_json))


def approve(
    task_id: TaskId,
    approval_id: ApprovalId,
    arguments: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help="Call it with these instead: a JSON object, or @FILE that holds it."
        ),
    ] = None,
    reason: Reason = "",
    digest: Digest = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Allow a tool call that waits for a person."""
    from ops_core.cli import answering

    given = answering.Answer(approved=True, reason=reason, arguments=arguments, digest=digest)
    do(answering.answer(task_id, approval_id, given, url, as_json))


def settle(
    task_id: TaskId,
    call: Annotated[
        str, typer.Argument(metavar="CALL", help="Id of the call, or of its approval.", show_default=False)
    ],
    result: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="What the call has returned: JSON, or @FILE that holds it."),
    ] = None,
    failed: Annotated[str | None, typer.Option(metavar="REASON", help="Why the call has failed.")] = None,
    digest: Digest = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Say what came of a tool call that waits for a person: it is recorded as the call's result.

    For a call that was cut short, when you have looked: it took effect, and this is what it returned (--result), or it
    did not (--failed). The call is not made again, and the model reads what you say, with who has said it.
    """
    from ops_core.cli import answering

    known = answering.Known(call=call, result=result, failed=failed, digest=digest)
    do(answering.settle(task_id, known, url, as_json))


def deny(
    task_id: TaskId,
    approval_id: ApprovalId,
    reason: Reason = "",
    digest: Digest = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Refuse a tool call that waits for a person; the run goes on without it."""
    from ops_core.cli import answering

    given = answering.Answer(approved=False, reason=reason, digest=digest)
    do(answering.answer(task_id, approval_id, given, url, as_json))
