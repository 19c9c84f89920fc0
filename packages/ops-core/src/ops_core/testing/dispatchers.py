"""Contract of a dispatcher."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ops_core.ports import Dispatcher

SOON = 0.02
LATE = 5.0


class DispatcherContract:
    """Everything that :class:`ops_core.ports.Dispatcher` promises. Subclass it and give it a ``dispatcher`` fixture."""

    async def test_whoever_waits_is_woken(self, dispatcher: Dispatcher) -> None:
        waiting = asyncio.create_task(dispatcher.woken(LATE))
        await asyncio.sleep(SOON)
        assert not waiting.done()
        await dispatcher.wake()
        assert await waiting

    async def test_nobody_is_woken_by_nothing(self, dispatcher: Dispatcher) -> None:
        assert not await dispatcher.woken(SOON)
        assert not await dispatcher.woken(0)

    async def test_a_wake_up_between_two_waits_is_not_lost(self, dispatcher: Dispatcher) -> None:
        await dispatcher.wake()
        assert await dispatcher.woken(LATE)
        assert not await dispatcher.woken(SOON)
        await dispatcher.wake()
        assert await dispatcher.woken(LATE)

    async def test_a_wake_up_after_a_wait_in_vain_is_not_lost(self, dispatcher: Dispatcher) -> None:
        assert not await dispatcher.woken(SOON)
        await dispatcher.wake()
        assert await dispatcher.woken(LATE)

    async def test_a_wake_up_is_not_lost_with_a_cancelled_wait(self, dispatcher: Dispatcher) -> None:
        waiting = asyncio.create_task(dispatcher.woken(LATE))
        await asyncio.sleep(SOON)
        waiting.cancel()
        await asyncio.wait({waiting})
        await dispatcher.wake()
        assert await dispatcher.woken(LATE)

    async def test_many_wake_ups_are_at_least_one_and_come_to_an_end(self, dispatcher: Dispatcher) -> None:
        for _ in range(50):
            await dispatcher.wake()
        heard = 0
        while await dispatcher.woken(SOON):
            heard += 1
        assert 1 <= heard <= 50

    async def test_of_many_that_wait_at_least_one_hears_each_wake_up(self, dispatcher: Dispatcher) -> None:
        for _ in range(5):
            waiting = [asyncio.create_task(dispatcher.woken(LATE)) for _ in range(8)]
            await asyncio.sleep(SOON)
            await dispatcher.wake()
            done, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=LATE)
            assert any(one.result() for one in done)
            for one in others:
                one.cancel()
            await asyncio.wait(waiting)
            while await dispatcher.woken(SOON):
                pass  # hints may be doubled

    async def test_who_waits_in_vain_waits_as_long_as_was_said(self, dispatcher: Dispatcher) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert not await dispatcher.woken(0.2)
        assert 0.19 <= loop.time() - began < LATE

    async def test_a_wake_up_takes_no_time_when_nobody_listens(self, dispatcher: Dispatcher) -> None:
        async with asyncio.timeout(LATE):
            for _ in range(1000):
                await dispatcher.wake()


class SharedDispatcherContract:
    """What holds beyond :class:`DispatcherContract` where wake-ups pass between processes.

    Subclass it and give it a ``dispatchers`` fixture: three open ones, as three processes have them.
    """

    async def test_a_wake_up_reaches_another_process(self, dispatchers: Sequence[Dispatcher]) -> None:
        here, there, _third = dispatchers
        for _ in range(3):
            waiting = asyncio.create_task(there.woken(LATE))
            await here.wake()
            assert await waiting

    async def test_a_wake_up_before_anybody_waits_is_kept_for_a_moment(
        self, dispatchers: Sequence[Dispatcher]
    ) -> None:
        here, there, _third = dispatchers
        await here.wake()
        assert await there.woken(LATE)

    async def test_who_has_no_slot_keeps_no_wake_up_from_who_has(
        self, dispatchers: Sequence[Dispatcher]
    ) -> None:
        here, idle, busy = dispatchers
        for _ in range(20):
            await busy.woken(SOON)  # and then it works
            waiting = asyncio.create_task(idle.woken(LATE))
            await asyncio.sleep(SOON)
            await here.wake()
            assert await waiting

    async def test_a_full_worker_passes_the_word_on(self, dispatchers: Sequence[Dispatcher]) -> None:
        _here, full, idle = dispatchers
        waiting = asyncio.create_task(idle.woken(LATE))
        await full.woken(SOON)
        await full.wake()
        assert await waiting

    async def test_many_wake_ups_come_to_an_end_everywhere(self, dispatchers: Sequence[Dispatcher]) -> None:
        here, there, _third = dispatchers
        for _ in range(1000):
            await here.wake()
        assert await there.woken(LATE)
        heard = 1
        while await there.woken(0.2):
            heard += 1
        assert heard <= 50
