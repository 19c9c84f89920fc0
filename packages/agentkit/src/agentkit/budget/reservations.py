"""Reservations: the highest cost of one model call, compared with the budget that is left. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentkit.budget.prices import Prices
from agentkit.budget.token_estimates import Sizes, max_input_tokens, max_tokens_of_texts
from agentkit.errors import LimitReached, PriceUnknown
from agentkit.messages import ModelRequest
from agentkit.money import as_text, usd
from agentkit.transcript.steps import ModelAsked

MAX_OUTPUT_TOKENS = 8192
"""Of one reply under a limit of money, where nobody has said more: every current model may write so much."""

LEAST_OUTPUT_TOKENS = 256
"""A call that could pay for less than this is not made: its reply would be cut off."""


_UNKNOWN = (
    "money is limited, and nobody knows what {model} costs: install opspawn-agentkit[prices] if the model is a known "
    'one, or give its price, in opspawn.toml as [prices."{model}"]'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationInput:
    """What a call may draw on.

    Attributes:
        prices: what models cost.
        left: nano-dollars that are left to the run; ``None`` for no limit.
        last_call: the last call that was reserved for, and the tokens that its request turned out to have.
        sizes: of the run's messages.
    """

    prices: Prices
    left: int | None
    last_call: tuple[ModelAsked, int] | None = None
    sizes: Sizes | None = None


def reservation(model: str, request: ModelRequest, means: ReservationInput) -> ModelAsked:
    """What is to be recorded before ``model`` is sent ``request``.

    The reply is as long as the request permits, and shorter where the money does not last for more.

    Raises:
        PriceUnknown: nobody knows what the model costs.
        LimitReached: what is left does not even pay for a short reply.
    """
    bound = max_input_tokens(request, means.sizes)
    read = _max_read(model, bound, means.last_call)
    wanted = request.max_tokens or means.prices.max_output_tokens(model) or MAX_OUTPUT_TOKENS
    try:
        most = means.prices.most(model, read, wanted)
    except LookupError:
        raise PriceUnknown(_UNKNOWN.format(model=model)) from None
    if most == 0:
        return ModelAsked(model=model, reserved_usd=0.0, input_bound=bound, max_tokens=request.max_tokens)
    tokens = wanted
    if means.left is not None and most > means.left:
        tokens = _affordable(model, read, wanted, means)
        most = means.prices.most(model, read, tokens)
    return ModelAsked(model=model, reserved_usd=usd(most), input_bound=bound, max_tokens=tokens)


def embedding_reservation(
    model: str, texts: Sequence[str], *, prices: Prices, left: int | None
) -> ModelAsked | None:
    """What is to be recorded before ``model`` makes vectors of ``texts``; ``None`` where that costs nothing.

    Args:
        model: ``provider:name`` of the embeddings.
        texts: what is sent.
        prices: what they cost.
        left: nano-dollars that are left to the run; ``None`` for no limit.

    Raises:
        PriceUnknown: nobody knows what they cost.
        LimitReached: what is left does not pay for them.
    """
    bound = max_tokens_of_texts(texts)
    try:
        most = prices.most(model, bound, 0)
    except LookupError:
        raise PriceUnknown(_UNKNOWN.format(model=model)) from None
    if most == 0:
        return None
    if left is not None and most > left:
        raise LimitReached(
            f"the next call of {model} may cost {as_text(most)}, and the run has {as_text(max(0, left))} left"
        )
    return ModelAsked(model=model, reserved_usd=usd(most), input_bound=bound)


def _max_read(model: str, bound: int, last_call: tuple[ModelAsked, int] | None) -> int:
    """A conversation only grows: what the model has counted before is exact, and only the rest goes by its size."""
    if last_call is None:
        return bound
    asked, counted = last_call
    grown = bound - asked.input_bound
    if asked.model != model or grown < 0 or counted <= 0:
        return bound
    return min(bound, counted + grown)


def _affordable(model: str, read: int, wanted: int, means: ReservationInput) -> int:
    """The longest reply that the money lasts for."""
    left = means.left or 0
    fits, too_long = 0, wanted
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if means.prices.most(model, read, middle) <= left:
            fits = middle
        else:
            too_long = middle
    if fits < min(wanted, LEAST_OUTPUT_TOKENS):
        least = means.prices.most(model, read, min(wanted, LEAST_OUTPUT_TOKENS))
        raise LimitReached(
            f"the next call of {model} may cost {as_text(least)}, and the run has {as_text(max(0, left))} left"
        )
    return fits
