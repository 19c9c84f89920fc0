"""How the tests call a built-in tool: as an agent does."""

import asyncio
from typing import Any

from agentkit.messages import ToolCall
from agentkit.ports import ToolContext
from agentkit.tools.builtin.everyday import everyday_tools
from agentkit.tools.functions import FunctionToolset, Tool


def use(tools: list[Tool], name: str, **arguments: Any) -> Any:
    """Call a tool as an agent does: through the toolset, with JSON arguments."""
    context: ToolContext[Any] = ToolContext(deps=None, run_id="run", call_id="call", idempotency_key="key")
    return asyncio.run(
        FunctionToolset(tools).call(ToolCall(id="call", name=name, arguments=arguments), context)
    )


def everyday(name: str, **arguments: Any) -> Any:
    return use(everyday_tools(), name, **arguments)
