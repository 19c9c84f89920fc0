"""What is told of open approvals, and what is answered to them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self, cast

from pydantic import ConfigDict, Field, JsonValue, StringConstraints, model_validator

from agentkit.errors import ToolError, TranscriptError
from agentkit.run.tool_call import MAX_OUTPUT
from agentkit.transcript.codec import to_json_text
from agentkit.transcript.steps import ApprovalGiven, Settlement
from ops_core.observability.redaction import unmistakable
from ops_core.ports import ApprovalFilter
from ops_core.schemas.fields import Strict, moment
from ops_core.schemas.queries import encode_cursor
from ops_core.task import Approval

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
    """What came of a call that waits for a person: one of ``result`` and ``failed``."""

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
    by: Annotated[str, StringConstraints(max_length=200)] = Field(default="", description="Who says so.")
    digest: Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)] | None = Field(
        default=None,
        description="`digest` of the approval that was shown. With it, an answer to another question is refused (409).",
    )

    @model_validator(mode="after")
    def _one_outcome(self) -> Self:
        if ("result" in self.model_fields_set) == (self.failed is not None):
            message = "say either the result of the call, or why it has failed"
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
        return self.model_dump_json(exclude={"result"} if self.failed is not None else {"failed"})


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
