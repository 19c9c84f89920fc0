"""Bodies of halts: how they are shown, ordered and lifted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from ops_core.halt import MAX_BY, MAX_REASON, MAX_TARGET, Halt, HaltKind, NewHalt
from ops_core.ports import HaltFilter
from ops_core.schemas.fields import Strict, moment
from ops_core.schemas.queries import encode_cursor

Reason = Annotated[str, StringConstraints(max_length=MAX_REASON)]
By = Annotated[str, StringConstraints(max_length=MAX_BY)]


class HaltRequest(Strict):
    """What is to be halted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"kind": "tool", "target": "send_*", "reason": "Complaints since noon.", "by": "kim"}
            ]
        }
    )

    kind: HaltKind = Field(
        description="`task`: one task. `agent`: all runs of an agent. `tool`: a tool, `server`: an MCP server, in all "
        "runs. `all`: everything."
    )
    target: Annotated[str, StringConstraints(max_length=MAX_TARGET)] = Field(
        default="",
        description="Id of the task; name of the agent, the server or the tool (`*` and `?` stand for what they stand "
        "for in names of files). Empty for `all`.",
    )
    reason: Reason = Field(default="", description="Why. The model is told it where a call is refused.")
    by: By = Field(default="", description="Who halts it.")

    def as_new(self, idempotency_key: str | None = None) -> NewHalt:
        """As the engine takes it.

        Args:
            idempotency_key: the same key with the same order is the same halt.

        Raises:
            InvalidRequest: a field makes no sense; ``field`` names it.
        """
        return NewHalt(
            kind=self.kind,
            target=self.target,
            reason=self.reason,
            by=self.by,
            idempotency_key=idempotency_key,
        )


class LiftRequest(Strict):
    """Why a halt is lifted."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "Mended.", "by": "kim"}]})

    reason: Reason = ""
    by: By = Field(default="", description="Who lifts it.")


class HaltBody(Strict):
    """Something that does not go on until the halt is lifted. Halts are kept, lifted ones too."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01996c2e-5d1a-7c3e-9f60-2b1f3c8a4d77",
                    "kind": "tool",
                    "target": "send_*",
                    "reason": "Complaints since noon.",
                    "by": "kim",
                    "at": "2026-11-22T12:20:00.500000Z",
                    "lifted_at": None,
                    "lifted_by": "",
                    "lifted_reason": "",
                }
            ]
        }
    )

    id: str
    kind: HaltKind
    target: str
    reason: str
    by: str
    at: datetime
    lifted_at: datetime | None = Field(description="`null` while it is in force.")
    lifted_by: str
    lifted_reason: str

    @classmethod
    def of(cls, halt: Halt) -> HaltBody:
        """A halt as it is told."""
        return cls(
            id=halt.id,
            kind=halt.kind,
            target=halt.target,
            reason=halt.reason,
            by=halt.by,
            at=moment(halt.at),
            lifted_at=None if halt.lifted_at is None else moment(halt.lifted_at),
            lifted_by=halt.lifted_by,
            lifted_reason=halt.lifted_reason,
        )


class HaltPage(Strict):
    """Halts, the newest first."""

    items: list[HaltBody]
    next_cursor: str | None = Field(
        description="Pass it as `cursor` for the next page; `null` on the last one."
    )

    @classmethod
    def of(cls, halts: Sequence[Halt], asked: HaltFilter) -> HaltPage:
        """A page, made from what was asked for it: up to one halt more than it holds."""
        shown, following = halts[: asked.limit - 1], None
        if len(halts) > len(shown):
            following = encode_cursor({"halts_before": shown[-1].id}, asked)
        return cls(items=[HaltBody.of(halt) for halt in shown], next_cursor=following)
