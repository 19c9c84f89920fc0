"""Threads in which synchronous tools run."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from agentkit.errors import MachineError
from agentkit.machine_errors import before_the_call
from agentkit.messages import JsonValue
from agentkit.tools.results import failure, to_result

Work: TypeAlias = Callable[[], None]

IDLE_SECONDS = 0.5
"""So long a thread waits for another call before it ends."""

_MAX_IDLE = 32


class Threads:
    """As many daemon threads as there are calls, each used again by the next call where it is free.

    Not the loop's pool: a handful of hanging tools would fill it and stop all others, and its threads are joined when
    the process ends, so one of them could keep a worker from leaving. Starting a thread costs more than the rest of a
    call, which is why one that is free is kept for a moment.
    """

    def __init__(self) -> None:
        self._idle: deque[SimpleQueue[Work]] = deque()

    async def run(self, work: Callable[[], Any], name: str) -> Any:
        """What ``work`` returns or raises, called in a thread with the context variables of the caller.

        Raises:
            ToolError: it raised what would end a task or a process: that is the end of this call alone.
            MachineError: there is no thread to be had.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        context = contextvars.copy_context()

        def deliver(result: Any, error: BaseException | None) -> None:
            if not future.done():  # an exception is handed over as a value: a future refuses some
                future.set_result((result, error))

        def call() -> None:
            result, error = None, None
            try:
                result = context.run(work)
            except BaseException as raised:  # noqa: BLE001  (handed over to the awaiting side, whatever it is)
                error = raised
            with suppress(
                RuntimeError
            ):  # the loop has ended before the function did: nobody waits for the result
                loop.call_soon_threadsafe(deliver, result, error)

        with before_the_call():
            self._start(call, f"tool-{name}")
        result, error = await future
        if error is None:
            return result
        if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
            raise error
        raise failure(name, error) from error

    async def convert(self, tool: str, value: Any) -> JsonValue:
        """What a tool has returned as JSON, made in a thread.

        Raises:
            ResultUnavailable: JSON cannot express it.
        """
        try:
            converted: JsonValue = await self.run(lambda: to_result(tool, value), tool)
        except MachineError as error:
            error.began = True
            raise
        return converted

    def _start(self, work: Work, name: str) -> None:
        try:
            inbox = self._idle.pop()
        except IndexError:
            inbox = SimpleQueue[Work]()
            threading.Thread(target=self._serve, args=(inbox,), name=name, daemon=True).start()
        inbox.put(work)

    def _serve(self, inbox: SimpleQueue[Work]) -> None:
        inbox.get()()
        while len(self._idle) < _MAX_IDLE:
            self._idle.append(inbox)
            try:
                work = inbox.get(timeout=IDLE_SECONDS)
            except Empty:
                with suppress(ValueError):
                    self._idle.remove(inbox)
                    return
                work = inbox.get()  # it was taken at this very moment: the call is on its way
            work()
            del work  # what a call held is not kept while the thread waits
