"""Description of an agent of a catalog, as its body shows it.

It stands apart from the body, so that a client, which only reads bodies, loads no part of an agent.
"""

from __future__ import annotations

from typing import Any, TypeGuard, cast

from pydantic import JsonValue

from agentkit.errors import AgentkitError
from agentkit.messages import ToolSpec
from agentkit.ports import Toolset
from agentkit.schema import OutputSchema
from agentkit.tools import FunctionToolset, Tool
from agentkit.untrusted.boundary import guarded
from ops_core.config.catalog import CatalogEntry
from ops_core.errors import OpsError
from ops_core.schemas.agents import AgentBody, AgentBudgetBody, ToolBody


async def describe_agent(entry: CatalogEntry) -> AgentBody:
    """Return the body of an agent, with the tools of its toolsets; one that does not answer is its ``problem``."""
    agent, tools, problems = entry.agent, list[ToolBody](), list[str]()
    for member in agent.tools:
        toolset = member if _is_toolset(member) else FunctionToolset([cast("Tool", member)])
        try:
            with guarded("a toolset"):
                tools += [_describe_tool(spec) for spec in await toolset.specs()]
        except (AgentkitError, OpsError) as error:
            problems.append(str(error))
        except Exception as error:  # noqa: BLE001  (of a toolset that is not ours; its text may hold anything)
            problems.append(f"its tools cannot be listed: {type(error).__name__}")
    limits = agent.limits
    return AgentBody(
        name=agent.name,
        model=agent.model if isinstance(agent.model, str) else agent.model.name,
        planning=agent.planning,
        instructions=agent.instructions,
        tools=tools,
        problem="; ".join(problems) or None,
        output_schema=cast("dict[str, JsonValue] | None", OutputSchema(agent.output).json_schema),
        budget=AgentBudgetBody(
            steps=limits.steps, tokens=limits.tokens, seconds=limits.seconds, usd=limits.usd
        ),
    )


def _describe_tool(spec: ToolSpec) -> ToolBody:
    return ToolBody(
        name=spec.name,
        description=spec.description,
        effect=spec.effect,
        approval=spec.approval,
        parameters=cast("dict[str, JsonValue]", dict(spec.parameters)),
    )


def _is_toolset(member: Any) -> TypeGuard[Toolset]:
    return not isinstance(member, Tool) and hasattr(member, "specs")
