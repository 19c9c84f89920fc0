"""Contract of a store."""

from __future__ import annotations

from ops_core.ports import Store
from ops_core.testing.store_contract.bulk import BulkContract
from ops_core.testing.store_contract.concurrent_writes import WritingTogetherContract
from ops_core.testing.store_contract.endings import FinishingContract, RetryingContract, SweepingContract
from ops_core.testing.store_contract.expiry import ExpiringContract
from ops_core.testing.store_contract.fair_share import SharingContract
from ops_core.testing.store_contract.halts import HaltingContract
from ops_core.testing.store_contract.late_results import LateResultsContract
from ops_core.testing.store_contract.leases import (
    AnsweringContract,
    ClaimingContract,
    FencingContract,
    RenewingContract,
)
from ops_core.testing.store_contract.purge import PurgingContract
from ops_core.testing.store_contract.spending import SpendingContract
from ops_core.testing.store_contract.submit import SubmittingContract
from ops_core.testing.store_contract.threads import ThreadingContract
from ops_core.testing.store_contract.workers import WorkersContract


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
    LateResultsContract,
):
    """Everything that :class:`ops_core.ports.Store` promises.

    Subclass it and give it two fixtures: ``store``, open and empty, and ``clock``, with a method ``advance(seconds)``
    that moves the store's own clock.
    """

    async def test_a_store_in_order_is_found_in_order(self, store: Store) -> None:
        await store.check()
