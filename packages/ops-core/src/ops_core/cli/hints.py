"""What can be done next, as commands to copy."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from agentkit.transcript.steps import ApprovalAsked
from ops_core.cli.narration import counted
from ops_core.cli.screen import Screen


def how_to_look(screen: Screen, task_id: str) -> None:
    """Where to see a run again."""
    screen.pairs({"look again": f"opspawn show {task_id}"})


def how_to_go_on(screen: Screen, task_id: str, steps: int) -> None:
    """After a run was let go."""
    screen.say()
    screen.say(f"let go; {counted(steps, 'step')} recorded, nothing of it will be done again", "person")
    screen.say()
    screen.pairs({"go on": f"opspawn run --resume {task_id}", "or end it": f"opspawn cancel {task_id}"})


def how_to_answer(screen: Screen, task_id: str, asked: Sequence[ApprovalAsked]) -> None:
    """While a run waits for a person."""
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
    screen.pairs({"then   ": f"opspawn run --resume {task_id}"})
