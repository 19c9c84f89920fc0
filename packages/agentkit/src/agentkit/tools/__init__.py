"""What an agent can do: functions as tools, and a few tools that every installation has."""

from agentkit.tools.functions import FunctionToolset, Tool, tool
from agentkit.tools.http import HttpTool, HttpToolset
from agentkit.tools.lookups import ABSENT, found
from agentkit.tools.openapi import from_openapi, openapi_tools

__all__ = [
    "ABSENT",
    "FunctionToolset",
    "HttpTool",
    "HttpToolset",
    "Tool",
    "found",
    "from_openapi",
    "openapi_tools",
    "tool",
]
