"""US dollars, exactly: sums and comparisons are of whole billionths of a dollar (nano-dollars).

Where money is shown or stored as JSON it is a number of dollars with at most nine decimals. A float carries that
without loss up to eight million dollars, so that what is stored can be counted exactly again.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

NANOS = 10**9
"""Nano-dollars of one dollar."""


def nanos(dollars: float | Decimal) -> int:
    """Whole nano-dollars. A finer amount, which only a price for one token can be, is rounded up, never away."""
    if isinstance(dollars, Decimal):
        return int((dollars * NANOS).to_integral_value(ROUND_CEILING))
    if not dollars:
        return 0
    # not `round(dollars * NANOS)`: the product of two floats would be rounded before it is
    return int((Decimal(dollars) * NANOS).to_integral_value())


def usd(amount: int) -> float:
    """Nano-dollars as a number of dollars."""
    return amount / NANOS


def add_usd(one: float | None, other: float | None) -> float | None:
    """The exact sum, where ``None`` is an amount that nobody knows: the sum is of those that are known."""
    if one is None or other is None:
        return one if other is None else other
    return usd(nanos(one) + nanos(other))


def as_text(amount: int) -> str:
    """Nano-dollars for people: ``$0.25``, ``$12.00``, ``$0.000135``; no digit that counts is left out."""
    sign, amount = ("-" if amount < 0 else ""), abs(amount)
    whole, rest = divmod(amount, NANOS)
    return f"{sign}${whole}.{f'{rest:09d}'.rstrip('0'):0<2}"
