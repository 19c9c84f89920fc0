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
    from agentkit.calls import ToolProgress
    from agentkit.compaction import Context
    from agentkit.control import Control
    from agentkit.errors import Actor, AgentkitError, ModelError, RunError, RunFailed, ToolError, UsageError
    from agentkit.journals import FileJournal, MemoryJournal
    from agentkit.limits import Limits
    from agentkit.loop import Event
    from agentkit.messages import Attachment, Effect, ReasoningDelta, TextDelta, ToolCall, Usage
    from agentkit.model_settings import ModelSettings
    from agentkit.models import open_model
    from agentkit.outcomes import Cancelled, Completed, Failed, Outcome, Waiting
    from agentkit.policies import Between, Hosts, Inside, OneOf, Rule, Rules, SecurityPolicy
    from agentkit.ports import ToolContext
    from agentkit.tools import FunctionToolset, Tool, tool
    from agentkit.transcript import Recorded, Step, Turn
else:
    __getattr__, __dir__ = exports(
        __name__,
        {
            "agentkit.agent": ("Agent", "RunOptions"),
            "agentkit.calls": ("ToolProgress",),
            "agentkit.compaction": ("Context",),
            "agentkit.control": ("Control",),
            "agentkit.errors": (
                "Actor",
                "AgentkitError",
                "ModelError",
                "RunError",
                "RunFailed",
                "ToolError",
                "UsageError",
            ),
            "agentkit.journals": ("FileJournal", "MemoryJournal"),
            "agentkit.limits": ("Limits",),
            "agentkit.loop": ("Event",),
            "agentkit.messages": ("Attachment", "Effect", "ReasoningDelta", "TextDelta", "ToolCall", "Usage"),
            "agentkit.model_settings": ("ModelSettings",),
            "agentkit.models": ("open_model",),
            "agentkit.outcomes": ("Cancelled", "Completed", "Failed", "Outcome", "Waiting"),
            "agentkit.policies": ("Between", "Hosts", "Inside", "OneOf", "Rule", "Rules", "SecurityPolicy"),
            "agentkit.ports": ("ToolContext",),
            "agentkit.tools": ("FunctionToolset", "Tool", "tool"),
            "agentkit.transcript": ("Recorded", "Step", "Turn"),
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
    "Rules",
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
