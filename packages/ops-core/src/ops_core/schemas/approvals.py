"""Bodies of open approvals and of the answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self, cast

from pydantic import ConfigDict, Field, JsonValue, StringConstraints, model_validator

from agentkit.errors import ToolError, TranscriptError
from agentkit.recorded_text import MAX_OUTPUT
from agentkit.transcript.codec import to_json_text
from agentkit.transcript.steps import ApprovalGiven, Settlement
from ops_core.observability.redaction import one_line, unmistakable
from ops_core.ports import ApprovalFilter
from ops_core.schemas.fields import Strict, moment
from ops_core.schemas.queries import encode_cursor
from ops_core.task import MAX_LATE_SHOWN, Approval, LateResult

DIGEST_PATTERN = r"^[0-9a-f]{64}$"


class ApprovalRequest(Strict):
    """A person's answer to an open approval."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"approved": False, "reason": "Not on a Friday.", "by": "kim"}]}
    )

    approved: Annotated[bool, Field(strict=True)]
    reason: Annotated[str, StringConstraints(max_length=2000)] = Field(
        default="", description="The model is told it."
    )
    by: Annotated[str, StringConstraints(max_length=200)] = Field(default="", description="Who answered.")
    arguments: dict[str, JsonValue] | None = Field(
        default=None,
        description="With these the call is carried out, in the place of those that the model gave. They must fit the "
        "tool and its agent's policy; the model is told that they were changed.",
    )
    digest: Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)] | None = Field(
        default=None,
        description="`digest` of the approval that was shown. With it, an answer to another question is refused (409).",
    )

    @model_validator(mode="after")
    def _arguments_are_approved(self) -> Self:
        if self.arguments is None:
            return self
        if not self.approved:
            message = "arguments belong to an answer that approves"
            raise ValueError(message)
        try:
            to_json_text(self.arguments)
        except TranscriptError:
            message = "arguments hold what JSON cannot express"
            raise ValueError(message) from None
        return self

    def as_step(self, approval_id: str) -> ApprovalGiven:
        """The answer as it is recorded."""
        return ApprovalGiven(
            approval_id=approval_id,
            approved=self.approved,
            reason=self.reason,
            by=self.by,
            arguments=cast("Any", self.arguments),
            digest=self.digest or "",
        )


class SettleRequest(Strict):
    """What came of a call that waits for a person: one of ``result``, ``failed`` and ``late``."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"call": "call_1", "result": {"receipt": 4711}, "by": "kim"}]}
    )

    call: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(
        description="Id of the call, or of its approval."
    )
    result: JsonValue = Field(default=None, description="What the call has returned.")
    failed: Annotated[str, StringConstraints(min_length=1, max_length=2000)] | None = Field(
        default=None, description="Why the call has failed."
    )
    late: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="It is what a worker has reported of the call after it had lost its lease: the newest of "
        "`late_results`.",
    )
    by: Annotated[str, StringConstraints(max_length=200)] = Field(default="", description="Who says so.")
    digest: Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)] | None = Field(
        default=None,
        description="`digest` of the approval that was shown. With it, an answer to another question is refused (409).",
    )

    @model_validator(mode="after")
    def _one_outcome(self) -> Self:
        if ("result" in self.model_fields_set) + (self.failed is not None) + self.late != 1:
            message = "say one of: the result of the call, why it has failed, that its late result is it"
            raise ValueError(message)
        try:
            size = len(to_json_text(self.result))
        except TranscriptError:
            message = "result holds what JSON cannot express"
            raise ValueError(message) from None
        if size > MAX_OUTPUT:
            message = f"result must have at most {MAX_OUTPUT} characters as JSON"
            raise ValueError(message)
        return self

    def as_step(self, approval_id: str) -> ApprovalGiven:
        """The answer as it is recorded."""
        settlement = Settlement(output=cast("Any", self.result))
        if self.failed is not None:
            settlement = Settlement(error=ToolError(self.failed).as_run_error())
        return ApprovalGiven(
            approval_id=approval_id,
            approved=False,
            by=self.by,
            digest=self.digest or "",
            settlement=settlement,
        )

    def dumped(self) -> str:
        """As it is sent: without the outcome that it does not have."""
        others = {"result", "failed", "late"}
        given = "late" if self.late else "result" if self.failed is None else "failed"
        return self.model_dump_json(exclude=others - {given})


class LateResultBody(Strict):
    """What came of a call, from a worker that had lost its lease by then. It is not recorded as the call's result."""

    call: str = Field(description="Id of the call.")
    tool: str
    worker: str = Field(description="The worker that began the call.")
    at: datetime = Field(description="When it was reported.")
    failed: bool = Field(description="The call has failed.")
    shown: str = Field(
        description="The result as JSON, or why the call has failed, on one line in which every character is to be "
        f"seen; of a long one the first {MAX_LATE_SHOWN} characters."
    )

    @classmethod
    def of(cls, late: LateResult) -> LateResultBody:
        """A late result as it is told."""
        return cls(
            call=late.call_id,
            tool=late.tool,
            worker=late.worker,
            at=moment(late.at),
            failed=late.failed,
            shown=one_line(late.shown),
        )


