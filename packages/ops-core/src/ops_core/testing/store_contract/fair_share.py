"""Contract of a store: fair share of slots when there is more work than slots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ops_core.ports import Store
from ops_core.task import Claimed
from ops_core.testing.store_contract.examples import (
    AGENT,
    LEASE_SECONDS,
    OTHER_TENANT,
    TENANT,
    MovableClock,
    claim,
    submitted,
)


class SharingContract:
    """What :meth:`~ops_core.ports.Store.claim` promises to those who share the workers."""

    async def test_a_tenants_flood_does_not_keep_others_waiting(self, store: Store) -> None:
        for _ in range(30):
            await submitted(store)
        late = {(await submitted(store, tenant=OTHER_TENANT)).id for _ in range(3)}
        first = await claim(store, slots=6)
        assert {one.task.id for one in first if one.task.tenant == OTHER_TENANT} == late
        assert Counter(one.task.tenant for one in first) == {TENANT: 3, OTHER_TENANT: 3}

    async def test_with_one_slot_tenants_take_turns(self, store: Store) -> None:
        for _ in range(4):
            for tenant in ("a", "b", "c"):
                await submitted(store, tenant=tenant)
        order = [one.task.tenant for _ in range(12) for one in await claim(store, slots=1)]
        for number in range(0, 12, 3):
            assert sorted(order[number : number + 3]) == ["a", "b", "c"]

    async def test_what_one_tenant_does_not_use_is_for_the_others(self, store: Store) -> None:
        await submitted(store, tenant=OTHER_TENANT)
        for _ in range(20):
            await submitted(store)
        assert Counter(one.task.tenant for one in await claim(store, slots=10)) == {
            TENANT: 9,
            OTHER_TENANT: 1,
        }

    async def test_an_agents_flood_does_not_keep_others_waiting(self, store: Store) -> None:
        for _ in range(30):
            await submitted(store)
        for _ in range(5):
            await submitted(store, agent="other")
        assert Counter(one.task.agent for one in await both(store, 8)) == {AGENT: 4, "other": 4}
        assert Counter(one.task.agent for one in await both(store, 8)) == {AGENT: 7, "other": 1}

    async def test_a_higher_priority_goes_before_another_agents_turn(self, store: Store) -> None:
        for priority in (0, 0, 1, 1):
            await submitted(store, priority=priority)
            await submitted(store, agent="other", priority=priority - 1)
        assert [(one.task.agent, one.task.priority) for one in await both(store, 2)] == [
            (AGENT, 1),
            (AGENT, 1),
        ]
        second = await both(store, 4)
        assert sorted((one.task.agent, one.task.priority) for one in second) == [
            *[(AGENT, 0)] * 2,
            *[("other", 0)] * 2,
        ]

    async def test_nobodys_priority_goes_before_another_tenants_turn(self, store: Store) -> None:
        for _ in range(10):
            await submitted(store, priority=100)
        await submitted(store, tenant=OTHER_TENANT, priority=-100)
        assert {one.task.tenant for one in await claim(store, slots=2)} == {TENANT, OTHER_TENANT}

    async def test_of_hundreds_of_priorities_the_highest_is_first(self, store: Store) -> None:
        for priority in range(-150, 150):
            await submitted(store, priority=priority)
            if priority % 10 == 0:
                await submitted(store, agent="nobody runs it", priority=priority + 500)
        order = [one.task.priority for _ in range(5) for one in await claim(store, slots=1)]
        assert order == [149, 148, 147, 146, 145]
        assert [one.task.priority for one in await claim(store, slots=4)] == [144, 143, 142, 141]

    async def test_a_priority_that_is_not_due_yet_holds_up_no_lower_one(
        self, store: Store, clock: MovableClock
    ) -> None:
        moment = (await submitted(store)).created_at
        for priority in range(1, 20):
            await submitted(store, priority=priority, run_at=moment + 60 + priority)
        assert [one.task.priority for one in await claim(store, slots=3)] == [0]
        clock.advance(75)
        assert [one.task.priority for one in await claim(store, slots=3)] == [15, 14, 13]

    async def test_lines_that_no_worker_serves_hold_up_nobody(self, store: Store) -> None:
        for number in range(300):
            await submitted(store, tenant=f"a-{number}", agent="nobody runs it", priority=number)
        mine = await submitted(store, tenant="z")
        assert [one.task.id for one in await claim(store, slots=1)] == [mine.id]

    async def test_hundreds_that_wait_for_a_later_moment_hold_up_nobody_for_ever(self, store: Store) -> None:
        mine = await submitted(store, tenant="z")
        for number in range(300):
            await submitted(store, tenant=f"a-{number}", run_at=mine.created_at + 1000)
        taken = [one.task.id for _ in range(2) for one in await claim(store, slots=1)]
        assert taken == [mine.id]

    async def test_of_hundreds_that_share_nobody_is_forgotten(self, store: Store) -> None:
        tenants = [f"tenant-{number}" for number in range(300)]
        for tenant in tenants:
            await submitted(store, tenant=tenant)
        taken: list[str] = []
        while some := await claim(store, slots=70):
            taken += [one.task.tenant for one in some]
        assert sorted(taken) == sorted(tenants)


async def both(store: Store, slots: int) -> Sequence[Claimed]:
    """What is due for either agent."""
    return await store.claim("me", slots, LEASE_SECONDS, (AGENT, "other"))
