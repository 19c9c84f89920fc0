"""Tables of tasks and agents, and hints of what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from agentkit.transcript.steps import ApprovalAsked, Recorded
from ops_core.cli.task_ids import shortened
from ops_core.cli.terminal.live_view import TONES, print_goal, print_result, print_summary
from ops_core.cli.terminal.screen import STYLES, Screen
from ops_core.cli.terminal.step_lines import Narrator, counted, seconds_of
from ops_core.cli.terminal.text import input_as_text, one_line, visible
from ops_core.cli.terminal.worker_table import lease_in_words
from ops_core.schemas import AgentBody, LateResultBody, TaskBody, TaskPage
from ops_core.task import EXPIRED, TaskStatus

WIDE = 110
"""Columns of a terminal from which on ids are shown whole."""

STATUS_WIDTH = max(map(len, TaskStatus))


def print_tasks(screen: Screen, page: TaskPage) -> None:
    """One line for each task, below their names on a terminal; the id comes first, and whole where there is room.

    A narrow terminal shows the beginnings of the ids, which every command takes for them.
    """
    if not page.items and screen.is_terminal:
        screen.say("no tasks", "quiet")
    agents = min(max((cell_len(one_line(task.agent)) for task in page.items), default=0), 24)
    now, shown = datetime.now(UTC), [task.id for task in page.items]
    if screen.is_terminal and screen.width < WIDE:
        shown = shortened(shown)
    if screen.is_terminal and page.items:
        head = f"{'ID':<{len(shown[0])}}  {'STATUS':<{STATUS_WIDTH}}  {set_cell_size('AGENT', agents)}"
        screen.print(Text(f"{head}  {'AGE':>6}  {'TOOK':>6}  GOAL", style=STYLES["quiet"]), soft_wrap=True)
    for task, task_id in zip(page.items, shown, strict=True):
        age = _short((now - task.created_at).total_seconds())
        began, ended = task.started_at, task.finished_at
        took = "" if began is None or ended is None else _short((ended - began).total_seconds())
        row = Text.assemble(
            (task_id, STYLES["quiet"]),
            (f"  {task.status:<{STATUS_WIDTH}}", STYLES[TONES.get(task.status, "plain")]),
            f"  {set_cell_size(one_line(task.agent), agents)}",
            (f"  {age:>6}  {took:>6}", STYLES["quiet"]),
            "  [expired] " if task.error is not None and task.error.code == EXPIRED else "  ",
            one_line(input_as_text(task.input)),
        )
        if screen.is_terminal:
            row.truncate(screen.width, overflow="ellipsis")
        screen.print(row, soft_wrap=True)
        if task.lease is not None and task.lease.expired_seconds is not None and screen.is_terminal:
            screen.say(lease_in_words(task.lease), "bad")
    if page.next_cursor is not None and screen.is_terminal:
        screen.say("there are more: --limit, or --status, --agent and --label to choose", "quiet", indent=0)


def _short(seconds: float) -> str:
    return " ".join(seconds_of(seconds).split(" ")[:2])


def print_task(screen: Screen, task: TaskBody, steps: Sequence[Recorded]) -> None:
    """Everything about a task."""
    print_goal(screen, task)
    narrator = Narrator()
    for recorded in steps:
        line = narrator.tell(recorded)
        if line is not None and line.seq > 0:
            screen.step(line, most=None)
    print_result(screen, task, after_steps=narrator.last > 0)
    print_summary(screen, task)
    screen.pairs(_facts(task))
    if task.lease is not None and task.lease.expired_seconds is not None:
        screen.say(lease_in_words(task.lease), "bad")
    for late in task.late_results:
        screen.say(late_line(late), "person")
    if task.status is TaskStatus.WAITING and narrator.asked:
        reported = {approval.id for approval in task.approvals if approval.late_results}
        how_to_answer(screen, task.id, list(narrator.asked.values()), reported)


def _facts(task: TaskBody) -> dict[str, str]:
    moments = {"submitted": task.created_at, "started": task.started_at, "ended": task.finished_at}
    facts = {
        name: f"{moment:%Y-%m-%d %H:%M:%S} UTC" for name, moment in moments.items() if moment is not None
    }
    if task.expires_at is not None and not task.status.terminal:
        facts["expires"] = f"{task.expires_at:%Y-%m-%d %H:%M:%S} UTC, unless it is started before"
    if task.labels:
        facts["labels"] = visible(" ".join(f"{key}={value}" for key, value in task.labels.items()))
    if task.thread_id is not None:
        facts["thread"] = task.thread_id
    if task.lease is not None and task.lease.expired_seconds is None:
        facts["worker"] = lease_in_words(task.lease).removeprefix("held by ")
    if task.attempt > 1:
        facts["attempts"] = str(task.attempt)
    if task.priority:
        facts["priority"] = str(task.priority)
    return facts


def print_agents(screen: Screen, agents: Sequence[AgentBody]) -> None:
    """Each agent with its model and tools."""
    for agent in agents:
        name = Text.assemble(
            (one_line(agent.name), STYLES["strong"]), "  ", (one_line(agent.model), STYLES["quiet"])
        )
        screen.print(name, soft_wrap=True)
        if agent.instructions:
            screen.say(visible(agent.instructions), "quiet")
        if agent.problem is not None:
            screen.say(one_line(agent.problem), "bad")
        for tool in agent.tools:
            asks = ", asks first" if tool.approval else ""
            first_line = one_line(tool.description.partition("\n")[0])
            row = Text.assemble(
                f"  {one_line(tool.name):<20}", (f" {tool.effect}{asks}  {first_line}", STYLES["quiet"])
            )
            if screen.is_terminal:
                row.truncate(screen.width, overflow="ellipsis")
            screen.print(row, soft_wrap=True)


def how_to_look(screen: Screen, task_id: str) -> None:
    """Where to see a run again."""
    screen.pairs({"look again": f"opspawn show {task_id}"})


def how_to_go_on(screen: Screen, task_id: str, steps: int) -> None:
    """After a run was let go."""
    screen.say()
    screen.say(f"let go; {counted(steps, 'step')} recorded, nothing of it will be done again", "person")
    screen.say()
    screen.pairs({"go on": f"opspawn run --resume {task_id}", "or end it": f"opspawn cancel {task_id}"})


def late_line(late: LateResultBody) -> str:
    """What a worker has reported of a call after it had lost its lease, on one line."""
    what = "has failed" if late.failed else "has returned"
    return f"{one_line(late.worker)} reports late: {one_line(late.tool)} {what} {one_line(late.shown)}"


def how_to_answer(
    screen: Screen, task_id: str, asked: Sequence[ApprovalAsked], reported: Collection[str] = ()
) -> None:
    """While a run waits for a person; ``reported`` are the questions about calls of which a late result is known."""
    screen.say()
    screen.say(f"waiting for {counted(len(asked), 'answer')}", "person")
    screen.say()
    for question in asked:
        approval = shlex.quote(question.approval_id)
        screen.pairs(
            {
                "approve": f"opspawn approve {task_id} {approval}",
                "or deny": f"opspawn deny {task_id} {approval} --reason TEXT",
            }
        )
        if question.interrupted:
            known = "--late" if question.approval_id in reported else "--result JSON"
            screen.pairs({"or say ": f"opspawn settle {task_id} {approval} {known}"})
    screen.pairs({"then   ": f"opspawn run --resume {task_id}"})


def said(task: TaskBody, text: str, as_json: bool) -> None:
    """What became of a task, in a line."""
    screen = Screen()
    if as_json:
        screen.json(task.model_dump(mode="json"))
    else:
        screen.raw(text)
