"""Tools of servers that speak the Model Context Protocol. Needs the extra ``opspawn-agentkit[mcp]``.

::

    async with McpPool([McpServer(name="time", command="mcp-server-time")]) as pool:
        agent = Agent("openai:gpt-5.5", tools=[pool.toolset("time")])

Whatever a server sends is untrusted data: definitions are checked and can be pinned, results are made safe to show,
no schema of a server is run, and what it says about the effects of its tools counts for nothing.
"""

from agentkit.mcp.definitions import Definition
from agentkit.mcp.oauth.loopback import LoopbackLogin
from agentkit.mcp.oauth.tokens import Answer, Login, McpOAuth, TokenFolder
from agentkit.mcp.pins import Pins, Standing, standings
from agentkit.mcp.pool import McpPool
from agentkit.mcp.proxy import McpProxy
from agentkit.mcp.servers import McpServer
from agentkit.mcp.toolset import McpToolset

__all__ = [
    "Answer",
    "Definition",
    "Login",
    "LoopbackLogin",
    "McpOAuth",
    "McpPool",
    "McpProxy",
    "McpServer",
    "McpToolset",
    "Pins",
    "Standing",
    "TokenFolder",
    "standings",
]
