"""Contract of a store: spending of tenants, together with the steps that cause it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from agentkit.messages import Text, Usage
from agentkit.money import usd
from agentkit.transcript.steps import ModelAsked, ModelReplied
from ops_core.errors import LeaseLost, SpendingReached
from ops_core.ports import Store
from ops_core.spending import Charge, Reservation, day_of
from ops_core.task import Claimed
from ops_core.testing.store_contract.examples import (
    LATER,
    OTHER_TENANT,
    STARTED,
    TENANT,
    MovableClock,
    claim,
    claimed,
    raises,
    steps_of,
    submitted,
)

LIMIT = 100


def asked(amount: int) -> ModelAsked:
    """A call that may cost so many nano-dollars is about to be made."""
    return ModelAsked(model="scripted:model", reserved_usd=usd(amount), input_bound=10)


def replied(amount: int) -> ModelReplied:
    """It has cost so many."""
    return ModelReplied(parts=(Text(text="One."),), usage=Usage(cost_usd=usd(amount)))


async def reserve(store: Store, one: Claimed, amount: int, limit: int = LIMIT) -> Reservation:
    """Reserve for a call, and record that it is about to be made."""
    (recorded,) = await store.append_all(one.lease, (asked(amount),), Charge(reserve=amount, limit=limit))
    return Reservation(day=day_of(recorded.at), amount=amount)


async def settle(store: Store, one: Claimed, reserved: Reservation, amount: int) -> None:
    """Record the reply to the call, and what it has cost."""
    await store.append_all(one.lease, (replied(amount),), Charge(settled=reserved, spent=amount))


async def sums(store: Store, tenant: str | None = TENANT) -> tuple[int, int]:
    """What is reserved and what is spent."""
    spent = await store.spent(tenant)
    return spent.reserved, spent.spent


class SpendingContract:
    """What :meth:`~ops_core.ports.LeaseStore.append_all` promises about money."""

    async def test_what_is_reserved_is_settled_with_the_step(self, store: Store) -> None:
        one = await claimed(store, STARTED)
        reserved = await reserve(store, one, 60)
        assert await sums(store) == (60, 0)
        await settle(store, one, reserved, 25)
        assert await sums(store) == (0, 25)
        assert await steps_of(store, one.task) == [STARTED, asked(60), replied(25)]

    async def test_what_does_not_fit_is_refused_and_not_recorded(self, store: Store) -> None:
        one = await claimed(store, STARTED)
        await settle(store, one, await reserve(store, one, 60), 50)
        with raises(SpendingReached, TENANT):
            await reserve(store, one, 51)
        assert await steps_of(store, one.task) == [STARTED, asked(60), replied(50)]
        await reserve(store, one, 50)
        assert await sums(store) == (50, 50)

    async def test_tenants_have_each_their_own(self, store: Store) -> None:
        for _ in range(2):
            await submitted(store)
            await submitted(store, tenant=OTHER_TENANT)
        for one in await claim(store):
            await reserve(store, one, 40)
        assert await sums(store) == await sums(store, OTHER_TENANT) == (80, 0)
        assert await sums(store, None) == (160, 0)
        assert await sums(store, "nobody") == (0, 0)

    async def test_a_lost_lease_reserves_and_settles_nothing(self, store: Store) -> None:
        one = await claimed(store, STARTED)
        reserved = await reserve(store, one, 60)
        await store.release(one.lease)
        for late in (reserve(store, one, 10), settle(store, one, reserved, 5)):
            with raises(LeaseLost):
                await late
        assert await sums(store) == (60, 0)  # the end of that call nobody has recorded: it counts in full

    async def test_each_day_begins_anew(self, store: Store, clock: MovableClock) -> None:
        one = await claimed(store, STARTED)
        yesterday = await reserve(store, one, 100)
        await store.renew([one.lease], 200_000.0)
        clock.advance(86_400.0)
        assert await sums(store) == (0, 0)
        await settle(store, one, yesterday, 90)  # of the day on which it was reserved
        assert await sums(store) == (0, 0)
        await reserve(store, one, 100)

    async def test_concurrent_runs_never_overspend_together(self, store: Store) -> None:
        for _ in range(30):
            await submitted(store)
        made = 0

        async def run(one: Claimed) -> None:
            nonlocal made
            with suppress(SpendingReached):
                for _ in range(5):
                    reserved = await reserve(store, one, 10)
                    assert sum(await sums(store)) <= LIMIT
                    made += 1
                    await settle(store, one, reserved, 7)

        await asyncio.gather(*(run(one) for one in await claim(store)))
        reserved, spent = await sums(store)
        assert (reserved, spent) == (0, 7 * made)
        assert LIMIT - 10 < spent <= LIMIT

    async def test_announcing_a_call_is_no_progress(self, store: Store) -> None:
        one = await claimed(store, STARTED)
        await reserve(store, one, 10)
        await store.release(one.lease, LATER)
        assert (await store.get(TENANT, one.task.id)).attempt == 1
