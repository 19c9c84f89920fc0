"""What is told of agents."""

from __future__ import annotations

from typing import Any, TypeGuard, cast

from pydantic import Field, JsonValue

from agentkit.ports import Toolset
from agentkit.schema import OutputSchema
from agentkit.tools import FunctionToolset, Tool
from ops_core.catalog import Served
from ops_core.wire.forms import Strict


class AgentBudgetBody(Strict):
    """The agent's own limits of each run; ``null`` for none."""

    steps: int | None
    tokens: int | None
    seconds: float | None
    usd: float | None = None


class ToolBody(Strict):
    """A tool of an agent."""

    name: str
    description: str
    effect: str
    approval: bool
    parameters: dict[str, JsonValue] = Field(
        default_factory=dict, description="JSON schema of the arguments of a call."
    )


class AgentBody(Strict):
    """An agent that can be run here."""

    name: str
    model: str
    planning: str
    instructions: str
    tools: list[ToolBody]
    budget: AgentBudgetBody
    output_schema: dict[str, JsonValue] | None = Field(
        default=None, description="JSON schema of the output of a completed task; `null` for text."
    )

    @classmethod
    async def of(cls, served: Served) -> AgentBody:
        """An agent as it is told. Its toolsets are asked what they hold."""
        agent, tools = served.agent, list[ToolBody]()
        for given in agent.tools:
            toolset = given if _is_toolset(given) else FunctionToolset([cast("Tool", given)])
            for spec in await toolset.specs():
                tools.append(
                    ToolBody(
                        name=spec.name,
                        description=spec.description,
                        effect=spec.effect,
                        approval=spec.approval,
                        parameters=cast("dict[str, JsonValue]", dict(spec.parameters)),
                    )
                )
        limits = agent.limits
        return cls(
            name=agent.name,
            model=agent.model if isinstance(agent.model, str) else agent.model.name,
            planning=agent.planning,
            instructions=agent.instructions,
            tools=tools,
            output_schema=cast("dict[str, JsonValue] | None", OutputSchema(agent.output).json_schema),
            budget=AgentBudgetBody(
                steps=limits.steps, tokens=limits.tokens, seconds=limits.seconds, usd=limits.usd
            ),
        )


class AgentPage(Strict):
    """All agents."""

    items: list[AgentBody]


def _is_toolset(given: Any) -> TypeGuard[Toolset]:
    return not isinstance(given, Tool) and hasattr(given, "specs")
