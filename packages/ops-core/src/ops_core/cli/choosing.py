"""Which agent, and with which model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ops_core.catalog import DEFAULT_AGENT, Catalog, Served
from ops_core.errors import AgentNotFound, InvalidRequest


def chosen_agent(names: Sequence[str], wanted: str | None) -> str:
    """The agent that is named, or the one that is meant where none is.

    Raises:
        AgentNotFound: there is none of this name.
        InvalidRequest: there are several, and none was named.
    """
    if wanted is not None:
        if wanted not in names:
            message = f"there is no agent {wanted!r}; there are: {', '.join(names) or 'none'}"
            raise AgentNotFound(message, field="agent")
        return wanted
    if len(names) == 1:
        return names[0]
    if DEFAULT_AGENT in names:
        return DEFAULT_AGENT
    message = f"which agent? name one with --agent: {', '.join(names) or 'there is none'}"
    raise InvalidRequest(message, field="agent")


def with_model(served: Served, model: str | None) -> Served:
    """The agent with another model. Its name then says so, so that no worker takes its tasks for the agent's own."""
    if model is None:
        return served
    return replace(served, agent=replace(served.agent, model=model, name=f"{served.agent.name}@{model}"))


def serving(catalog: Catalog, task_agent: str, model: str | None) -> Served:
    """The agent that carries on a task, under the name that the task has.

    Raises:
        AgentNotFound: it is not declared here.
    """
    name, _at, earlier = (task_agent, "", "") if task_agent in catalog.names else task_agent.partition("@")
    served = catalog.get(name)
    agent = replace(served.agent, model=model or earlier or served.agent.model, name=task_agent)
    return replace(served, agent=agent)
