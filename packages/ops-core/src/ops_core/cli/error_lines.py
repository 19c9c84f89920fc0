"""Error lines: one exit code for each class of errors, one line for the person."""

from __future__ import annotations

from collections.abc import Mapping

from agentkit.errors import AgentkitError
from ops_core.cli.exit_codes import Exit
from ops_core.cli.terminal.text import one_line
from ops_core.errors import (
    AgentNotFound,
    ApprovalNotFound,
    ConfigError,
    HaltNotFound,
    IdempotencyConflict,
    InvalidRequest,
    OpsError,
    SchemaMismatch,
    ServerUnavailable,
    StoreUnavailable,
    TaskNotFound,
    ThreadNotFound,
    TransitionRefused,
)
from ops_core.task import TaskStatus

# the first class that fits counts
_CODES: Mapping[type[Exception], Exit] = {
    AgentNotFound: Exit.NOT_FOUND,
    TaskNotFound: Exit.NOT_FOUND,
    ApprovalNotFound: Exit.NOT_FOUND,
    ThreadNotFound: Exit.NOT_FOUND,
    HaltNotFound: Exit.NOT_FOUND,
    IdempotencyConflict: Exit.REFUSED,
    TransitionRefused: Exit.REFUSED,
    InvalidRequest: Exit.USAGE,
    ConfigError: Exit.USAGE,
    SchemaMismatch: Exit.UNAVAILABLE,
    StoreUnavailable: Exit.UNAVAILABLE,
    ServerUnavailable: Exit.UNAVAILABLE,
    OpsError: Exit.UNAVAILABLE,
    AgentkitError: Exit.USAGE,  # an agent or its model cannot be made: the run has not begun
}

_STATUSES: Mapping[TaskStatus, Exit] = {
    TaskStatus.COMPLETED: Exit.OK,
    TaskStatus.FAILED: Exit.FAILED,
    TaskStatus.CANCELLED: Exit.CANCELLED,
    TaskStatus.WAITING: Exit.WAITING,
    TaskStatus.PENDING: Exit.LATE,
    TaskStatus.RUNNING: Exit.LATE,
}


def exit_of_status(status: TaskStatus) -> Exit:
    """How a program that has followed a task ends, where it stands."""
    return _STATUSES[status]


def exit_of_error(error: BaseException) -> Exit:
    """How the program ends after ``error``."""
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), Exit.BUG)


def line_of_error(error: BaseException) -> str:
    """What the person is told. The text of an error that nobody expected may hold a secret: only its place is told."""
    if isinstance(error, OpsError | AgentkitError):
        return one_line(str(error))
    from agentkit.tools.results import place_of

    return f"unexpected {type(error).__name__} at {place_of(error)}; OPSPAWN_LOG_LEVEL=debug shows all of it"


def innermost(error: BaseException) -> BaseException:
    """The one error that a group of errors is about."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return error  # pyright: ignore[reportUnknownVariableType]
