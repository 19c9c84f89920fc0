"""A run while it happens: for people, with what is under way below the steps; or as JSON lines for programs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from agentkit.messages import BegunAnew, ReasoningDelta, TextDelta, Usage
from agentkit.transcript.codec import recorded_to_json
from agentkit.transcript.steps import Recorded
from ops_core.cli.terminal.screen import STYLES, Screen
from ops_core.cli.terminal.step_lines import Narrator, counted, joined, seconds_of, tokens_of
from ops_core.cli.terminal.text import as_text, input_as_text, one_line, visible
from ops_core.schemas import TaskBody
from ops_core.task import Task, TaskStatus

if TYPE_CHECKING:
    from agentkit.run.loop import Event

TAIL = 6
"""So many lines of a text that is being written are shown."""

TONES = {TaskStatus.COMPLETED: "good", TaskStatus.FAILED: "bad", TaskStatus.CANCELLED: "person"}


class View(Protocol):
    """Shows a run. No method raises or waits."""

    def begin(self) -> None:
        """The run is looked at from now on."""
        ...

    def step(self, recorded: Recorded) -> None:
        """A step; each is shown once, in the order of their numbers, however they come."""
        ...

    def event(self, event: Event) -> None:
        """Something that happens in this process: a step, or what is shown and not recorded."""
        ...

    def note(self, text: str) -> None:
        """Something about the run that is no step."""
        ...

    def pause(self) -> None:
        """Leave the terminal to somebody else until the next step."""
        ...

    def end(self, task: TaskBody) -> None:
        """The task as it stands now; nothing follows."""
        ...


class JsonView:
    """One JSON line for each step, and the task as the last one."""

    def __init__(self, screen: Screen, after: int = -1) -> None:
        self._screen = screen
        self._last = after

    def begin(self) -> None:
        """Nothing."""

    def step(self, recorded: Recorded) -> None:
        """A line."""
        if recorded.seq == self._last + 1:
            self._last = recorded.seq
            self._screen.json(recorded_to_json(recorded))

    def event(self, event: Event) -> None:
        """Only steps are told."""
        if isinstance(event, Recorded):
            self.step(event)

    def note(self, text: str) -> None:
        """Nothing."""

    def pause(self) -> None:
        """Nothing."""

    def end(self, task: TaskBody) -> None:
        """The last line."""
        self._screen.json(task.model_dump(mode="json"))


class PeopleView:
    """Steps as lines; on a terminal with what is under way below them.

    Args:
        screen: where to.
        after: number of the last step that is known already.
    """

    def __init__(self, screen: Screen, after: int = -1) -> None:
        self.narrator = Narrator()
        self._screen = screen
        self._after = after
        self._early: dict[int, Recorded] = {}
        self._now = _Now()
        self._live: Live | None = None
        if screen.is_terminal and not screen.is_dumb_terminal:
            self._live = Live(self._now, console=screen, transient=True, refresh_per_second=10)

    def begin(self) -> None:
        """Show that something is awaited."""
        self._resume()

    def step(self, recorded: Recorded) -> None:
        """A line, and perhaps those that came too early."""
        if recorded.seq > max(self.narrator.last, self._after):
            self._early[recorded.seq] = recorded
        while (following := self._early.pop(max(self.narrator.last, self._after) + 1, None)) is not None:
            line = self.narrator.tell(following)
            self._now.reset(self.narrator.doing())
            if line is not None and line.seq > 0:
                self._screen.step(line)
        self._resume()

    def event(self, event: Event) -> None:
        """A step, a piece of text, or what a tool reports."""
        from agentkit.run.tool_call import (
            ToolProgress,  # with the loop, which is loaded where there are events
        )

        match event:
            case Recorded():
                self.step(event)
            case TextDelta(text=text):
                self._now.said += visible(text)
            case BegunAnew():
                self._now.said = ""
            case ReasoningDelta():
                self._now.doing = "the model is thinking"
            case ToolProgress():
                self._now.doing = f"{one_line(event.tool)}: {one_line(event.text)}"

    def note(self, text: str) -> None:
        """A quiet line."""
        self._now.said = ""
        self._screen.say(visible(text), "quiet", indent=7)

    def pause(self) -> None:
        """Take what is under way off the screen."""
        if self._live is not None and self._live.is_started:
            self._live.stop()

    def _resume(self) -> None:
        if self._live is not None and not self._live.is_started:
            self._live.start()

    def end(self, task: TaskBody) -> None:
        """Output or error, and what the run has used."""
        self.pause()
        print_result(self._screen, task, after_steps=self.narrator.last > 0)
        print_summary(self._screen, task)


class _Now:
    """What is under way: the end of the text that is being written, and a line that moves."""

    def __init__(self) -> None:
        self.said = ""
        self.doing = "waiting for a worker"
        self._since = time.monotonic()
        self._spinner = Spinner("dots", style=STYLES["model"])

    def reset(self, doing: str) -> None:
        """Something was recorded; the next thing begins."""
        self.said = ""
        self.doing = doing
        self._since = time.monotonic()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.said:
            for row in Text(self.said).wrap(console, max(options.max_width - 8, 16))[-TAIL:]:
                row.rstrip()
                yield Text.assemble("       ", row, no_wrap=True, overflow="ellipsis")
        waited = time.monotonic() - self._since
        line = Text(self.doing, style=STYLES["quiet"])
        if waited >= 1:
            line.append(f" · {waited:.0f} s")
        line.truncate(max(options.max_width - 8, 8), overflow="ellipsis")
        self._spinner.text = line
        yield Text.assemble("     ", self._spinner.render(time.monotonic()), no_wrap=True)  # type: ignore[arg-type]


def print_goal(screen: Screen, task: Task | TaskBody, model: str = "") -> None:
    """What a run is about, before its steps."""
    about = joined([f"agent {one_line(task.agent)}", one_line(model), f"task {task.id}"])
    screen.say()
    screen.say(visible(input_as_text(task.input)), "strong")
    screen.say(about, "quiet")
    screen.say()


def print_result(screen: Screen, task: TaskBody, *, after_steps: bool) -> None:
    """The output of a task, or why there is none."""
    if after_steps:
        screen.say()
    if task.status is TaskStatus.COMPLETED:
        screen.say(visible(as_text(task.output)))
        screen.say()
    elif task.error is not None:
        screen.say(visible(task.error.message), "bad")
        screen.say(f"[{one_line(task.error.code)}]", "quiet")
        screen.say()


def print_summary(screen: Screen, task: TaskBody) -> None:
    """The status of a task, and what it has used."""
    usage = task.usage
    tokens = Usage(
        input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cost_usd=usage.cost_usd
    )
    took = ""
    if task.started_at is not None and task.finished_at is not None:
        took = seconds_of((task.finished_at - task.started_at).total_seconds())
    used = joined(
        [
            counted(usage.model_calls, "model call"),
            counted(usage.tool_calls, "tool call"),
            tokens_of(tokens),
            f"${usage.unsettled_usd:.4f} unsettled" if usage.unsettled_usd else "",
            took,
        ]
    )
    status = Text(task.status, style=f"bold {STYLES[TONES.get(task.status, 'plain')]}")
    screen.print(Text.assemble("  ", status, "  ", (used, STYLES["quiet"])), no_wrap=False)
