"""``opspawn cancel`` and ``opspawn retry`` for all tasks that fit a filter."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ops_core.cli import phase
from ops_core.cli.exit_codes import Exit
from ops_core.cli.options import CancelOptions, RetryOptions

if TYPE_CHECKING or phase.to_run:
    from pydantic import ValidationError

    from ops_core.cli.connect import connected
    from ops_core.cli.inputs import seconds_in
    from ops_core.cli.terminal.prompt import can_ask, confirm
    from ops_core.cli.terminal.screen import Screen
    from ops_core.cli.terminal.step_lines import counted, seconds_of
    from ops_core.errors import InvalidRequest, OpsError
    from ops_core.problem_details import problem_of_fields
    from ops_core.schemas import BulkBody, BulkRequest

DONE_WORDS = {
    "cancelled": "cancelled",
    "cancelling": "running: asked to end at their next step",
    "retried": "retried",
}
SKIPPED_WORDS = {
    "ended": "ended before",
    "cancelling_before": "asked before",
    "retried_before": "retried before",
    "changed": "changed meanwhile: ask again",
    "gone": "deleted",
}


def has_filter(options: CancelOptions | RetryOptions) -> bool:
    """Whether many tasks are meant."""
    given = (options.status, options.agent, options.label, options.thread, options.older_than)
    return any(each is not None for each in given) or options.everything


async def cancel(options: CancelOptions) -> Exit:
    """Cancel the tasks that fit."""
    async with connected(options.url) as client:
        return await _handle(options, "cancel", client.cancel_many)


async def retry(options: RetryOptions) -> Exit:
    """Carry on the tasks that fit."""
    if options.idempotency_key is not None:
        message = "--idempotency-key goes with one ID: each task of a filter is retried once in any case"
        raise InvalidRequest(message, field="idempotency_key")
    async with connected(options.url) as client:
        return await _handle(options, "retry", client.retry_many)


async def _handle(
    options: CancelOptions | RetryOptions, verb: str, handle: Callable[[BulkRequest], Awaitable[BulkBody]]
) -> Exit:
    screen, request = Screen(), _request(options)
    found = await handle(request.model_copy(update={"dry_run": True}))
    if options.dry_run:
        _print_count(screen, found, as_json=options.as_json)
        return Exit.OK
    if not found.matched:
        _print_ended(screen, BulkBody(), as_json=options.as_json)
        return Exit.OK
    if not options.yes and not await _confirmed(screen, verb, found):
        screen.say("nothing was changed", "quiet")
        return Exit.CANCELLED
    done, skipped = Counter[str](), Counter[str]()
    cursor: str | None = None
    try:
        while True:
            body = await handle(request.model_copy(update={"cursor": cursor}))
            done.update(body.done)
            skipped.update(body.skipped)
            cursor = body.next_cursor
            if cursor is None:
                break
    except OpsError:
        if done or skipped:  # what was done is told also where the rest could not be
            _print_ended(screen, BulkBody(done=dict(done), skipped=dict(skipped)), as_json=options.as_json)
        raise
    _print_ended(screen, BulkBody(done=dict(done), skipped=dict(skipped)), as_json=options.as_json)
    return Exit.OUTPUT_CLOSED if screen.closed else Exit.OK


def _request(options: CancelOptions | RetryOptions) -> BulkRequest:
    older = None if options.older_than is None else seconds_in(options.older_than, "older-than")
    given = {
        "status": [name for each in options.status or () for name in each.split(",") if name],
        "agent": options.agent,
        "label": options.label,
        "thread_id": options.thread,
        "older_than_seconds": older,
        "all": options.everything,
    }
    try:
        return BulkRequest.model_validate(given)
    except ValidationError as error:
        problem = problem_of_fields(error.errors())
        raise InvalidRequest(problem.detail, field=problem.field) from None


async def _confirmed(screen: Screen, verb: str, found: BulkBody) -> bool:
    if not can_ask(screen):
        message = f"this would {verb} {_count(found)}: say --yes, or --dry-run to look only"
        raise InvalidRequest(message, field="yes")
    return bool(await confirm(screen, f"{verb} {_count(found)}?"))


def _count(found: BulkBody) -> str:
    text = counted(found.matched or 0, "task")
    if found.oldest_at is None or found.newest_at is None:
        return text
    oldest, newest = (_age(moment) for moment in (found.oldest_at, found.newest_at))
    return (
        f"{text}, submitted {oldest} to {newest} ago"
        if found.matched != 1
        else f"{text}, submitted {oldest} ago"
    )


def _age(moment: datetime) -> str:
    return seconds_of(max(0.0, (datetime.now(UTC) - moment).total_seconds())) or "0 s"


def _print_count(screen: Screen, found: BulkBody, *, as_json: bool) -> None:
    if as_json:
        screen.json(found.model_dump(mode="json"))
    else:
        screen.raw(f"{_count(found)}; nothing was changed")


def _print_ended(screen: Screen, body: BulkBody, *, as_json: bool) -> None:
    if as_json:
        screen.json(body.model_dump(mode="json"))
        return
    if not body.done and not body.skipped:
        screen.raw("no task fits")
    for outcome, count in body.done.items():
        screen.raw(f"{counted(count, 'task')} {DONE_WORDS.get(outcome, outcome)}")
    for reason, count in body.skipped.items():
        print(f"left out: {counted(count, 'task')}, {SKIPPED_WORDS.get(reason, reason)}", file=sys.stderr)
