"""Lazy loading of commands: ``opspawn --help`` imports none of them, ``opspawn COMMAND --help`` its options alone.

The help lines stand here and in the docstrings of the commands; a test holds that they agree.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand
from typer.main import get_command, get_group

from ops_core.cli import phase
from ops_core.cli.groups import CommandGroup
from ops_core.cli.options import runs

COMMANDS = {
    "run": ("ops_core.cli.commands.run", "run", "Work on one goal in this process, and show every step."),
    "serve": (
        "ops_core.cli.commands.serve",
        "serve",
        "Run the API and a worker in this process, until Ctrl-C.",
    ),
    "worker": ("ops_core.cli.commands.worker", "worker", "Carry tasks, without an API, until Ctrl-C."),
    "submit": (
        "ops_core.cli.commands.tasks",
        "submit",
        "Hand in a goal, for a worker to carry out; prints the task's id.",
    ),
    "list": ("ops_core.cli.commands.tasks", "list_tasks", "List tasks, newest first."),
    "show": (
        "ops_core.cli.commands.tasks",
        "show",
        "Show a task and all its steps. With --json: a line for each step, then the task.",
    ),
    "watch": (
        "ops_core.cli.commands.tasks",
        "watch",
        "Follow a task until it ends; the exit code says how it ended.",
    ),
    "cancel": (
        "ops_core.cli.commands.tasks",
        "cancel",
        "Cancel a task, or with a filter all that fit. One that is running ends at its next step.",
    ),
    "retry": (
        "ops_core.cli.commands.tasks",
        "retry",
        (
            "Carry on a failed or cancelled task, or with a filter all that fit: new tasks with their "
            "steps and new budgets."
        ),
    ),
    "approvals": (
        "ops_core.cli.commands.approvals",
        "approvals",
        (
            "List tool calls that wait for a person, with their true arguments; those of the newest "
            "tasks first."
        ),
    ),
    "approve": ("ops_core.cli.commands.approvals", "approve", "Allow a tool call that waits for a person."),
    "deny": (
        "ops_core.cli.commands.approvals",
        "deny",
        "Refuse a tool call that waits for a person; the run goes on without it.",
    ),
    "settle": (
        "ops_core.cli.commands.approvals",
        "settle",
        "Say what came of a tool call that waits for a person: it is recorded as the call's result.",
    ),
    "halt": (
        "ops_core.cli.commands.halts",
        "halt",
        "Halt a task, an agent, a tool, an MCP server, or everything; prints the halt's id.",
    ),
    "halts": (
        "ops_core.cli.commands.halts",
        "halts",
        "List what is halted, by whom and why; the newest first.",
    ),
    "lift": (
        "ops_core.cli.commands.halts",
        "lift",
        "Lift a halt: what it held goes on, unless another halt holds it.",
    ),
    "agents": ("ops_core.cli.commands.tasks", "agents", "List the agents that can be run, with their tools."),
    "workers": (
        "ops_core.cli.commands.workers",
        "workers",
        "List the workers that are alive, idle ones too, and what each of them holds.",
    ),
    "migrate": ("ops_core.cli.commands.serve", "migrate", "Bring the schema of the store up to date."),
    "purge": ("ops_core.cli.commands.serve", "purge", "Delete tasks that ended long ago, with their steps."),
    "spending": (
        "ops_core.cli.commands.serve",
        "spending",
        "Show what was spent today (UTC) on calls of models, and what may be spent.",
    ),
    "doctor": (
        "ops_core.cli.doctor.command",
        "doctor",
        "Look at everything that is needed: versions, settings, store, agents, models, server.",
    ),
    "thread": (
        "ops_core.cli.commands.threads",
        "app",
        "Conversations: tasks that were submitted with --thread.",
    ),
    "memory": ("ops_core.cli.commands.memory", "app", "What agents remember in the platform's database."),
    "mcp": (
        "ops_core.cli.commands.mcp",
        "app",
        "The MCP servers that agents use, and what was approved of them.",
    ),
}
"""By name: the module, the function (or the ``typer.Typer`` of several), and the line of help."""


class LazyGroup(CommandGroup):
    """Group of commands that are imported when they are called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (_, _, line) in COMMANDS.items():
            self.add_command(TyperCommand(name=name, help=line))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name, the command and the remaining arguments; the command is imported here."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in COMMANDS else command, rest


def load(name: str) -> Any:
    """Build the command ``name`` with its options; what it runs with is imported when it is called."""
    module = COMMANDS[name][0]
    if module in sys.modules:
        return _build(name)
    phase.to_run = False
    try:
        command = _build(name)
    finally:
        phase.to_run = True
        _forget(module)
    for path, one in _commands(command):
        one.callback = partial(_call_whole, name, path)
    return command


def _build(name: str) -> Any:
    module, attribute, _ = COMMANDS[name]
    found: Any = getattr(import_module(module), attribute)
    if isinstance(found, typer.Typer):
        command = get_group(found)
        command.name = name
        return command
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name=name)(runs(found))
    return get_command(app)


def _forget(module: str) -> None:
    """Let the next import of ``module`` load it whole."""
    sys.modules.pop(module, None)
    package, _, name = module.rpartition(".")
    vars(sys.modules[package]).pop(name, None)


def _commands(command: Any) -> Iterator[tuple[str | None, Any]]:
    """The command, or those of a group by their names."""
    if hasattr(command, "commands"):
        yield from command.commands.items()
    else:
        yield None, command


def _call_whole(name: str, path: str | None, /, **options: Any) -> Any:
    """Call a command for which only the options were loaded so far."""
    return dict(_commands(_build(name)))[path].callback(**options)
