"""Halt watch: the halts in force as this process knows them; notifies the runs here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from time import monotonic

from agentkit.run.kill_switch import KillSwitch
from ops_core.concurrency.jitter import spread
from ops_core.errors import OpsError
from ops_core.halt import Halt, holding, off
from ops_core.ports import HaltStore
from ops_core.task import Task

LOOK_SECONDS = 1.0
"""How often it looks for halts of which nobody has told it."""

SETTLED_SECONDS = 0.25
"""What a worker has seen may be so old when it begins a call; so long after it is written, a halt holds."""

log = logging.getLogger("ops_core.halt_watch")


class HaltWatch:
    """Halts in force, and the kill switches of the runs in this process.

    Args:
        store: where halts are.
    """

    def __init__(self, store: HaltStore) -> None:
        self._store = store
        self._halts: Sequence[Halt] = ()
        self._told: dict[KillSwitch, Callable[[], None]] = {}
        self._looking = asyncio.Lock()
        self._asked = self._answered = 0
        self._began = 0.0

    def holding(self, task: Task) -> Halt | None:
        """What holds a run, as far as it is known here."""
        return holding(self._halts, task.tenant, task.agent, task.id)

    async def look(self) -> None:
        """Know what is in force at a moment that is not before this call, and was :data:`SETTLED_SECONDS` ago at most.

        Raises:
            StoreUnavailable: nobody can say.
        """
        while monotonic() - await self._looked() > SETTLED_SECONDS:
            # somebody may have been told meanwhile that his halt holds
            log.warning(
                "looking what is halted took more than %g s; a call waits for a fresh look", SETTLED_SECONDS
            )

    async def _looked(self) -> float:
        """When it began to look; who asks together is answered together."""
        self._asked += 1
        number = self._asked
        async with self._looking:
            if self._answered < number:
                answers, began = self._asked, monotonic()  # all that were asked until now
                await self._read()
                self._answered, self._began = answers, began
            return self._began

    async def _read(self) -> None:
        halts = await self._store.halts_in_force()
        if halts != self._halts:
            self._halts = halts
            for tell in tuple(self._told.values()):
                tell()

    async def look_forever(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self.refresh_quietly()
            await asyncio.sleep(spread(LOOK_SECONDS))

    async def refresh_quietly(self) -> None:
        """Look, because there may be something new."""
        try:
            await self._looked()
        except OpsError as error:
            log.error("cannot look what is halted: %s", error)

    @contextmanager
    def carrying(self, task: Task, switch: KillSwitch, hold: Callable[[Halt], None]) -> Generator[None]:
        """While a run is carried here, its kill switch is set, and ``hold`` is called when the run itself is halted."""

        def tell() -> None:
            switch.set(off(self._halts, task.tenant, task.agent, task.id))
            held = self.holding(task)
            if held is not None:
                hold(held)

        self._told[switch] = tell
        if self._halts:
            tell()
        try:
            yield
        finally:
            del self._told[switch]
