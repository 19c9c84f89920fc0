"""Prices of models: own ones, then the tables of ``genai-prices`` (extra ``opspawn-agentkit[prices]``), offline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache
from typing import Any, TypeAlias

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

_MAX_UNKNOWN = 1000
"""So many names of models that ``genai-prices`` does not know are remembered."""

_PRICE_OF_KIND: Mapping[str, str] = {
    "input_audio_tokens": "input_audio_mtok",
    "cache_audio_read_tokens": "cache_audio_read_mtok",
    "output_audio_tokens": "output_audio_mtok",
    "output_image_tokens": "output_image_mtok",
    "cache_write_1h_tokens": "cache_write_1h_mtok",
    "web_searches": "web_searches_kcount",
    "storage_searches": "storage_searches_kcount",
}
"""Kinds of :attr:`Usage.by_kind` that ``genai-prices`` counts under the same name, and its prices for them."""

_OWN_PRICE_OF_KIND: Mapping[str, str] = {
    "input_audio_tokens": "input_audio_usd_per_million",
    "cache_audio_read_tokens": "cached_audio_usd_per_million",
    "output_audio_tokens": "output_audio_usd_per_million",
    "output_image_tokens": "output_image_usd_per_million",
    "cache_write_1h_tokens": "cache_write_1h_usd_per_million",
    "web_searches": "web_search_usd_per_thousand",
    "storage_searches": "file_search_usd_per_thousand",
}
"""The same, as fields of :class:`Price`."""
_COUNTED_BY_THE_THOUSAND = frozenset({"web_searches", "storage_searches"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one model costs, in US dollars per million tokens.

    A reply that uses something of which its price is not given has an unknown cost.

    Attributes:
        input_usd_per_million: tokens read.
        output_usd_per_million: tokens written, reasoning included.
        cached_input_usd_per_million: tokens read that the provider had cached; as other input where not given.
        cache_write_usd_per_million: tokens read that it caches now; as other input where not given.
        cache_write_1h_usd_per_million: tokens read that it caches for an hour.
        input_audio_usd_per_million: tokens read that are audio.
        cached_audio_usd_per_million: tokens read that are audio, and that the provider had cached.
        output_audio_usd_per_million: tokens written that are audio.
        output_image_usd_per_million: tokens written that are images.
        web_search_usd_per_thousand: searches of the web that the provider makes.
        file_search_usd_per_thousand: searches of files that it makes.
        max_output_tokens: of one reply, where the model has such a bound; what is reserved under a limit of money.
    """

    input_usd_per_million: float
    output_usd_per_million: float
    cached_input_usd_per_million: float | None = None
    cache_write_usd_per_million: float | None = None
    cache_write_1h_usd_per_million: float | None = None
    input_audio_usd_per_million: float | None = None
    cached_audio_usd_per_million: float | None = None
    output_audio_usd_per_million: float | None = None
    output_image_usd_per_million: float | None = None
    web_search_usd_per_thousand: float | None = None
    file_search_usd_per_thousand: float | None = None
    max_output_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise UsageError(f"a price: {name} must be zero or more, and finite, not {value!r}")

    @property
    def is_free(self) -> bool:
        """Nothing is billed, whatever is used."""
        return not any(getattr(self, name) for name in self.__slots__ if name != "max_output_tokens")

    def of(self, usage: Usage) -> int | None:
        """Nano-dollars, rounded up to a whole one; ``None`` where parts of it have a price that is not among these."""
        if self.is_free:
            return 0
        kinds = {kind: count for kind, count in usage.by_kind.items() if count}
        prices = {kind: getattr(self, _OWN_PRICE_OF_KIND.get(kind, ""), None) for kind in kinds}
        if any(price is None for price in prices.values()):
            return None
        # by its digits: Decimal(0.1) would be a little more than a tenth
        parts = [(tokens, Decimal(str(price))) for tokens, price in self._tokens(usage, kinds)]
        million = sum((tokens * price for tokens, price in parts), Decimal(0)) / _MILLION
        searches = ((kinds[kind], prices[kind]) for kind in kinds if kind in _COUNTED_BY_THE_THOUSAND)
        return nanos(
            million + sum((count * Decimal(str(price)) / 1000 for count, price in searches), Decimal(0))
        )

    def most(self, input_tokens: int, output_tokens: int) -> int:
        """Nano-dollars that a call cannot exceed, whatever kinds its tokens are of; searches come on top."""
        inputs = (
            self.input_usd_per_million,
            self.cache_write_usd_per_million,
            self.cache_write_1h_usd_per_million,
            self.input_audio_usd_per_million,
        )
        outputs = (
            self.output_usd_per_million,
            self.output_audio_usd_per_million,
            self.output_image_usd_per_million,
        )
        sides = ((input_tokens, inputs), (output_tokens, outputs))
        dearest = (tokens * Decimal(str(max(_or(price, 0) for price in prices))) for tokens, prices in sides)
        return nanos(sum(dearest, Decimal(0)) / _MILLION)

    def _tokens(self, usage: Usage, kinds: Mapping[str, int]) -> Iterator[tuple[int, float]]:
        """Tokens and the price of a million of them; those of a kind with a price of its own are not counted twice."""
        read, cached, written = self.input_usd_per_million, usage.cached_tokens, usage.cache_write_tokens
        heard, heard_before = kinds.get("input_audio_tokens", 0), kinds.get("cache_audio_read_tokens", 0)
        for_an_hour = kinds.get("cache_write_1h_tokens", 0)
        spoken, drawn = kinds.get("output_audio_tokens", 0), kinds.get("output_image_tokens", 0)
        plain = usage.input_tokens - cached - written - max(0, heard - heard_before)
        yield max(0, plain), read
        yield max(0, cached - heard_before), _or(self.cached_input_usd_per_million, read)
        yield max(0, written - for_an_hour), _or(self.cache_write_usd_per_million, read)
        yield max(0, usage.output_tokens - spoken - drawn), self.output_usd_per_million
        yield max(0, heard - heard_before), _or(self.input_audio_usd_per_million, read)
        yield heard_before, _or(self.cached_audio_usd_per_million, read)
        yield for_an_hour, _or(self.cache_write_1h_usd_per_million, read)
        yield spoken, _or(self.output_audio_usd_per_million, 0)
        yield drawn, _or(self.output_image_usd_per_million, 0)


