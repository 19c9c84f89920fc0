"""On what terms models are asked: what they cost, how much they may be sent, what may be spent. Values, no effect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from agentkit.budget.prices import Price
from agentkit.models.resilience.circuit_breaker import Breaking
from agentkit.models.resilience.rate_limiter import RateLimits
from agentkit.money import nanos
from ops_core.errors import ConfigError

_DAY = 86_400


def day_of(moment: float) -> int:
    """Days since 1970, UTC, at a moment in seconds since then."""
    return int(moment // _DAY)


def until_tomorrow(moment: float) -> float:
    """Seconds to the next midnight, UTC."""
    return (day_of(moment) + 1) * _DAY - moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What tenants may spend in a day, which begins at midnight UTC. ``None`` means no limit.

    Attributes:
        usd_per_day: of each tenant that is not named.
        tenants: of these.
        when_reached: a run that a call would take beyond the limit fails; or it waits for the next day.
    """

    usd_per_day: float | None = None
    tenants: Mapping[str, float] = field(default_factory=dict[str, float])
    when_reached: Literal["fail", "wait"] = "fail"

    def __post_init__(self) -> None:
        for name, value in (("usd_per_day", self.usd_per_day), *self.tenants.items()):
            if value is not None and not 0 < value < inf:
                message = f"spending: {name} must be positive and finite, not {value!r}"
                raise ConfigError(message, field="spending")

    @property
    def is_limited(self) -> bool:
        """Somebody's spending is."""
        return self.usd_per_day is not None or bool(self.tenants)

    def limit(self, tenant: str) -> int | None:
        """Nano-dollars that a tenant may spend in a day."""
        found = self.tenants.get(tenant, self.usd_per_day)
        return None if found is None else nanos(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On what terms the agents of a catalog ask their models.

    Attributes:
        prices: own prices, by ``provider:name``.
        limits: what a provider or a model may be sent, by its name.
        breaking: when a model whose calls fail is left alone.
        spending: what tenants may spend in a day.
    """

    prices: Mapping[str, Price] = field(default_factory=dict[str, Price])
    limits: Mapping[str, RateLimits] = field(default_factory=dict[str, RateLimits])
    breaking: Breaking = field(default_factory=Breaking)
    spending: Spending = field(default_factory=Spending)
