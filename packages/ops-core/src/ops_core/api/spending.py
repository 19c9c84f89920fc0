"""The route of what a tenant spends."""

from __future__ import annotations

from datetime import date

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from agentkit.money import usd
from ops_core.api.openapi import API, reading
from ops_core.engine import Engine
from ops_core.ports import Spent
from ops_core.task import DEFAULT_TENANT
from ops_core.terms import Spending


class SpendingBody(BaseModel):
    """What a tenant has spent in a day; in US dollars."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    day: date = Field(description="It begins at midnight UTC.")
    spent_usd: float = Field(
        description="By calls of models that have ended, and by those that were cut: these count with the most that "
        "they can have cost."
    )
    reserved_usd: float = Field(
        description="For calls under way, and for calls that were cut and whose tasks have not gone on."
    )
    limit_usd: float | None = Field(description="`null` for no limit; then nothing is kept.")

    @classmethod
    def of(cls, spent: Spent, limit: int | None) -> SpendingBody:
        """As it is told; ``limit`` in nano-dollars."""
        return cls(
            day=date.fromordinal(date(1970, 1, 1).toordinal() + spent.day),
            spent_usd=usd(spent.spent),
            reserved_usd=usd(spent.reserved),
            limit_usd=None if limit is None else usd(limit),
        )


class SpendingRoutes:
    """What was spent today.

    Args:
        engine: where it is known.
        spending: what may be spent.
    """

    def __init__(self, engine: Engine, spending: Spending) -> None:
        self._engine = engine
        self._spending = spending

    def add_to(self, app: FastAPI) -> None:
        """Add it to ``app``."""
        app.add_api_route(f"{API}/spending", self.get, **reading("get_spending"))

    async def get(self) -> SpendingBody:
        """What the tenant has spent today (UTC) and may still spend.

        It is kept only where there is a limit (`[spending]`).
        """
        limit = self._spending.limit(DEFAULT_TENANT)
        return SpendingBody.of(await self._engine.spent(DEFAULT_TENANT), limit)