class ApprovalBody(Strict):
    """A tool call that waits for a person."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "task_id": "01996c2e-5d1a-7c3e-9f60-2b1f3c8a4d77",
                    "id": "call_1.1",
                    "agent": "clerk",
                    "tool": "pay",
                    "arguments": {"amount": 120, "to": "lamp shop"},
                    "shown": '{"amount": 120, "to": "lamp shop"}',
                    "reason": "pay needs approval",
                    "interrupted": False,
                    "digest": "9f2c7a1be05d4c38b1f09d6e7a2c4b5d8e1f3a6c9b0d2e4f7a8c1b3d5e6f9a0b",
                    "asked_at": "2026-11-22T09:00:01.840000Z",
                    "expires_at": "2026-11-29T09:00:01.840000Z",
                }
            ]
        }
    )

    task_id: str
    id: str = Field(description="What an answer names; unique within the task.")
    agent: str
    tool: str
    arguments: dict[str, JsonValue] = Field(description="As the tool would get them.")
    shown: str = Field(
        description="The arguments as JSON on one line in which every character is to be seen: those that are "
        "invisible, turn the order of what is read or act on a terminal are written as escapes."
    )
    reason: str = Field(description="Why a person is asked.")
    interrupted: bool = Field(
        description="The call was started before, and nobody knows whether it took effect."
    )
    digest: str = Field(description="Of the run, the call and these arguments: what an approval is bound to.")
    asked_at: datetime
    expires_at: datetime | None = Field(
        description="From then on the call counts as refused; `null` for never."
    )
    late_results: list[LateResultBody] = Field(
        default_factory=list[LateResultBody],
        description="What workers have reported of the call after they had lost their leases, the oldest first. "
        "`POST /tasks/{task_id}/settle` with `late` takes the newest one as the result of the call.",
    )

    @classmethod
    def of(cls, approval: Approval) -> ApprovalBody:
        """An approval as it is told."""
        asked = approval.asked
        arguments = cast("dict[str, JsonValue]", asked.arguments)
        return cls(
            task_id=approval.task_id,
            id=asked.approval_id,
            agent=approval.agent,
            tool=asked.tool,
            arguments=arguments,
            shown=unmistakable(arguments),
            reason=asked.reason,
            interrupted=asked.interrupted,
            digest=asked.digest,
            asked_at=moment(approval.asked_at),
            expires_at=None if approval.expires_at is None else moment(approval.expires_at),
            late_results=[LateResultBody.of(late) for late in approval.late_results],
        )


class ApprovalPage(Strict):
    """Open approvals, those of the newest tasks first."""

    items: list[ApprovalBody]
    next_cursor: str | None = Field(
        description="Pass it as `cursor` for the next page; `null` on the last one."
    )

    @classmethod
    def of(cls, approvals: Sequence[Approval], asked: ApprovalFilter) -> ApprovalPage:
        """A page, made from what was asked for it: up to one approval more than it holds."""
        shown, following = approvals[: asked.limit - 1], None
        if len(approvals) > len(shown):
            following = encode_cursor({"approvals_before": [shown[-1].task_id, shown[-1].seq]}, asked)
        return cls(items=[ApprovalBody.of(approval) for approval in shown], next_cursor=following)
