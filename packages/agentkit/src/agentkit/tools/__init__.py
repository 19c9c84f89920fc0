"""Tools of an agent: functions as tools, and a few tools that every installation has."""

from typing import TYPE_CHECKING

from agentkit.exports import exports

if TYPE_CHECKING:
    from agentkit.tools.functions import FunctionToolset, Tool, tool
    from agentkit.tools.http import HttpTool, HttpToolset
    from agentkit.tools.lookups import ABSENT, found
    from agentkit.tools.openapi import from_openapi, openapi_tools
else:
    __getattr__, __dir__ = exports(
        __name__,
        {
            "agentkit.tools.functions": (
                "FunctionToolset",
                "Tool",
                "tool",
            ),
            "agentkit.tools.http": (
                "HttpTool",
                "HttpToolset",
            ),
            "agentkit.tools.lookups": (
                "ABSENT",
                "found",
            ),
            "agentkit.tools.openapi": (
                "from_openapi",
                "openapi_tools",
            ),
        },
    )

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
