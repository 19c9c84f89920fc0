"""Screen for lines: a terminal, a pipe or a file. Nothing of what is shown is taken as markup."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ops_core.cli.terminal.step_lines import Line
from ops_core.cli.terminal.text import json_line

STYLES: Mapping[str, str] = {
    "plain": "",
    "model": "cyan",
    "tool": "blue",
    "person": "yellow",
    "quiet": "bright_black",
    "bad": "red",
    "good": "green",
    "strong": "bold",
}
BRACES: Mapping[str, str] = {"": " ", "first": "┌", "middle": "│", "last": "└"}
PLAIN_BRACES: Mapping[str, str] = {"": " ", "first": ",", "middle": "|", "last": "`"}

NARROW = 64
"""Below this width, there is no column for tokens and times, and details stand further to the left."""

PREVIEW = 3
"""So many lines of a result are shown while a run is followed."""


class Screen(Console):
    """Standard output. When its reader has gone, what is written is dropped and ``closed`` is set."""

    def __init__(self, *, stderr: bool = False, file: IO[str] | None = None) -> None:
        super().__init__(
            stderr=stderr, file=file, markup=False, emoji=False, highlight=False, soft_wrap=False
        )
        self.closed = False
        self.when_closed: Callable[[], None] | None = None
        self.braces = BRACES if self.encoding.lower().startswith("utf") else PLAIN_BRACES

    def on_broken_pipe(self) -> None:
        """Called by rich; its own answer is to end the program, in the middle of whatever runs."""
        self.closed = self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
        if self.when_closed is not None:
            self.when_closed()

    def raw(self, text: str) -> None:
        """A line as it is: not wrapped, not styled."""
        self.out(text, highlight=False)

    def json(self, value: Any) -> None:
        """One value as one line."""
        self.raw(json_line(value))

    def say(self, text: str = "", tone: str = "plain", *, indent: int = 2) -> None:
        """Some lines of text, wrapped at the words."""
        self._block(Text(text, style=STYLES[tone]), indent, most=None)

    def pairs(self, pairs: Mapping[str, str]) -> None:
        """Names and values below each other; values are not wrapped, so that they can be copied."""
        wide = max(map(len, pairs), default=0)
        for name, value in pairs.items():
            line = Text.assemble("  ", (f"{name:<{wide}}", STYLES["quiet"]), "  ", value)
            self.print(line, soft_wrap=True)

    def step(self, line: Line, *, most: int | None = PREVIEW) -> None:
        """A step: number, brace, word, headline, and to the right what it took.

        Args:
            line: the step.
            most: so many lines of details, the rest is counted; ``None`` for all.
        """
        style = STYLES[line.tone]
        head = Text.assemble(
            (f"{line.seq:>4} ", STYLES["quiet"]),
            (self.braces[line.brace] + " ", STYLES["quiet"]),
            (f"{line.word:<9}", style),
        )
        indent = head.cell_len if self.width >= NARROW else 7
        note = line.note if self.width >= NARROW else ""
        room = self.width - head.cell_len - (cell_len(note) + 2 if note else 0)
        headline = Text(line.text, style="" if line.tone != "quiet" else style)
        if most is not None or "\n" not in line.text:
            headline = Text(line.text.partition("\n")[0], style=headline.style)
            headline.truncate(max(room, 8), overflow="ellipsis", pad=bool(note))
        row = Text.assemble(head, headline, ("  " + note if note else "", STYLES["quiet"]))
        row.rstrip()
        self.print(row, overflow="ignore", no_wrap=True, crop=self.is_terminal)
        self._details(line, indent, None if line.whole else most)

    def _details(self, line: Line, indent: int, most: int | None) -> None:
        goes_on = line.brace in ("first", "middle")
        gutter = Text(" " * 5 + self.braces["middle"], style=STYLES["quiet"]) if goes_on else None
        tone = "bad" if line.tone == "bad" else "quiet" if line.tone == "tool" else "plain"
        for detail in line.details:
            if detail.strip():
                self._block(Text(detail, style=STYLES[tone]), indent, most, gutter)

    def _block(self, text: Text, indent: int, most: int | None, gutter: Text | None = None) -> None:
        if not self.is_terminal:
            indent = min(indent, 7)
        rows = list(text.wrap(self, max(self.width - indent - 1, 16), tab_size=4)) if text.plain else [Text()]
        shown = rows if most is None or len(rows) <= most + 1 else rows[:most]
        margin = (
            Text(" " * indent) if gutter is None else Text.assemble(gutter, " " * (indent - gutter.cell_len))
        )
        for row in shown:
            row.rstrip()
            self.print(
                Text.assemble(margin, row) if row.plain else Text(),
                no_wrap=True,
                overflow="ignore",
                crop=False,
            )
        if len(shown) < len(rows):
            rest = Text(f"… {len(rows) - len(shown):,} more lines", style=STYLES["quiet"])
            self.print(Text.assemble(margin, rest), no_wrap=True, overflow="ignore", crop=False)


@contextmanager
def reserved_output() -> Generator[IO[str]]:
    """Standard output for the caller alone: what anything else in this process prints goes to standard error."""
    sys.stdout.flush()
    kept = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8", errors="backslashreplace") as file:
            yield file
    finally:
        sys.stdout.flush()
        os.dup2(kept, sys.stdout.fileno())
        os.close(kept)
