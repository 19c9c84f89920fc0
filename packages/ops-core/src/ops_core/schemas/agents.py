"""Bodies of agents and of their tools."""

from __future__ import annotations

from pydantic import Field, JsonValue

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


class AgentPage(Strict):
    """All agents."""

    items: list[AgentBody]
