"""Group of commands, whose help tells what each command does in whole sentences."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

_WHOLE = 1000
"""Characters of a summary; the usual ones end in the middle of a sentence where the line does."""


class CommandGroup(TyperGroup):
    """Commands that are listed with the whole first sentence of their help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one row for each command, over as many lines as it needs."""
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [
            (name, command.get_short_help_str(_WHOLE))
            for name, command in found
            if command is not None and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
