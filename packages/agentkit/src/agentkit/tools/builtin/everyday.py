"""The tools of the default agent."""

from __future__ import annotations

from pathlib import Path

from agentkit.tools.builtin.calculator import calculator
from agentkit.tools.builtin.dates import add_days, days_between, now, today, weekday
from agentkit.tools.builtin.files import DirectoryReader
from agentkit.tools.builtin.text import count_occurrences, text_statistics
from agentkit.tools.functions import Tool


def everyday_tools(directory: Path | str = ".") -> list[Tool]:
    """A calculator, dates, counting in texts, and reading the files of one directory. None of them changes anything.

    Args:
        directory: what the file tools are confined to; see :class:`~agentkit.tools.builtin.files.DirectoryReader`.
    """
    return [
        calculator,
        today,
        now,
        days_between,
        add_days,
        weekday,
        text_statistics,
        count_occurrences,
        *DirectoryReader(directory).tools,
    ]
