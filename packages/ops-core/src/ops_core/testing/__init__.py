"""Test support: a platform in memory, a clock that is set by hand, and the contract suite of each port.

The suites need no test framework of their own: subclass one, give it the fixtures that it names, and let pytest (with
``pytest-asyncio`` in its auto mode) collect it.
"""

from __future__ import annotations

from ops_core.testing.dispatchers import DispatcherContract, SharedDispatcherContract
from ops_core.testing.platforms import FakeClock, open_test_ops, open_test_store
from ops_core.testing.store_contract.contract import StoreContract
from ops_core.testing.store_contract.stats import MeasuringContract

__all__ = [
    "DispatcherContract",
    "FakeClock",
    "MeasuringContract",
    "SharedDispatcherContract",
    "StoreContract",
    "open_test_ops",
    "open_test_store",
]
