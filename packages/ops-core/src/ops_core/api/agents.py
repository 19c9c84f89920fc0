"""Routes of agents."""

from __future__ import annotations

from fastapi import FastAPI

from ops_core.api.errors import Refusal, Refused
from ops_core.api.openapi import API, reading
from ops_core.api.parameters import AgentName
from ops_core.config.catalog import Catalog
from ops_core.errors import AgentNotFound
from ops_core.schemas import AgentBody, AgentPage
from ops_core.schemas.agent_description import describe_agent

_NOT_HERE = Refusal(status=404, code=AgentNotFound.code, detail="There is no agent of this name here.")


class AgentRoutes:
    """What can be run here.

    Args:
        catalog: the agents.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def add_to(self, app: FastAPI) -> None:
        """Add them to ``app``."""
        app.add_api_route(f"{API}/agents", self.list_agents, **reading("list_agents"))
        app.add_api_route(f"{API}/agents/{{name:path}}", self.get, **reading("get_agent", 404))

    async def list_agents(self) -> AgentPage:
        """All agents that can be run here, in the order of their declaration."""
        return AgentPage(
            items=[await describe_agent(self._catalog.get(name)) for name in self._catalog.names]
        )

    async def get(self, name: AgentName) -> AgentBody:
        """One agent."""
        try:
            served = self._catalog.get(name)
        except AgentNotFound as error:  # in a task it is a wrong field; here it is a wrong address
            raise Refused(_NOT_HERE, str(error)) from None
        return await describe_agent(served)
