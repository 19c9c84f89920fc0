"""The writer: what is done together, how much of it, and who waits."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from ops_core.errors import LeaseLost, OpsError
from ops_core.stores import open_store
from ops_core.stores.transaction import Transaction
from ops_core.stores.watchdog import PATIENCE_SECONDS, Watchdog
from ops_core.stores.writer import MAX_BYTES, MAX_WAITING, MOST, Writer


@pytest.fixture
async def writer() -> AsyncGenerator[Writer]:
    made = Writer(open_store("sqlite://").migration_engine, Watchdog(PATIENCE_SECONDS))
    yield made
    await asyncio.to_thread(made.close)


class Gate:
    """A write that holds the writer until it is let go."""

    def __init__(self, writer: Writer) -> None:
        self._entered = threading.Event()
        self._open = threading.Event()
        self._write = asyncio.ensure_future(writer.do(self._hold))

    def _hold(self, _writing: Transaction) -> None:
        self._entered.set()
        assert self._open.wait(30)

    async def closed(self) -> "Gate":
        assert await asyncio.to_thread(self._entered.wait, 30)
        return self

    async def open(self) -> None:
        self._open.set()
        await self._write


class Together:
    """Notes how many were done at once."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []

    def __call__(self, _writing: Transaction, items: Sequence[int]) -> Sequence[int | OpsError]:
        self.batches.append(list(items))
        return [LeaseLost("odd") if item % 2 else item * 10 for item in items]


async def test_what_waits_for_the_same_is_done_together_and_each_gets_its_own_answer(writer: Writer):
    together = Together()
    gate = await Gate(writer).closed()
    writes = [asyncio.ensure_future(writer.join(together, number)) for number in range(6)]
    await asyncio.sleep(0)
    await gate.open()
    answers = await asyncio.gather(*writes, return_exceptions=True)
    assert together.batches == [[0, 1, 2, 3, 4, 5]]
    assert [answer if isinstance(answer, int) else type(answer) for answer in answers] == [
        *(0, LeaseLost, 20, LeaseLost, 40, LeaseLost)
    ]


async def test_a_write_of_its_own_parts_what_came_before_it_from_what_came_after(writer: Writer):
    together, order = Together(), []
    gate = await Gate(writer).closed()
    writes = [
        asyncio.ensure_future(writer.join(together, 2)),
        asyncio.ensure_future(writer.do(lambda _writing: order.append(len(together.batches)))),
        asyncio.ensure_future(writer.join(together, 4)),
    ]
    await asyncio.sleep(0)
    await gate.open()
    await asyncio.gather(*writes)
    assert (together.batches, order) == ([[2], [4]], [1])


async def test_a_transaction_does_not_grow_without_bound(writer: Writer):
    together = Together()
    gate = await Gate(writer).closed()
    writes = [asyncio.ensure_future(writer.join(together, 2, size=MAX_BYTES // 4)) for _ in range(10)]
    writes += [asyncio.ensure_future(writer.join(together, 4)) for _ in range(MOST + 100)]
    await asyncio.sleep(0)
    await gate.open()
    await asyncio.gather(*writes)
    assert [len(batch) for batch in together.batches] == [4, 4, MOST, 102]


async def test_a_flood_waits_before_the_queue_and_not_in_it(writer: Writer):
    together = Together()
    gate = await Gate(writer).closed()
    flood = [asyncio.ensure_future(writer.join(together, 2)) for _ in range(MAX_WAITING + 500)]
    await asyncio.sleep(0)
    assert writer.waiting == MAX_WAITING - 1  # the gate is the one that is being written
    for given_up in flood[:100]:  # what is in the queue stays there, whether anybody waits for it or not
        given_up.cancel()
    await asyncio.sleep(0)
    assert writer.waiting == MAX_WAITING - 1
    await gate.open()
    answers = await asyncio.gather(*flood, return_exceptions=True)
    assert [answer for answer in answers[100:] if answer != 20] == []
    assert sum(map(len, together.batches)) == MAX_WAITING + 500
