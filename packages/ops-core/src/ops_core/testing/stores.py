"""The contract of a store."""

from __future__ import annotations

from ops_core.ports import Store
from ops_core.testing.store_bulk import BulkContract
from ops_core.testing.store_combining import WritingTogetherContract
from ops_core.testing.store_ending import FinishingContract, RetryingContract, SweepingContract
from ops_core.testing.store_expiring import ExpiringContract
from ops_core.testing.store_halting import HaltingContract
from ops_core.testing.store_leasing import (
    AnsweringContract,
    ClaimingContract,
    FencingContract,
    RenewingContract,
)
from ops_core.testing.store_purging import PurgingContract
from ops_core.testing.store_sharing import SharingContract
from ops_core.testing.store_spending import SpendingContract
from ops_core.testing.store_submitting import SubmittingContract
from ops_core.testing.store_threading import ThreadingContract
from ops_core.testing.store_workers import WorkersContract


class StoreContract(
    SubmittingContract,
    ClaimingContract,
    FencingContract,
    RenewingContract,
    AnsweringContract,
    WritingTogetherContract,
    FinishingContract,
    RetryingContract,
    SweepingContract,
    SharingContract,
    PurgingContract,
    ThreadingContract,
    SpendingContract,
    HaltingContract,
    WorkersContract,
    ExpiringContract,
    BulkContract,
):
    """Everything that :class:`ops_core.ports.Store` promises.

    Subclass it and give it two fixtures: ``store``, open and empty, and ``clock``, with a method ``advance(seconds)``
    that moves the store's own clock.
    """

    async def test_a_store_in_order_is_found_in_order(self, store: Store) -> None:
        await store.check()
