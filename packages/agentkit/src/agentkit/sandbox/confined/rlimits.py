"""Limits that the kernel holds for each process."""

from __future__ import annotations

import resource
from collections.abc import Mapping

MAX_SIGNALS = 1024
"""That may wait, and timers, which hold one each."""


def limit_to(wanted: Mapping[int, int]) -> None:
    """Set limits of the kernel for this process, hard as soft.

    Raises:
        OSError: the kernel refused.
    """
    for kind, most in wanted.items():
        hard = resource.getrlimit(kind)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))
