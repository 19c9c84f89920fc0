"""``opspawn approvals``, ``approve``, ``deny`` and ``settle``: tool calls that wait for a person."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ops_core.cli import phase
from ops_core.cli.exit_codes import Exit
from ops_core.cli.options import Json, Limit, TaskId, Url, do

if TYPE_CHECKING or phase.to_run:
    from pydantic import ValidationError
    from rich.text import Text

    from ops_core.cli.connect import connected
    from ops_core.cli.inputs import json_or_file
    from ops_core.cli.task_ids import whole_id
    from ops_core.cli.terminal.screen import STYLES, Screen
    from ops_core.cli.terminal.step_lines import seconds_of
    from ops_core.cli.terminal.tables import late_line, said
    from ops_core.cli.terminal.text import one_line, unmistakable
    from ops_core.errors import InvalidRequest
    from ops_core.schemas import ApprovalBody, ApprovalPage, ApprovalRequest, SettleRequest

ApprovalId = Annotated[str, typer.Argument(metavar="APPROVAL", help="The approval's id.", show_default=False)]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="The model is told it.")]
Digest = Annotated[
    str | None,
    typer.Option(metavar="DIGEST", help="Of the approval that was shown; refuses if it is another one."),
]


def approvals(limit: Limit = 20, url: Url = None, as_json: Json = False) -> None:
    """List tool calls that wait for a person, with their true arguments; those of the newest tasks first."""
    do(list_approvals(limit, url, as_json))


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
    given = Answer(approved=True, reason=reason, arguments=arguments, digest=digest)
    do(answer(task_id, approval_id, given, url, as_json))


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
    late: Annotated[
        bool, typer.Option("--late", help="What a worker has reported after it had lost its lease.")
    ] = False,
    digest: Digest = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Say what came of a tool call that waits for a person: it is recorded as the call's result.

    For a call that was cut short, when you have looked: it took effect, and this is what it returned (--result), or it
    did not (--failed). Where its worker came back and has reported what came of it, --late takes that. The call is not
    made again, and the model reads what you say, with who has said it.
    """
    known = Known(call=call, result=result, failed=failed, late=late, digest=digest)
    do(settle_call(task_id, known, url, as_json))


def deny(
    task_id: TaskId,
    approval_id: ApprovalId,
    reason: Reason = "",
    digest: Digest = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Refuse a tool call that waits for a person; the run goes on without it."""
    given = Answer(approved=False, reason=reason, digest=digest)
    do(answer(task_id, approval_id, given, url, as_json))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A person's answer, as it is typed."""

    approved: bool
    reason: str = ""
    arguments: str | None = None
    digest: str | None = None


async def list_approvals(limit: int, url: str | None, as_json: bool) -> Exit:
    """Tool calls that wait for a person."""
    screen = Screen()
    async with connected(url) as client:
        page = await client.approvals(limit=limit)
    if as_json:
        for approval in page.items:
            screen.json(approval.model_dump(mode="json"))
    else:
        _print_page(screen, page)
    return Exit.OUTPUT_CLOSED if screen.closed else Exit.OK


def _print_page(screen: Screen, page: ApprovalPage) -> None:
    """Two lines for each: what to type, and the whole of what is decided about."""
    if not page.items and screen.is_terminal:
        screen.say("nothing waits for you", "quiet")
    for approval in page.items:
        age = seconds_of((datetime.now(UTC) - approval.asked_at).total_seconds())
        row = Text.assemble(
            f"{approval.task_id} {approval.id}",
            (f"  {one_line(approval.agent)}  {age} ago{_until(approval)}", STYLES["quiet"]),
        )
        screen.print(row, soft_wrap=True)
        screen.print(Text(f"  {one_line(approval.tool)} {approval.shown}", STYLES["person"]), soft_wrap=True)
        screen.print(Text(f"  {one_line(approval.reason)}", STYLES["quiet"]), soft_wrap=True)
        for late in approval.late_results:
            screen.print(Text(f"  {late_line(late)}", STYLES["person"]), soft_wrap=True)
    if page.next_cursor is not None and screen.is_terminal:
        screen.say("there are more: --limit", "quiet", indent=0)


def _until(approval: ApprovalBody) -> str:
    if approval.expires_at is None:
        return ""
    return f", expires in {seconds_of(max(0.0, (approval.expires_at - datetime.now(UTC)).total_seconds()))}"


async def answer(task_id: str, approval_id: str, given: Answer, url: str | None, as_json: bool) -> Exit:
    """Answer an open approval."""
    asked: dict[str, Any] = {"approved": given.approved, "reason": given.reason, "digest": given.digest}
    if given.arguments is not None:
        asked["arguments"] = json_or_file(given.arguments, "--arguments", "it must be an object")
    try:
        request = ApprovalRequest.model_validate({**asked, "by": getpass.getuser()[:200]})
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0]) if problem["loc"] else "arguments"
        message = f"--{name}: {problem['msg'].removeprefix('Value error, ')}"
        raise InvalidRequest(message, field=name) from None
    async with connected(url, with_agents=request.arguments is not None) as client:
        task_id = await whole_id(client, task_id)
        asked_for = (each for each in (await client.get(task_id)).approvals if each.id == approval_id)
        approval = next(asked_for, None)
        if approval is not None and request.digest is None:  # what is shown is what is answered
            request = request.model_copy(update={"digest": approval.digest})
        task = await client.answer(task_id, approval_id, request)
    what = "approved" if given.approved else "denied"
    if request.arguments is not None:
        what += " with other arguments"
    if approval is not None and not as_json:
        shown = approval.shown if request.arguments is None else unmistakable(request.arguments)
        Screen().raw(f"{one_line(approval.tool)} {shown}")
    said(task, f"{what}; the task goes on as soon as a worker takes it", as_json)
    return Exit.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a person knows of a call, as it is typed."""

    call: str
    result: str | None = None
    failed: str | None = None
    late: bool = False
    digest: str | None = None


async def settle_call(task_id: str, known: Known, url: str | None, as_json: bool) -> Exit:
    """Say what came of a call."""
    if (known.result is not None) + (known.failed is not None) + known.late != 1:
        message = "say one of --result JSON, --failed REASON and --late"
        raise InvalidRequest(message, field="result")
    asked: dict[str, Any] = {"call": known.call, "digest": known.digest}
    if known.late:
        asked["late"] = True
    elif known.failed is not None:
        asked["failed"] = known.failed
    elif known.result is not None:
        asked["result"] = json_or_file(known.result, "--result", "a text needs its quotation marks")
    try:
        request = SettleRequest.model_validate({**asked, "by": getpass.getuser()[:200]})
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0]) if problem["loc"] else "result"
        message = f"--{name}: {problem['msg'].removeprefix('Value error, ')}"
        raise InvalidRequest(message, field=name) from None
    async with connected(url) as client:
        task = await client.settle(await whole_id(client, task_id), request)
    said(task, "settled; the task goes on as soon as a worker takes it", as_json)
    return Exit.OK
