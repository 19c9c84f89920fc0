"""JSON of the API: what it accepts and returns, shared with the client. Unknown fields are refused."""

from ops_core.schemas.agents import AgentBody, AgentBudgetBody, AgentPage, ToolBody
from ops_core.schemas.approvals import (
    DIGEST_PATTERN,
    ApprovalBody,
    ApprovalPage,
    ApprovalRequest,
    LateResultBody,
    SettleRequest,
)
from ops_core.schemas.bulk import BulkBody, BulkRequest, selection_of
from ops_core.schemas.fields import Strict
from ops_core.schemas.halts import HaltBody, HaltPage, HaltRequest, LiftRequest
from ops_core.schemas.notes import (
    RECALL_MOST,
    NoteBody,
    NotePage,
    NotesForgotten,
    NotesRecalled,
    RecallRequest,
)
from ops_core.schemas.spending import SpendingBody
from ops_core.schemas.tasks import (
    BATCH_MOST,
    MAX_SEQ,
    STEPS_MOST,
    BatchBody,
    BatchItem,
    BatchRequest,
    BatchResult,
    BudgetBody,
    ErrorBody,
    StepPage,
    TaskBody,
    TaskPage,
    TaskRequest,
    UsageBody,
)
from ops_core.schemas.threads import ThreadBody, ThreadDeleted, ThreadPage
from ops_core.schemas.workers import HeldTaskBody, LeaseBody, WorkerBody, WorkerPage

__all__ = [
    "BATCH_MOST",
    "DIGEST_PATTERN",
    "MAX_SEQ",
    "RECALL_MOST",
    "STEPS_MOST",
    "AgentBody",
    "AgentBudgetBody",
    "AgentPage",
    "ApprovalBody",
    "ApprovalPage",
    "ApprovalRequest",
    "BatchBody",
    "BatchItem",
    "BatchRequest",
    "BatchResult",
    "BudgetBody",
    "BulkBody",
    "BulkRequest",
    "ErrorBody",
    "HaltBody",
    "HaltPage",
    "HaltRequest",
    "HeldTaskBody",
    "LateResultBody",
    "LeaseBody",
    "LiftRequest",
    "NoteBody",
    "NotePage",
    "NotesForgotten",
    "NotesRecalled",
    "RecallRequest",
    "SettleRequest",
    "SpendingBody",
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
    "WorkerBody",
    "WorkerPage",
    "selection_of",
]
