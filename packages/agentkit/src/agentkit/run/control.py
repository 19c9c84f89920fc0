"""Control over a run in flight: requests to stop it, from inside or outside, and their state."""

from __future__ import annotations

import asyncio
from typing import Any

from agentkit.run.kill_switch import KillSwitch
from agentkit.transcript.steps import Finished

STUBBORN_SECONDS = 5.0
"""How long a cancelled run waits for a tool that ignores its cancellation before it ends without it."""


class Control:
    """How a run in flight is told to stop. One control belongs to one run; call it from the run's event loop.

    Args:
        kill_switch: for the tools of the run; one that nobody has pulled where not given.
    """

    def __init__(self, kill_switch: KillSwitch | None = None) -> None:
        self.kill_switch = KillSwitch() if kill_switch is None else kill_switch
        self.ending: Finished | None = None
        self.released = False
        self._turns: asyncio.Task[Any] | None = None
        self._over: asyncio.Future[None] | None = None

    @property
    def stopped(self) -> bool:
        """The run was told to stop in some way, or is halted: it may not begin anything more."""
        return self.ending is not None or self.released or self.kill_switch.off.run is not None

    def cancel(self) -> None:
        """End the run as cancelled, now: a model call or tool in flight is cancelled. Finished work is kept."""
        self.end(Finished(status="cancelled"))

    def end(self, ending: Finished) -> None:
        """End the run in this way, now. The first ending counts."""
        if self.ending is None:
            self.ending = ending
            self._stop()

    def release(self) -> None:
        """Let the run go at its next step; ``run`` then raises :class:`RunReleased`, and the journal can be resumed."""
        self.released = True

    def steer(self, turns: asyncio.Task[Any], over: asyncio.Future[None]) -> None:
        """Take over a run; for the loop itself. ``over`` is resolved when it is not to be waited for any longer."""
        self._turns, self._over = turns, over
        if self.ending is not None:
            self._stop()

    def _stop(self) -> None:
        if self._turns is not None and self._over is not None:
            self._turns.cancel()
            self._turns.get_loop().call_later(STUBBORN_SECONDS, resolve, self._over)


class Host:
    """The task that awaits a run, from the moment on at which this is made.

    Its cancellation stops the run. That is looked up and not only caught: a toolset, a journal or a tool may have
    swallowed the one CancelledError.
    """

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._earlier = 0 if self._task is None else self._task.cancelling()
        self.left = False

    @property
    def has_left(self) -> bool:
        """The task was cancelled, or is gone: nobody awaits the run any more."""
        return self.left or (self._task is not None and self._task.cancelling() > self._earlier)


def resolve(over: asyncio.Future[None], ended: asyncio.Task[Any] | None = None) -> None:
    """Wait no longer for the turns of a run: they have ended, or take too long."""
    if not over.done():
        over.set_result(None)
    elif ended is not None and not ended.cancelled():
        ended.exception()  # of a run that was given up: seen, so that asyncio does not report it as overlooked


async def cancel_and_wait(turns: asyncio.Task[Any]) -> None:
    """Cancel the turns of a run, and wait for their end, but not for ever."""
    turns.cancel()
    await asyncio.wait({turns}, timeout=STUBBORN_SECONDS)