def _or(price: float | None, otherwise: float) -> float:
    return otherwise if price is None else price


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of models by their names.

    Attributes:
        own: ``provider:name`` → price; these come before all others.
    """

    own: Mapping[str, Price] = field(default_factory=dict[str, Price])

    def cost(self, usage: Usage, *models: str) -> int:
        """Nano-dollars for ``usage``, at the price of the first of ``models`` that has one; own prices before others.

        Parts of a kind with a price of its own count at that price. Where no price is known for them, or the provider
        has not counted all, nobody knows.

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
            if any(model in self.own for model in models):  # its own price does not tell: no other does
                break
        raise LookupError(f"no price is known for {models[-1]}")

    def most(self, model: str, input_tokens: int, output_tokens: int) -> int:
        """Nano-dollars that a call cannot exceed: also where the provider puts all that it reads into its cache.

        Raises:
            LookupError: nobody knows.
        """
        if (own := self.own.get(model)) is not None:
            return own.most(input_tokens, output_tokens)
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
        price = self.own.get(model)
        if price is not None:
            return None if usage.partial and not price.is_free else price.of(usage)
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
    calculate = _calculator() if provider in _TABLES and not usage.partial else None
    if calculate is None or not _PRICE_OF_KIND.keys() >= usage.by_kind.keys():
        return None
    # the library warns of parts that a price does not know, and takes them as other input: so what is zero is left out
    parts = {
        "cache_read_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        **usage.by_kind,
    }
    used = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    used |= {part: tokens for part, tokens in parts.items() if tokens}
    if usage.cached_tokens and usage.by_kind.get("input_audio_tokens"):
        used.setdefault("cache_audio_read_tokens", 0)
    try:
        return calculate(used, name, _TABLES[provider])
    except (LookupError, ValueError):
        return None


_Calculate: TypeAlias = Callable[[dict[str, int], str, str], "int | None"]


@cache
def _calculator() -> _Calculate | None:
    try:
        import genai_prices
        from genai_prices.data_snapshot import get_snapshot
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "genai_prices":
            raise
        return None
    unknown: dict[tuple[str, str], object] = {}  # the library looks through its whole table again for these

    def calculate(used: dict[str, int], model: str, provider: str) -> int | None:
        tables, place = get_snapshot(), (provider, model)
        if unknown.get(place) is tables:
            return None
        counted: Any = genai_prices.Usage(**used)
        try:
            found = genai_prices.calc_price(counted, model, provider_id=provider)
        except LookupError as error:
            if type(error) is LookupError:  # and no KeyError of this one usage
                if len(unknown) >= _MAX_UNKNOWN:
                    unknown.clear()
                unknown[place] = tables
            return None
        apart = [_PRICE_OF_KIND[kind] for kind, count in used.items() if count and kind in _PRICE_OF_KIND]
        if any(getattr(found.model_price, price, None) is None for price in apart):
            return None  # the library would take it at the ordinary price, or as free
        return nanos(found.total_price)

    return calculate
