"""What is told of agents."""

from __future__ import annotations

from typing import Any, TypeGuard, cast

from pydantic import Field, JsonValue

from agentkit.errors import AgentkitError
from agentkit.messages import ToolSpec
from agentkit.ports import Toolset
from agentkit.schema import OutputSchema
from agentkit.tools import FunctionToolset, Tool
from agentkit.untrusted.boundary import guarded
from ops_core.config.catalog import CatalogEntry
from ops_core.errors import OpsError
from ops_core.schemas.fields import Strict


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

    @classmethod
    def of(cls, spec: ToolSpec) -> ToolBody:
        """A tool as it is told."""
        return cls(
            name=spec.name,
            description=spec.description,
            effect=spec.effect,
            approval=spec.approval,
            parameters=cast("dict[str, JsonValue]", dict(spec.parameters)),
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
    problem: str | None = Field(
        default=None,
        description="Why some of its tools are not listed: an MCP server that is not approved, or away; else `null`.",
    )

    @classmethod
    async def of(cls, served: CatalogEntry) -> AgentBody:
        """An agent as it is told. Its toolsets are asked what they hold."""
        agent, tools, problems = served.agent, list[ToolBody](), list[str]()
        for given in agent.tools:
            toolset = given if _is_toolset(given) else FunctionToolset([cast("Tool", given)])
            try:
                with guarded("a toolset"):
                    tools += [ToolBody.of(spec) for spec in await toolset.specs()]
            except (AgentkitError, OpsError) as error:
                problems.append(str(error))
            except Exception as error:  # noqa: BLE001  (of a toolset that is not ours; its text may hold anything)
                problems.append(f"its tools cannot be listed: {type(error).__name__}")
        limits = agent.limits
        return cls(
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


class AgentPage(Strict):
    """All agents."""

    items: list[AgentBody]


def _is_toolset(given: Any) -> TypeGuard[Toolset]:
    return not isinstance(given, Tool) and hasattr(given, "specs")
