"""Routes of the kill switch."""

from __future__ import annotations

from fastapi import FastAPI

from ops_core.api.openapi import HALTS, reading, writing
from ops_core.api.parameters import Cursor, HaltId, IdempotencyKey, InForce, PageLimit, key_of
from ops_core.client import Operations
from ops_core.schemas import HaltBody, HaltPage, HaltRequest, LiftRequest
from ops_core.schemas.queries import PAGE_DEFAULT


class HaltRoutes:
    """What is halted.

    Args:
        verbs: of the platform.
    """

    def __init__(self, verbs: Operations) -> None:
        self._verbs = verbs

    def add_to(self, app: FastAPI) -> None:
        """Add them to ``app``."""
        app.add_api_route(HALTS, self.create, status_code=201, **writing("create_halt", 404, 409))
        app.add_api_route(HALTS, self.list_halts, **reading("list_halts"))
        app.add_api_route(f"{HALTS}/{{halt_id}}/lift", self.lift, **writing("lift_halt", 404))

    async def create(self, request: HaltRequest, idempotency_key: IdempotencyKey = None) -> HaltBody:
        """Halt a task, an agent, a tool, an MCP server, or everything.

        When this answers, no worker claims anything that is halted, and none makes a call that it holds and that may
        change something. What is under way is let go, or cancelled, within a second. With an `Idempotency-Key` a
        repeated request finds its halt.
        """
        return await self._verbs.halt(request, idempotency_key=key_of(idempotency_key))

    async def list_halts(
        self, in_force: InForce = True, cursor: Cursor = None, limit: PageLimit = PAGE_DEFAULT
    ) -> HaltPage:
        """What is halted, and with `in_force=false` also what was, the newest first."""
        return await self._verbs.halts(in_force=in_force, cursor=cursor, limit=limit)

    async def lift(self, halt_id: HaltId, request: LiftRequest) -> HaltBody:
        """Lift a halt: what it held goes on, unless another halt holds it. A lifted one stays as it is."""
        return await self._verbs.lift(halt_id, request)
