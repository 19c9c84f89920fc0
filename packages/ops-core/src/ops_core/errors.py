"""Errors of the platform, named by who must act.

::

    OpsError
    ├── InvalidRequest              the caller: a field is wrong; ``field`` names it
    │   ├── AgentNotFound           the caller: nothing of that name can be run here
    │   └── IdempotencyConflict     the caller: the key was used for another request
    ├── TaskNotFound                the caller
    ├── ApprovalNotFound            the caller
    ├── ThreadNotFound              the caller
    ├── HaltNotFound                the caller
    ├── TransitionRefused           the caller: the task's status does not allow this
    │   ├── ThreadBusy              the caller: a task of the thread has not ended
    │   ├── ApprovalConflict        the caller: somebody has answered otherwise, or was shown something else
    │   └── ApprovalExpired         the caller: the time in which it could be answered is over
    ├── LeaseLost                   nobody: the worker stops, another one owns the task
    ├── ConfigError                 the operator: a setting or a declaration is wrong
    ├── SchemaMismatch              the operator: migrate, or upgrade
    ├── TaskUnreadable              the operator: a newer release wrote it; upgrade
    ├── StoreUnavailable            the operator: the database does not answer
    ├── RecallUnavailable           the operator: what compares notes does not answer
    └── ServerUnavailable           the operator: the server does not answer, or not as it should

Each surface (HTTP, command line) has one table from these classes to its own codes.
"""

from __future__ import annotations

from typing import Any

from agentkit.errors import Actor, remade


class OpsError(Exception):
    """Root of everything the platform raises on purpose.

    Attributes:
        code: a stable word for programs.
        actor: who must act.
        field: the name of the field at fault, where there is one.
    """

    code: str = "error"
    actor: Actor = Actor.DEVELOPER

    def __init__(self, message: str | None = None, *, field: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().split("\n", maxsplit=1)[0])
        self.field = field

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy every error of the tree, whatever its constructor wants to be given."""
        return remade, (type(self), self.args), self.__dict__


class InvalidRequest(OpsError):
    """The request is not valid."""

    code = "invalid_request"
    actor = Actor.USER


class AgentNotFound(InvalidRequest):
    """There is no agent of this name here."""

    code = "agent_not_found"


class IdempotencyConflict(InvalidRequest):
    """The idempotency key was used for another request."""

    code = "idempotency_conflict"


class TaskNotFound(OpsError):
    """There is no task of this id."""

    code = "task_not_found"
    actor = Actor.USER


class ApprovalNotFound(OpsError):
    """There is no approval of this id."""

    code = "approval_not_found"
    actor = Actor.USER


class TransitionRefused(OpsError):
    """The task's status does not allow this."""

    code = "transition_refused"
    actor = Actor.USER


class ThreadNotFound(OpsError):
    """There is no thread of this id."""

    code = "thread_not_found"
    actor = Actor.USER


class HaltNotFound(OpsError):
    """There is no halt of this id."""

    code = "halt_not_found"
    actor = Actor.USER


class ThreadBusy(TransitionRefused):
    """A task of this thread has not ended yet."""

    code = "thread_busy"


class ApprovalConflict(TransitionRefused):
    """This approval was answered otherwise before, or the answer is for other arguments."""

    code = "approval_conflict"


class ApprovalExpired(TransitionRefused):
    """The time in which this approval could be answered is over."""

    code = "approval_expired"


class LeaseLost(OpsError):
    """Another worker owns this task now; stop at once and write nothing more."""

    code = "lease_lost"
    actor = Actor.NOBODY


class SpendingReached(OpsError):
    """The tenant may not spend more today.

    Attributes:
        for_now: it may, once calls that are under way have cost less than was reserved for them.
    """

    code = "spending_reached"
    actor = Actor.BUDGET_OWNER
    for_now = False


class ConfigError(OpsError):
    """A setting or a declaration is wrong."""

    code = "config"
    actor = Actor.OPERATOR


class SchemaMismatch(OpsError):
    """The database's schema is not the one that this release knows."""

    code = "schema_mismatch"
    actor = Actor.OPERATOR


class TaskUnreadable(OpsError):
    """The task, or a step of it, was written by a newer release."""

    code = "task_unreadable"
    actor = Actor.OPERATOR


class StoreUnavailable(OpsError):
    """The database does not answer."""

    is_uncertain: bool = False
    """Whether what was to be written may have been written all the same."""

    code = "store_unavailable"
    actor = Actor.OPERATOR


class RecallUnavailable(OpsError):
    """The notes of this agent cannot be compared now."""

    code = "recall_unavailable"
    actor = Actor.OPERATOR


class ServerUnavailable(OpsError):
    """The server does not answer."""

    code = "server_unavailable"
    actor = Actor.OPERATOR
