"""Contract of a store: workers that announce themselves, and the leases that they hold."""

from __future__ import annotations

from ops_core.ports import Store
from ops_core.task import TaskStatus
from ops_core.testing.store_contract.examples import (
    ASKED,
    CALLED,
    LEASE_SECONDS,
    OTHER_TENANT,
    OWNER,
    STARTED,
    TENANT,
    MovableClock,
    brought_to,
    claim,
    claimed,
    current,
    submitted,
)
from ops_core.workers import Announcement, Worker

ANNOUNCED = Announcement(name=OWNER, version="1.2.3", agents=("counter", "Ω\u2028"), capacity=7)


async def _worker(store: Store, name: str = OWNER, tenant: str = TENANT) -> Worker:
    found = {worker.name: worker for worker in await store.workers(tenant)}
    return found[name]


class WorkersContract:
    """What :meth:`~ops_core.ports.LeaseStore.workers` promises."""

    async def test_an_idle_worker_is_listed_until_it_leaves(self, store: Store, clock: MovableClock) -> None:
        assert await store.workers(TENANT) == []
        await store.renew((), LEASE_SECONDS, ANNOUNCED)
        clock.advance(10)
        await store.renew((), LEASE_SECONDS, ANNOUNCED)
        worker = await _worker(store)
        assert (worker.version, worker.agents, worker.capacity) == ("1.2.3", ("counter", "Ω\u2028"), 7)
        assert (worker.running, worker.held, worker.is_alive) == (0, (), True)
        assert worker.started_at is not None
        assert worker.seen_at is not None
        assert worker.seen_at - worker.started_at == 10
        await store.leave(OWNER)
        await store.leave(OWNER)
        assert await store.workers(TENANT) == []

    async def test_a_worker_that_fell_silent_is_told_so_and_then_forgotten(
        self, store: Store, clock: MovableClock
    ) -> None:
        await store.renew((), LEASE_SECONDS, ANNOUNCED)
        clock.advance(LEASE_SECONDS + 1)
        assert not (await _worker(store)).is_alive
        await store.renew((), LEASE_SECONDS, ANNOUNCED)
        assert (await _worker(store)).is_alive
        clock.advance(LEASE_SECONDS + 601)
        assert await store.workers(TENANT) == []
        await store.renew((), LEASE_SECONDS, ANNOUNCED)  # it was only asleep
        assert (await _worker(store)).is_alive

    async def test_what_a_worker_holds_is_listed_with_its_lease(
        self, store: Store, clock: MovableClock
    ) -> None:
        await store.renew((), LEASE_SECONDS, ANNOUNCED)
        one = await claimed(store, STARTED)
        clock.advance(5)
        other = await submitted(store, tenant=OTHER_TENANT)
        assert [each.task.id for each in await claim(store)] == [other.id]
        await store.renew((one.lease,), LEASE_SECONDS, ANNOUNCED)
        worker = await _worker(store)
        assert worker.running == 2
        (held,) = worker.held
        assert (held.task_id, held.agent) == (one.task.id, one.task.agent)
        assert held.since == one.task.updated_at
        assert held.until == worker.looked_at + LEASE_SECONDS
        assert [held.task_id for held in (await _worker(store, tenant=OTHER_TENANT)).held] == [other.id]

    async def test_one_that_did_not_announce_itself_is_known_by_its_lease(
        self, store: Store, clock: MovableClock
    ) -> None:
        one = await claimed(store)
        worker = await _worker(store)
        assert (worker.version, worker.capacity, worker.running, worker.is_alive) == (None, None, 1, True)
        clock.advance(LEASE_SECONDS + 12)
        worker = await _worker(store)
        assert not worker.is_alive
        assert worker.looked_at - worker.held[0].until == 12
        assert (await current(store, one.task)).lease_expired_seconds == 12
        await store.sweep()
        assert await store.workers(TENANT) == []
        assert (await current(store, one.task)).lease_expired_seconds is None

    async def test_a_status_says_since_when(self, store: Store, clock: MovableClock) -> None:
        one = await claimed(store, STARTED, CALLED, ASKED)
        assert (await current(store, one.task)).status_since == one.task.updated_at
        clock.advance(20)
        await store.wait(one.lease, 3)
        waiting = await current(store, one.task)
        assert (waiting.status, waiting.status_since) == (TaskStatus.WAITING, one.task.updated_at + 20)


class ActivityContract:
    """What :meth:`~ops_core.ports.Measured.activity` promises."""

    async def test_workers_are_counted_while_they_are_alive(self, store: Store, clock: MovableClock) -> None:
        assert ((await store.activity()).idle, (await store.activity()).busy) == (0, 0)
        await store.renew((), LEASE_SECONDS, ANNOUNCED)
        assert ((await store.activity()).idle, (await store.activity()).busy) == (1, 0)
        await claimed(store)
        assert ((await store.activity()).idle, (await store.activity()).busy) == (0, 1)
        clock.advance(LEASE_SECONDS + 1)
        assert ((await store.activity()).idle, (await store.activity()).busy) == (0, 0)

    async def test_the_oldest_task_of_each_agent_is_known(self, store: Store, clock: MovableClock) -> None:
        assert (await store.activity()).oldest == ()
        for _ in range(2):
            await brought_to(store, TaskStatus.WAITING)
            await brought_to(store, TaskStatus.COMPLETED)
            clock.advance(3)
        for agent in ("b", "a"):
            await submitted(store, agent=agent)
            await claim(store, agents=(agent,))
            clock.advance(1)
        found = {(one.status, one.agent): one.seconds for one in (await store.activity()).oldest}
        assert found == {
            (TaskStatus.WAITING, "counter"): 8,
            (TaskStatus.RUNNING, "a"): 1,
            (TaskStatus.RUNNING, "b"): 2,
        }

    async def test_agents_whose_tasks_wait_for_a_worker_are_named(
        self, store: Store, clock: MovableClock
    ) -> None:
        moment = (await store.stats()).moment
        await submitted(store, agent="later", run_at=moment + 100)
        for priority in (5, -5):
            await submitted(store, agent="b", tenant=OTHER_TENANT, priority=priority)
        await submitted(store, agent="a", priority=-1)
        assert (await store.activity()).unserved == ("a", "b")
        await store.renew((), LEASE_SECONDS, Announcement(name="w", version="1", agents=("a",), capacity=1))
        assert (await store.activity()).unserved == ("b",)
        clock.advance(101)
        assert (await store.activity()).unserved == ("a", "b", "later")
