"""``opspawn thread``: conversations."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ops_core.cli import phase
from ops_core.cli.exit_codes import Exit
from ops_core.cli.groups import CommandGroup
from ops_core.cli.options import Json, Limit, Url, do

if TYPE_CHECKING or phase.to_run:
    from rich.text import Text

    from ops_core.cli.connect import connected
    from ops_core.cli.terminal.screen import STYLES, Screen
    from ops_core.cli.terminal.step_lines import counted, seconds_of
    from ops_core.cli.terminal.text import as_text, input_as_text, one_line, visible
    from ops_core.operations import Operations
    from ops_core.schemas import TaskBody, ThreadPage
    from ops_core.schemas.queries import PAGE_MOST
    from ops_core.task import TaskStatus

app = typer.Typer(
    cls=CommandGroup,
    help="Conversations: tasks that were submitted with --thread.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ThreadId = Annotated[str, typer.Argument(metavar="THREAD", help="The thread's id.", show_default=False)]


@app.command(name="list")
def list_threads(limit: Limit = 20, url: Url = None, as_json: Json = False) -> None:
    """List threads, those first in which something happened last."""
    do(_list_threads(limit, url, as_json))


@app.command()
def show(thread_id: ThreadId, url: Url = None, as_json: Json = False) -> None:
    """Show what was asked and answered. With --json: a line for each task, then the thread."""
    do(_show(thread_id, url, as_json))


@app.command()
def delete(thread_id: ThreadId, url: Url = None, as_json: Json = False) -> None:
    """Delete a thread with its tasks and all their steps. A task that has not ended must be cancelled first."""
    do(_delete(thread_id, url, as_json))


async def _list_threads(limit: int, url: str | None, as_json: bool) -> Exit:
    """The threads in which something happened last."""
    screen = Screen()
    async with connected(url) as client:
        page = await client.threads(limit=limit)
    if as_json:
        for thread in page.items:
            screen.json(thread.model_dump(mode="json"))
    else:
        _print_page(screen, page)
    return _unless_closed(screen)


def _print_page(screen: Screen, page: ThreadPage) -> None:
    if not page.items and screen.is_terminal:
        screen.say("no threads", "quiet")
    wide = max((len(thread.id) for thread in page.items), default=0)
    for thread in page.items:
        age = seconds_of((datetime.now(UTC) - thread.updated_at).total_seconds()).split(" ")
        row = Text.assemble(
            f"{thread.id:<{wide}}  {counted(thread.turns, 'turn'):>9}",
            (f"  {' '.join(age[:2]):>6}", STYLES["quiet"]),
            ("" if thread.current_task is None else f"  {thread.current_task}", STYLES["quiet"]),
        )
        screen.print(row, soft_wrap=True)


async def _show(thread_id: str, url: str | None, as_json: bool) -> Exit:
    """What was asked and answered in a thread."""
    screen = Screen()
    async with connected(url) as client:
        thread = await client.thread(thread_id)
        tasks = await _all_tasks(client, thread_id)
    for task in tasks:
        if as_json:
            screen.json(task.model_dump(mode="json"))
        else:
            _print_turn(screen, task)
    if as_json:
        screen.json(thread.model_dump(mode="json"))
    return _unless_closed(screen)


async def _all_tasks(client: Operations, thread_id: str) -> list[TaskBody]:
    """Oldest first."""
    tasks: list[TaskBody] = []
    cursor: str | None = None
    while True:
        page = await client.list(thread_id=thread_id, cursor=cursor, limit=PAGE_MOST)
        tasks += page.items
        cursor = page.next_cursor
        if cursor is None:
            return tasks[::-1]


def _print_turn(screen: Screen, task: TaskBody) -> None:
    screen.say(visible(input_as_text(task.input)), "strong")
    if task.status is TaskStatus.COMPLETED:
        screen.say(visible(as_text(task.output)))
    else:
        why = "" if task.error is None else f": {visible(task.error.message)}"
        screen.say(f"({task.status}{why})", "bad" if task.status is TaskStatus.FAILED else "quiet")
    screen.say(f"{one_line(task.agent)} · {task.id}", "quiet")
    screen.say()


async def _delete(thread_id: str, url: str | None, as_json: bool) -> Exit:
    """Delete a thread and its tasks."""
    async with connected(url) as client:
        tasks = await client.delete_thread(thread_id)
    screen = Screen()
    if as_json:
        screen.json({"tasks": tasks})
    else:
        screen.raw(f"deleted, with {counted(tasks, 'task')}")
    return Exit.OK


def _unless_closed(screen: Screen) -> Exit:
    return Exit.OUTPUT_CLOSED if screen.closed else Exit.OK
