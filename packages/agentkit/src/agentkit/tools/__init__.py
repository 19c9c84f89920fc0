"""What an agent can do: functions as tools, and a few tools that every installation has."""

from agentkit.tools.functions import FunctionToolset, Tool, tool

__all__ = ["FunctionToolset", "Tool", "tool"]
