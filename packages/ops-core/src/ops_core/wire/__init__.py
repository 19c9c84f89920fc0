"""The JSON we speak: what the API takes and gives, shared with the client. Nothing unknown is accepted."""

from ops_core.wire.agents import AgentBody, AgentBudgetBody, AgentPage, ToolBody
from ops_core.wire.forms import Strict
from ops_core.wire.submitting import (
    BATCH_MOST,
    BatchBody,
    BatchItem,
    BatchRequest,
    BatchResult,
    BudgetBody,
    TaskRequest,
)
from ops_core.wire.tasks import (
    MAX_SEQ,
    STEPS_MOST,
    ApprovalRequest,
    ErrorBody,
    StepPage,
    TaskBody,
    TaskPage,
    UsageBody,
)
from ops_core.wire.threads import ThreadBody, ThreadDeleted, ThreadPage

__all__ = [
    "BATCH_MOST",
    "MAX_SEQ",
    "STEPS_MOST",
    "AgentBody",
    "AgentBudgetBody",
    "AgentPage",
    "ApprovalRequest",
    "BatchBody",
    "BatchItem",
    "BatchRequest",
    "BatchResult",
    "BudgetBody",
    "ErrorBody",
    "StepPage",
    "Strict",
    "TaskBody",
    "TaskPage",
    "TaskRequest",
    "ThreadBody",
    "ThreadDeleted",
    "ThreadPage",
    "ToolBody",
    "UsageBody",
]
