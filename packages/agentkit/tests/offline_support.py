"""Conversations with the offline model."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentkit.errors import ToolError
from agentkit.messages import (
    AssistantMessage,
    Message,
    ModelRequest,
    StopReason,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentkit.models.offline import OfflineModel
from agentkit.planning.conversation import as_text
from agentkit.ports import Model, ToolContext
from agentkit.tools.builtin.everyday import everyday_tools
from agentkit.tools.functions import FunctionToolset, Tool, tool

Call = tuple[str, dict[str, Any]]


@dataclass
class Conversation:
    """What was said until the final text.

    Attributes:
        turns: the calls of each reply that had some.
        text: the final text.
    """

    turns: list[list[Call]] = field(default_factory=list)
    text: str = ""
    ids: list[str] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)


def converse(goal: str, tools: Sequence[Tool], **request: Any) -> Conversation:
    return asyncio.run(_converse(goal, FunctionToolset(tools), request))


async def _converse(goal: str, tools: FunctionToolset, request: Mapping[str, Any]) -> Conversation:
    model: Model = OfflineModel()
    specs = tuple(await tools.specs())
    said = Conversation(messages=[UserMessage(text=goal)])
    for _ in range(40):
        reply = await model.reply(ModelRequest(messages=tuple(said.messages), tools=specs, **request))
        said.messages.append(AssistantMessage(parts=reply.parts))
        if not reply.tool_calls:
            assert reply.stop_reason is StopReason.END
            said.text = reply.text
            return said
        assert reply.stop_reason is StopReason.TOOL_CALLS
        said.turns.append([(call.name, dict(call.arguments)) for call in reply.tool_calls])
        said.ids += [call.id for call in reply.tool_calls]
        said.messages += [await _answer(call, tools) for call in reply.tool_calls]
    raise AssertionError("the model goes on for ever")


async def _answer(call: ToolCall, tools: FunctionToolset) -> ToolMessage:
    context: ToolContext[Any] = ToolContext(deps=None, run_id="run", call_id=call.id, idempotency_key=call.id)
    try:
        content, failed = as_text(await tools.call(call, context)), False
    except ToolError as error:
        content, failed = str(error), True
    return ToolMessage(call_id=call.id, name=call.name, content=content, is_error=failed)


@tool(effect="pure")
def today(timezone: str = "UTC") -> str:
    """A day on which the tests can rely."""
    return "2024-05-06"


def tools_below(tmp_path: Path) -> list[Tool]:
    """The everyday tools, with files to read."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("durable one two three\nThe durable lease.\n", encoding="utf-8")
    (tmp_path / "CHANGELOG.md").write_text("a b c d e\n", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("Some notes. Two sentences!\n", encoding="utf-8")
    (tmp_path / "docs" / "guide.md").write_text("x\na lease is a lease\n", encoding="utf-8")
    return [today, *(made for made in everyday_tools(tmp_path) if made.name != "today")]
