"""What does a wake-up through RabbitMQ cost, and how soon is it heard by another process?

Method: a private node, two dispatchers on one event loop (each with connections and threads of its own, so what passes
between them passes through the node). Figures are of the dispatchers' process; the node runs beside it on the same
processors. `python benchmarks/hints_rabbitmq.py`
"""

import asyncio
import logging
import statistics
import time

from ops_core.dispatchers import open_dispatcher
from ops_core.testing.servers.rabbitmq import RabbitServer

ROUNDS = 200
WAKES = 100_000
SECONDS = 5.0


async def heard(here, there) -> list[float]:
    """Milliseconds from a wake-up to whoever waits elsewhere."""
    took = []
    for _ in range(ROUNDS):
        waiting = asyncio.create_task(there.woken(10))
        await asyncio.sleep(0.01)
        began = time.perf_counter()
        await here.wake()
        assert await waiting
        took.append((time.perf_counter() - began) * 1000)
    return took


async def flood(here) -> float:
    """Microseconds that a wake-up takes its caller."""
    began = time.perf_counter()
    for _ in range(WAKES):
        await here.wake()
    return (time.perf_counter() - began) / WAKES * 1e6


async def hints(here, there) -> tuple[float, float]:
    """Hints per second that pass while wake-ups never end, and what part of a core they take."""
    count, before, began = 0, time.process_time(), time.perf_counter()
    while (seconds := time.perf_counter() - began) < SECONDS:
        waiting = asyncio.create_task(there.woken(1))
        while not waiting.done():
            await here.wake()
            await asyncio.sleep(0.0005)
        count += waiting.result()
    return count / seconds, (time.process_time() - before) / seconds


async def idle(one, other) -> float:
    """What part of a core a dispatcher takes that waits."""
    before, began = time.process_time(), time.perf_counter()
    await asyncio.gather(one.woken(SECONDS), other.woken(SECONDS))
    return (time.process_time() - before) / (time.perf_counter() - began) / 2


async def main() -> None:
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    with RabbitServer() as server:
        async with open_dispatcher(server.url()) as here, open_dispatcher(server.url()) as there:
            took = await heard(here, there)
            print(
                f"heard elsewhere after  {statistics.median(took):8.2f} ms (99 %: {sorted(took)[-3]:.2f} ms)"
            )
            print(f"a wake-up takes        {await flood(here):8.2f} µs")
            rate, cores = await hints(here, there)
            print(f"hints under pressure   {rate:8.0f} /s, {cores:.2f} cores with what makes the pressure")
            while await there.woken(0.2) or await here.woken(0.2):
                pass
            print(f"idle                   {await idle(here, there):8.4f} cores")


if __name__ == "__main__":
    asyncio.run(main())
