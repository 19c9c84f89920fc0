"""The contract of a dispatcher."""

from __future__ import annotations

import asyncio

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

    async def test_a_wake_up_takes_no_time_when_nobody_listens(self, dispatcher: Dispatcher) -> None:
        async with asyncio.timeout(LATE):
            for _ in range(1000):
                await dispatcher.wake()
