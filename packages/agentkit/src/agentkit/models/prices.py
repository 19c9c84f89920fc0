"""What models cost: own prices first, then the tables of ``genai-prices`` (the extra ``agentkit[prices]``), offline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from agentkit.errors import UsageError
from agentkit.messages import Usage
from agentkit.money import nanos, usd

_MILLION = 10**6
_FREE = frozenset({"offline"})
"""Providers that run in this process."""

_TABLES: Mapping[str, str] = {
    "openai": "openai",
    "anthropic": "anthropic",
    "google": "google",
    "openrouter": "openrouter",
}
"""Providers whose prices ``genai-prices`` knows, and its names for them. Other endpoints have prices of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one model costs, in US dollars per million tokens.

    Attributes:
        input_usd_per_million: tokens read.
        output_usd_per_million: tokens written, reasoning included.
        cached_input_usd_per_million: tokens read that the provider had cached; as other input where not given.
        cache_write_usd_per_million: tokens read that it caches now; as other input where not given.
        max_output_tokens: of one reply, where the model has such a bound; what is reserved under a limit of money.
    """

    input_usd_per_million: float
    output_usd_per_million: float
    cached_input_usd_per_million: float | None = None
    cache_write_usd_per_million: float | None = None
    max_output_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise UsageError(f"a price: {name} must be zero or more, and finite, not {value!r}")

    def of(self, usage: Usage) -> int:
        """Nano-dollars, rounded up to a whole one."""
        plain = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
        cached, written = self.cached_input_usd_per_million, self.cache_write_usd_per_million
        billed = (
            (plain, self.input_usd_per_million),
            (usage.cached_tokens, self.input_usd_per_million if cached is None else cached),
            (usage.cache_write_tokens, self.input_usd_per_million if written is None else written),
            (usage.output_tokens, self.output_usd_per_million),
        )
        # by its digits: Decimal(0.1) would be a little more than a tenth
        return nanos(sum((tokens * Decimal(str(price)) for tokens, price in billed), Decimal(0)) / _MILLION)


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of models by their names.

    Attributes:
        own: ``provider:name`` → price; these come before all others.
    """

    own: Mapping[str, Price] = field(default_factory=dict[str, Price])

    def cost(self, usage: Usage, *models: str) -> int:
        """Nano-dollars for ``usage``, at the price of the first of ``models`` that has one; own prices before others.

        Args:
            usage: of one call, since some prices depend on its size.
            models: names of one and the same model: what answered, and what was asked for.

        Raises:
            LookupError: nobody knows.
        """
        usage = _consistent(usage)
        for known in (self._own, _of_the_tables):
            for model in models:
                found = known(model, usage)
                if found is not None:
                    return found
        raise LookupError(f"no price is known for {models[-1]}")

    def most(self, model: str, input_tokens: int, output_tokens: int) -> int:
        """Nano-dollars that a call cannot exceed: also where the provider puts all that it reads into its cache.

        Raises:
            LookupError: nobody knows.
        """
        plain = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        return max(self.cost(plain, model), self.cost(replace(plain, cache_write_tokens=input_tokens), model))

    def max_output_tokens(self, model: str) -> int | None:
        """The longest reply of a model, where somebody has said."""
        own = self.own.get(model)
        return None if own is None else own.max_output_tokens

    def billed(self, usage: Usage, *models: str) -> Usage:
        """``usage`` with its cost: as the provider has told it, else by the price; unchanged where nobody knows."""
        if usage.cost_usd is not None:
            return replace(usage, cost_usd=usd(nanos(usage.cost_usd)))
        try:
            return replace(usage, cost_usd=usd(self.cost(usage, *models)))
        except LookupError:
            return usage

    def _own(self, model: str, usage: Usage) -> int | None:
        if model in self.own:
            return self.own[model].of(usage)
        return 0 if model.partition(":")[0] in _FREE else None


def _consistent(usage: Usage) -> Usage:
    """No part is larger than the whole, whatever a provider has counted."""
    if usage.cached_tokens + usage.cache_write_tokens <= usage.input_tokens:
        return usage
    cached = min(usage.cached_tokens, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens - cached)
    return replace(usage, cached_tokens=cached, cache_write_tokens=written)


def _of_the_tables(model: str, usage: Usage) -> int | None:
    provider, _colon, name = model.partition(":")
    calculate = _calculator() if provider in _TABLES else None
    if calculate is None:
        return None
    # the library warns of parts that a price does not know, and takes them as other input: so what is zero is left out
    parts = {"cache_read_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens}
    used = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    try:
        return calculate(
            used | {part: tokens for part, tokens in parts.items() if tokens}, name, _TABLES[provider]
        )
    except (LookupError, ValueError):
        return None


def _calculator() -> Callable[[dict[str, int], str, str], int] | None:
    try:
        import genai_prices
    except ModuleNotFoundError as error:
        if error.name != "genai_prices":
            raise
        return None

    def calculate(used: dict[str, int], model: str, provider: str) -> int:
        counted: Any = genai_prices.Usage(**used)
        return nanos(genai_prices.calc_price(counted, model, provider_id=provider).total_price)

    return calculate
