"""agentkit: typed async agents that can be stopped anywhere and carried on.

::

    from agentkit import Agent, tool


    @tool(effect="pure")
    def add(a: int, b: int) -> int:
        "Add two numbers."
        return a + b


    outcome = Agent("openai:gpt-5.5", tools=[add]).run_sync("What is 2 + 3?")
    print(outcome.unwrap())
"""

from typing import TYPE_CHECKING

from agentkit.exports import exports

if TYPE_CHECKING:
    from agentkit.agent import Agent, RunOptions
    from agentkit.budget.limits import Limits
    from agentkit.errors import Actor, AgentkitError, ModelError, RunError, RunFailed, ToolError, UsageError
    from agentkit.messages import Attachment, Effect, ReasoningDelta, TextDelta, ToolCall, Usage
    from agentkit.models import open_model
    from agentkit.models.settings import ModelSettings
    from agentkit.policies import Between, Hosts, Inside, OneOf, Rule, SecurityPolicy
    from agentkit.ports import ToolContext
    from agentkit.run.compaction import Context
    from agentkit.run.control import Control
    from agentkit.run.loop import Event
    from agentkit.run.outcomes import Cancelled, Completed, Failed, Outcome, Waiting
    from agentkit.run.tool_call import ToolProgress
    from agentkit.tools import FunctionToolset, Tool, tool
    from agentkit.transcript.journals import FileJournal, MemoryJournal
    from agentkit.transcript.steps import Recorded, Step, Turn
else:
    __getattr__, __dir__ = exports(
        __name__,
        {
            "agentkit.agent": (
                "Agent",
                "RunOptions",
            ),
            "agentkit.budget.limits": ("Limits",),
            "agentkit.errors": (
                "Actor",
                "AgentkitError",
                "ModelError",
                "RunError",
                "RunFailed",
                "ToolError",
                "UsageError",
            ),
            "agentkit.messages": (
                "Attachment",
                "Effect",
                "ReasoningDelta",
                "TextDelta",
                "ToolCall",
                "Usage",
            ),
            "agentkit.models": ("open_model",),
            "agentkit.models.settings": ("ModelSettings",),
            "agentkit.policies": (
                "Between",
                "Hosts",
                "Inside",
                "OneOf",
                "Rule",
                "SecurityPolicy",
            ),
            "agentkit.ports": ("ToolContext",),
            "agentkit.run.compaction": ("Context",),
            "agentkit.run.control": ("Control",),
            "agentkit.run.loop": ("Event",),
            "agentkit.run.outcomes": (
                "Cancelled",
                "Completed",
                "Failed",
                "Outcome",
                "Waiting",
            ),
            "agentkit.run.tool_call": ("ToolProgress",),
            "agentkit.tools": (
                "FunctionToolset",
                "Tool",
                "tool",
            ),
            "agentkit.transcript.journals": (
                "FileJournal",
                "MemoryJournal",
            ),
            "agentkit.transcript.steps": (
                "Recorded",
                "Step",
                "Turn",
            ),
        },
    )

__version__ = "0.1.0"
__distribution__ = "opspawn-agentkit"
"""Tells this package from another project's of the same name; ``opspawn`` looks at it before it imports anything."""

__all__ = [
    "Actor",
    "Agent",
    "AgentkitError",
    "Attachment",
    "Between",
    "Cancelled",
    "Completed",
    "Context",
    "Control",
    "Effect",
    "Event",
    "Failed",
    "FileJournal",
    "FunctionToolset",
    "Hosts",
    "Inside",
    "Limits",
    "MemoryJournal",
    "ModelError",
    "ModelSettings",
    "OneOf",
    "Outcome",
    "ReasoningDelta",
    "Recorded",
    "Rule",
    "RunError",
    "RunFailed",
    "RunOptions",
    "SecurityPolicy",
    "Step",
    "TextDelta",
    "Tool",
    "ToolCall",
    "ToolContext",
    "ToolError",
    "ToolProgress",
    "Turn",
    "Usage",
    "UsageError",
    "Waiting",
    "open_model",
    "tool",
]
