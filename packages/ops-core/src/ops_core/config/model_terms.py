"""Terms of model calls: prices, rate limits and spending limits. Values without effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agentkit.budget.prices import Price
from agentkit.models.resilience.circuit_breaker import CircuitSettings
from agentkit.models.resilience.rate_limiter import RateLimits
from ops_core.spending import Spending


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTerms:
    """On what terms the agents of a catalog ask their models.

    Attributes:
        prices: own prices, by ``provider:name``.
        limits: what a provider or a model may be sent, by its name.
        breaking: when a model whose calls fail is left alone.
        spending: what tenants may spend in a day.
    """

    prices: Mapping[str, Price] = field(default_factory=dict[str, Price])
    limits: Mapping[str, RateLimits] = field(default_factory=dict[str, RateLimits])
    breaking: CircuitSettings = field(default_factory=CircuitSettings)
    spending: Spending = field(default_factory=Spending)
