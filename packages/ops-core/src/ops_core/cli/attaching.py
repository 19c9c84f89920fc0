"""Files that go with a goal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentkit.attachments import checked_input, read_attachment
from agentkit.errors import UsageError
from ops_core.errors import InvalidRequest


def with_attachments(goal: str, files: Sequence[Path]) -> Any:
    """The input of a task: the goal, with the files where there are some.

    Raises:
        InvalidRequest: there is nothing to do, or a file cannot be read, or not be attached.
    """
    if not goal.strip():
        raise InvalidRequest("GOAL is empty: say what the agent is to do", field="goal")
    if not files:
        return goal
    try:
        return checked_input({"goal": goal, "attachments": [read_attachment(file) for file in files]})
    except OSError as error:
        message = f"--attach: {error.filename}: {error.strerror}"
    except UsageError as error:
        message = f"--attach: {error}"
    raise InvalidRequest(message, field="attach")
