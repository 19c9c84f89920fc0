"""Halt: an order that something must not go on until it is lifted. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from agentkit.run.kill_switch import Off
from ops_core.errors import InvalidRequest
from ops_core.strict_json import is_unicode

MAX_TARGET = 200
MAX_REASON = 1000
MAX_BY = 200


class HaltKind(StrEnum):
    """What is halted."""

    TASK = "task"
    """One task."""
    AGENT = "agent"
    """All runs of an agent."""
    TOOL = "tool"
    """A tool, in all runs."""
    SERVER = "server"
    """An MCP server, in all runs."""
    ALL = "all"
    """Everything."""

    @property
    def of_runs(self) -> bool:
        """Whole runs are held, not only what they call."""
        return self in (HaltKind.TASK, HaltKind.AGENT, HaltKind.ALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHalt:
    """What somebody orders.

    Attributes:
        kind: of what is halted.
        target: id of the task; name of the agent or MCP server; name of the tool, in which ``*`` and ``?`` stand for
            what they stand for in names of files; empty for everything.
        reason: why; the model is told it where a call is refused.
        by: who orders it.
        idempotency_key: the same key with the same order is the same halt.

    Raises:
        InvalidRequest: a field cannot be what it is; ``field`` names it.
    """

    kind: HaltKind
    target: str = ""
    reason: str = ""
    by: str = ""
    idempotency_key: str | None = None

    def __post_init__(self) -> None:
        for field, most in (("target", MAX_TARGET), ("reason", MAX_REASON), ("by", MAX_BY)):
            _check(field, getattr(self, field), most)
        if self.kind is HaltKind.ALL and self.target:
            message = "target must be empty where everything is halted"
            raise InvalidRequest(message, field="target")
        if self.kind is not HaltKind.ALL and not self.target.strip():
            message = f"target must say which {self.kind} is halted"
            raise InvalidRequest(message, field="target")

    @property
    def fingerprint(self) -> str:
        """The same for the same order, whatever its key."""
        ordered = json.dumps(["halt", self.kind, self.target, self.reason, self.by])
        return hashlib.sha256(ordered.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """A halt, in force until it is lifted; it is kept for good, as who has done what and why.

    Attributes:
        id: a UUIDv7.
        tenant: whose tasks it is about.
        kind, target, reason, by: as ordered.
        at: since when, in seconds since the epoch.
        lifted_at: until when; ``None`` while it is in force.
        lifted_by: by whom.
        lifted_reason: why.
    """

    id: str
    tenant: str
    kind: HaltKind
    target: str
    reason: str
    by: str
    at: float
    lifted_at: float | None = None
    lifted_by: str = ""
    lifted_reason: str = ""

    @property
    def text(self) -> str:
        """Why, in the words that are passed on."""
        return self.reason or "no reason was given"

    def holds(self, tenant: str, agent: str, task_id: str) -> bool:
        """Whether a run may not go on."""
        if self.tenant != tenant:
            return False
        match self.kind:
            case HaltKind.ALL:
                return True
            case HaltKind.AGENT:
                return self.target == agent
            case HaltKind.TASK:
                return self.target == task_id
            case HaltKind.TOOL | HaltKind.SERVER:
                return False

    def __str__(self) -> str:
        what = "everything" if self.kind is HaltKind.ALL else f"{self.kind} {self.target}"
        by = f" by {self.by}" if self.by else ""
        return f"{what} was halted{by}: {self.text} (halt {self.id})"


def holding(halts: Iterable[Halt], tenant: str, agent: str, task_id: str) -> Halt | None:
    """The first of these that holds a run."""
    return next((halt for halt in halts if halt.holds(tenant, agent, task_id)), None)


def off(halts: Iterable[Halt], tenant: str, agent: str, task_id: str) -> Off:
    """What is switched off for a run while these are in force."""
    of_tenant = [halt for halt in halts if halt.tenant == tenant]
    held = holding(of_tenant, tenant, agent, task_id)
    return Off(
        tools={halt.target: halt.text for halt in of_tenant if halt.kind is HaltKind.TOOL},
        servers={halt.target: halt.text for halt in of_tenant if halt.kind is HaltKind.SERVER},
        run=None if held is None else str(held),
    )


def _check(field: str, text: str, most: int) -> None:
    if len(text) > most:
        message = f"{field} must have at most {most} characters"
        raise InvalidRequest(message, field=field)
    if "\x00" in text or not is_unicode(text):
        message = f"{field} must be Unicode text without NUL characters"
        raise InvalidRequest(message, field=field)
