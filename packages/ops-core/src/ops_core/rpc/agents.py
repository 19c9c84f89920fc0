"""Service of agents."""

from __future__ import annotations

from ops_core.assembly import Ops
from ops_core.errors import AgentNotFound
from ops_core.protocol.tasks import agent_out
from ops_core.protocol.v1 import agent_service_pb2 as messages
from ops_core.protocol.v1.agent_service_pb2_grpc import AgentServiceServicer
from ops_core.rpc.call_guard import Answering, Context
from ops_core.service import LocalClient


class AgentService(AgentServiceServicer):
    """``opspawn.v1.AgentService``.

    Args:
        ops: the platform.
    """

    def __init__(self, ops: Ops) -> None:
        self._verbs = LocalClient(ops.engine, ops.catalog)
        self._answering = Answering(ops.settings.max_body_bytes)

    async def ListAgents(  # noqa: N802  (the contract names it)
        self, request: messages.ListAgentsRequest, context: Context
    ) -> messages.ListAgentsResponse:
        """All agents that can be run here."""
        async with self._answering(request, context):
            agents = await self._verbs.agents()
            return messages.ListAgentsResponse(agents=[agent_out(agent) for agent in agents])

    async def GetAgent(  # noqa: N802  (as above)
        self, request: messages.GetAgentRequest, context: Context
    ) -> messages.GetAgentResponse:
        """One agent."""
        async with self._answering(request, context, missing=AgentNotFound):
            return messages.GetAgentResponse(agent=agent_out(await self._verbs.agent(request.name)))
