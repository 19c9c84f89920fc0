"""Jitter for periodic waits, so that processes do not synchronise.

It comes from the system, not from the generator of the module ``random``, whose state belongs to whoever seeds it.
"""

from __future__ import annotations

import random

_SYSTEM = random.SystemRandom()


def fraction() -> float:
    """A number in [0, 1)."""
    return _SYSTEM.random()


def spread(seconds: float, least: float = 0.8, most: float = 1.2) -> float:
    """``seconds``, times something from ``least`` to ``most``."""
    return seconds * _SYSTEM.uniform(least, most)
