"""Contract of a store: halted tasks are not claimed."""

from __future__ import annotations

from ops_core.errors import HaltNotFound, TaskNotFound, TransitionRefused
from ops_core.halt import HaltKind, NewHalt
from ops_core.ports import HaltFilter, Store
from ops_core.task import TaskStatus
from ops_core.testing.store_contract.examples import (
    AGENT,
    GIVEN,
    LEASE_SECONDS,
    NO_ID,
    OTHER_TENANT,
    OWNER,
    TENANT,
    MovableClock,
    brought_to,
    claim,
    raises,
    submitted,
)

ALL_OF_AGENT = NewHalt(kind=HaltKind.AGENT, target=AGENT, reason="it lies", by="kim")
EVERYTHING = NewHalt(kind=HaltKind.ALL)


def of_task(task_id: str) -> NewHalt:
    """The halt of one task."""
    return NewHalt(kind=HaltKind.TASK, target=task_id)


class HaltingContract:
    """What :class:`~ops_core.ports.HaltStore` promises."""

    async def test_a_halted_task_is_not_claimed_and_others_are(self, store: Store) -> None:
        held, other = await submitted(store), await submitted(store)
        halt = await store.halt(TENANT, of_task(held.id))
        assert [one.task.id for one in await claim(store)] == [other.id]
        assert await store.claim(OWNER, 10, LEASE_SECONDS, (AGENT,), (held.id,)) == []
        await store.lift(TENANT, halt.id)
        assert [one.task.id for one in await claim(store)] == [held.id]

    async def test_nothing_of_a_halted_agent_is_claimed(self, store: Store) -> None:
        task, other = await submitted(store), await submitted(store, agent="clerk")
        halt = await store.halt(TENANT, ALL_OF_AGENT)
        late = await submitted(store)
        found = await claim(store, agents=(AGENT, "clerk"))
        assert [one.task.id for one in found] == [other.id]
        assert await store.claim(OWNER, 10, LEASE_SECONDS, (AGENT,), (task.id,)) == []
        await store.lift(TENANT, halt.id)
        assert {one.task.id for one in await claim(store)} == {task.id, late.id}

    async def test_nothing_at_all_of_the_tenant_is_claimed_and_others_do_not_notice(
        self, store: Store
    ) -> None:
        task, other = await submitted(store), await submitted(store, tenant=OTHER_TENANT)
        halt = await store.halt(TENANT, EVERYTHING)
        assert [one.task.id for one in await claim(store)] == [other.id]
        await store.lift(TENANT, halt.id)
        assert [one.task.id for one in await claim(store)] == [task.id]

    async def test_halts_of_tools_and_servers_hold_no_task(self, store: Store) -> None:
        task = await submitted(store)
        for kind in (HaltKind.TOOL, HaltKind.SERVER):
            await store.halt(TENANT, NewHalt(kind=kind, target=AGENT))
        assert [one.task.id for one in await claim(store)] == [task.id]

    async def test_two_halts_of_one_thing_are_lifted_one_by_one(self, store: Store) -> None:
        await submitted(store)
        first, second = await store.halt(TENANT, ALL_OF_AGENT), await store.halt(TENANT, ALL_OF_AGENT)
        await store.lift(TENANT, first.id)
        assert await claim(store) == []
        await store.lift(TENANT, second.id)
        assert len(await claim(store)) == 1

    async def test_who_has_halted_and_lifted_what_and_why_is_kept(
        self, store: Store, clock: MovableClock
    ) -> None:
        halt = await store.halt(TENANT, ALL_OF_AGENT)
        assert (halt.tenant, halt.kind, halt.target) == (TENANT, HaltKind.AGENT, AGENT)
        assert (halt.reason, halt.by, halt.lifted_at) == ("it lies", "kim", None)
        clock.advance(5)
        lifted = await store.lift(TENANT, halt.id, by="ann", reason="it has stopped lying")
        assert lifted.lifted_at is not None
        assert lifted.lifted_at >= halt.at + 5
        assert (lifted.lifted_by, lifted.lifted_reason) == ("ann", "it has stopped lying")
        assert await store.lift(TENANT, halt.id, by="zoe") == lifted
        assert await store.halts(TENANT, HaltFilter()) == []
        assert await store.halts(TENANT, HaltFilter(in_force=False)) == [lifted]

    async def test_halts_are_listed_newest_first_and_by_the_page(self, store: Store) -> None:
        halts = [await store.halt(TENANT, ALL_OF_AGENT) for _ in range(3)]
        assert await store.halts(TENANT, HaltFilter()) == halts[::-1]
        assert await store.halts(TENANT, HaltFilter(limit=1)) == halts[2:]
        assert await store.halts(TENANT, HaltFilter(before=halts[2].id)) == halts[1::-1]

    async def test_workers_see_the_halts_of_all_tenants_and_people_their_own(self, store: Store) -> None:
        ours, theirs = await store.halt(TENANT, EVERYTHING), await store.halt(OTHER_TENANT, EVERYTHING)
        assert await store.halts_in_force() == [ours, theirs]
        assert await store.halts(TENANT, HaltFilter()) == [ours]
        with raises(HaltNotFound):
            await store.lift(TENANT, theirs.id)
        await store.lift(TENANT, ours.id)
        assert await store.halts_in_force() == [theirs]

    async def test_a_task_that_has_ended_or_is_of_others_cannot_be_halted(self, store: Store) -> None:
        ended = await brought_to(store, TaskStatus.COMPLETED)
        with raises(TransitionRefused, "completed"):
            await store.halt(TENANT, of_task(ended.task.id))
        theirs = await submitted(store, tenant=OTHER_TENANT)
        for task_id in (theirs.id, NO_ID):
            with raises(TaskNotFound):
                await store.halt(TENANT, of_task(task_id))
        assert await store.halts_in_force() == []

    async def test_a_waiting_task_that_was_answered_is_held_too(self, store: Store) -> None:
        waiting = await brought_to(store, TaskStatus.WAITING)
        halt = await store.halt(TENANT, of_task(waiting.task.id))
        assert await store.answer(TENANT, waiting.task.id, GIVEN, 3)
        assert await claim(store) == []
        await store.lift(TENANT, halt.id)
        assert [one.task.id for one in await claim(store)] == [waiting.task.id]

    async def test_a_halted_task_can_be_cancelled(self, store: Store) -> None:
        task = await submitted(store)
        await store.halt(TENANT, ALL_OF_AGENT)
        assert (await store.cancel(TENANT, task.id)).status is TaskStatus.CANCELLED
