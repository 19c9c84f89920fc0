"""Task results in the terms of MCP: results of tools, and tasks of the MCP extension of that name. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, cast

from agentkit.attachments import split_input
from agentkit.errors import Actor, RunError
from agentkit.messages import Attachment
from agentkit.recorded_text import recordable
from agentkit.transcript.steps import ApprovalGiven
from ops_core.observability.redaction import one_line, unmistakable
from ops_core.schemas import SettleRequest
from ops_core.strict_json import NotStrict, parse
from ops_core.task import Approval, Task, TaskStatus

TASKS: Final = "io.modelcontextprotocol/tasks"
POLL_MS = 500
INTERNAL_ERROR = -32603

_STATUS: Mapping[TaskStatus, str] = {
    TaskStatus.PENDING: "working",
    TaskStatus.RUNNING: "working",
    TaskStatus.WAITING: "working",
    TaskStatus.COMPLETED: "completed",
    TaskStatus.FAILED: "completed",
    TaskStatus.CANCELLED: "cancelled",
}


Questions: TypeAlias = Mapping[str, Approval]
"""What a caller may put to a person: open approvals, by their ids."""


def task_of(task: Task, open_questions: Questions, *, keep_ms: int | None) -> dict[str, Any]:
    """A task as the extension tells it, without what it has come to.

    Args:
        task: of ours.
        open_questions: shown as ``input_required``.
        keep_ms: so long after its end it can be asked for; ``None`` for as long as nobody deletes it.
    """
    status = _STATUS[task.status]
    if open_questions and not task.status.terminal:
        status = "input_required"
    elif task.status is TaskStatus.FAILED and _is_ours(task.error):
        status = "failed"
    told: dict[str, Any] = {
        "taskId": task.id,
        "status": status,
        "createdAt": _at(task.created_at),
        "lastUpdatedAt": _at(task.updated_at),
        "ttlMs": keep_ms,
        "pollIntervalMs": POLL_MS,
    }
    if task.status is TaskStatus.WAITING and not open_questions:
        told["statusMessage"] = "it waits for a person, or for its time"
    return told


def detailed(task: Task, open_questions: Questions, *, keep_ms: int | None) -> dict[str, Any]:
    """The same with what it has come to, or waits for."""
    told = {"resultType": "complete", **task_of(task, open_questions, keep_ms=keep_ms)}
    if told["status"] == "input_required":
        told["inputRequests"] = {name: question_of(each) for name, each in open_questions.items()}
    elif told["status"] == "failed":
        told["error"] = {"code": INTERNAL_ERROR, "message": _message(task.error)}
    elif told["status"] == "completed":
        told["result"] = result_of(task)
    return told


def question_of(approval: Approval) -> dict[str, Any]:
    """An approval as a form that a person fills in; the arguments stand there whole, and nothing in them is unseen."""
    asked = approval.asked
    call = f"{one_line(asked.tool)} with {unmistakable(asked.arguments)}"
    message = f"The agent wants to call {call}. {one_line(asked.reason)}"
    properties = {
        "confirm": {"type": "boolean", "title": "Approve", "description": "Whether the call is carried out."},
        "reason": {"type": "string", "title": "Reason", "description": "Told to the agent with a no."},
    }
    if asked.interrupted:
        about = "Where you have looked: what the call has returned, as JSON. It is not made again then."
        properties["result"] = {"type": "string", "title": "It took effect", "description": about}
        about = "Where you have looked: why the call has failed. It is not made again then."
        properties["failed"] = {"type": "string", "title": "It failed", "description": about}
    if approval.late_results:
        late = approval.late_results[-1]
        about = "Whether that is recorded as the result of the call. It is not made again then."
        properties["late"] = {"type": "boolean", "title": "Take what was reported", "description": about}
        what = "it has failed" if late.failed else "it has returned"
        message += f" Its worker came back and has reported that {what}: {one_line(late.shown)}"
    schema = {"type": "object", "properties": properties, "required": ["confirm"]}
    params = {"mode": "form", "message": message, "requestedSchema": schema}
    return {"method": "elicitation/create", "params": params}


def takes_late_result(approval: Approval, response: Any) -> bool:
    """A person said that what was reported late is the result of the call."""
    told = _object(response)
    accepted = told.get("action") == "accept" and _object(told.get("content")).get("late") is True
    return accepted and bool(approval.late_results)


def answer_to(approval: Approval, response: Any) -> ApprovalGiven | None:
    """What a person said to an approval; ``None`` for what is no answer.

    Only a form that was accepted, with a yes in it, is a yes.
    """
    asked, told = approval.asked, _object(response)
    if told.get("action") not in {"accept", "decline", "cancel"}:
        return None
    content = _object(told.get("content"))
    approved = told["action"] == "accept" and content.get("confirm") is True
    reason = content.get("reason")
    settled = _settlement(content) if asked.interrupted and told["action"] == "accept" else None
    if settled is not None:
        return replace(settled.as_step(asked.approval_id), digest=asked.digest)
    return ApprovalGiven(
        approval_id=asked.approval_id,
        approved=approved,
        reason=reason if isinstance(reason, str) else "",
        by="mcp",
        digest=asked.digest,
    )


def _settlement(content: Mapping[str, Any]) -> SettleRequest | None:
    """What a person says came of a call; a text that is no JSON is that text."""
    said: dict[str, Any] = {"call": "-", "by": "mcp"}
    result, failed = content.get("result"), content.get("failed")
    if isinstance(result, str) and result.strip():
        try:
            said["result"] = parse(result.encode())
        except (NotStrict, UnicodeEncodeError):
            said["result"] = recordable(result)
    elif isinstance(failed, str) and failed.strip():
        said["failed"] = recordable(failed, 2000)
    else:
        return None
    return SettleRequest.model_validate(said)


def result_of(task: Task) -> dict[str, Any]:
    """The result of a tool, from a task that has ended."""
    if task.status is TaskStatus.CANCELLED:
        return failure("the task was cancelled")
    if task.status is TaskStatus.FAILED:
        return failure(_message(task.error))
    shown, attachments = split_input(task.output)
    text = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)
    content = [_text(text), *(_content(number, each) for number, each in enumerate(attachments, 1))]
    told: dict[str, Any] = {"resultType": "complete", "content": content, "isError": False}
    if isinstance(task.output, Mapping) and not attachments:
        told["structuredContent"] = task.output
    return told


def failure(message: str) -> dict[str, Any]:
    """The result of a tool that failed."""
    return {"resultType": "complete", "content": [_text(message)], "isError": True}


def _object(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _content(number: int, attachment: Attachment) -> dict[str, Any]:
    kind = attachment.media_type.partition("/")[0]
    name = attachment.name or f"attachment {number}"
    if attachment.data is None:
        return {
            "type": "resource_link",
            "uri": attachment.url,
            "name": name,
            "mimeType": attachment.media_type,
        }
    data = base64.b64encode(attachment.data).decode()
    if kind in {"image", "audio"}:
        return {"type": kind, "data": data, "mimeType": attachment.media_type}
    resource = {"uri": f"attachment:{number}", "mimeType": attachment.media_type, "blob": data}
    return {"type": "resource", "resource": resource}


def _is_ours(error: RunError | None) -> bool:
    """The fault is not one of the work, but of whoever runs it: nobody's tool has failed."""
    return error is not None and (error.actor is Actor.DEVELOPER or error.code == "internal")


def _message(error: RunError | None) -> str:
    return "no reason was recorded" if error is None else f"{error.code}: {error.message}"


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
