"""Bodies of a tenant's spending."""

from __future__ import annotations

from datetime import date

from pydantic import ConfigDict, Field

from agentkit.money import usd
from ops_core.schemas.fields import Strict
from ops_core.spending import Spent


class SpendingBody(Strict):
    """What a tenant has spent in a day; in US dollars."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"day": "2026-11-22", "spent_usd": 12.5, "reserved_usd": 0.25, "limit_usd": 50.0},
            ]
        }
    )

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
