"""Rate limiter of a provider: concurrent calls, and calls a minute. All runs of a process share one.

Callers do not poll: they wait in a queue, first come first served, with one timer for the first of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from agentkit.errors import UsageError

_MINUTE = 60.0
_TRIFLE = 1e-6
"""Seconds that no clock tells apart."""

_BURST = 10
"""A tenth of what a minute allows may come at once; the rest is spread over the minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """What a provider may be sent with one key. ``None`` means no limit of this kind.

    Attributes:
        concurrency: calls at the same time.
        requests_per_minute: calls in any 60 seconds.
        tokens_per_minute: tokens read and written in any 60 seconds. What a call reads is estimated when it begins,
            and what it has used in all is counted when it has ended; the last call may exceed the limit by itself.
    """

    concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"limits: {name} must be at least 1, not {value!r}")


NO_LIMITS = RateLimits()


class _Bucket:
    """What is left of a minute's worth. It holds a tenth and fills evenly, so that in no minute more is taken.

    Args:
        per_minute: so much.
        unit: only whole multiples of this are taken; 0 for any amount.
    """

    def __init__(self, per_minute: int, unit: int) -> None:
        self._size = float(max(1, per_minute // _BURST))
        # what is taken in units may, with what flows in during a minute, fall short of one more by a trifle
        self._per_second = max(1.0, per_minute + unit - self._size) / _MINUTE
        self._level = self._size
        self._at: float | None = None

    def delay(self, amount: float, now: float) -> float:
        """Seconds until ``amount`` may be taken. One that is larger than the bucket waits until that is full."""
        self._fill(now)
        missing = min(amount, self._size) - self._level
        return max(0.0, missing / self._per_second)

    def take(self, amount: float, now: float) -> None:
        """Take it, also more than there is; a negative amount is given back."""
        self._fill(now)
        self._level = min(self._size, self._level - amount)

    def _fill(self, now: float) -> None:
        since = 0.0 if self._at is None else max(0.0, now - self._at)
        self._level = min(self._size, self._level + since * self._per_second)
        self._at = now


@dataclass(slots=True, eq=False)
class _Waiting:
    tokens: int
    granted: asyncio.Future[None]


class Limiter:
    """Lets calls through, in the order in which they come.

    Args:
        limits: see there.
    """

    def __init__(self, limits: RateLimits) -> None:
        self._limits = limits
        self._requests = _bucket(limits.requests_per_minute, 1)
        self._tokens = _bucket(limits.tokens_per_minute, 0)
        self._under_way = 0
        self._paused_until = 0.0
        self._queue: deque[_Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def under_way(self) -> int:
        """Calls that were let through and have not ended."""
        return self._under_way

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._queue)

    async def enter(self, tokens: int = 0) -> None:
        """Wait until one more call may be made. Cancelled, it leaves the queue and has taken nothing.

        Args:
            tokens: that the call will read, roughly.
        """
        if self._limits == NO_LIMITS and not self._queue and self._paused_until == 0.0:
            self._under_way += 1
            return
        place = _Waiting(tokens, asyncio.get_running_loop().create_future())
        self._queue.append(place)
        self._let_in()
        try:
            await place.granted
        except asyncio.CancelledError:
            if place in self._queue:
                self._queue.remove(place)
                self._let_in()
            else:
                self._return(place)
            raise

    def leave(self, estimated: int = 0, used: int | None = None) -> None:
        """A call has ended; the next may come.

        Args:
            estimated: what was said when it entered.
            used: the tokens that it has read and written; ``None`` where that is not known.
        """
        self._under_way -= 1
        if self._tokens is not None and used is not None:
            self._tokens.take(used - estimated, _now())
        if self._queue:
            self._let_in()

    def pause(self, seconds: float) -> None:
        """Let nobody in for so long: the provider has asked for it."""
        self._paused_until = max(self._paused_until, _now() + seconds)

    @property
    def paused_for(self) -> float:
        """Seconds in which nobody is let in; zero as a rule."""
        return max(0.0, self._paused_until - _now()) if self._paused_until else 0.0

    def _return(self, place: _Waiting) -> None:
        """Somebody was let in and did not make the call."""
        if self._requests is not None:
            self._requests.take(-1, _now())
        self.leave(place.tokens, 0)

    def _let_in(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue:
            concurrency = self._limits.concurrency
            if concurrency is not None and self._under_way >= concurrency:
                return  # whoever leaves comes here again
            now = _now()
            delay = self._delay(self._queue[0].tokens, now)
            if delay > _TRIFLE:
                self._timer = asyncio.get_running_loop().call_later(delay, self._let_in)
                return
            self._grant(self._queue.popleft(), now)

    def _delay(self, tokens: int, now: float) -> float:
        delay = self._paused_until - now
        if self._requests is not None:
            delay = max(delay, self._requests.delay(1, now))
        if self._tokens is not None:
            delay = max(delay, self._tokens.delay(tokens, now))
        return delay

    def _grant(self, place: _Waiting, now: float) -> None:
        self._under_way += 1
        if self._requests is not None:
            self._requests.take(1, now)
        if self._tokens is not None:
            self._tokens.take(place.tokens, now)
        if not place.granted.done():
            place.granted.set_result(None)


def _bucket(per_minute: int | None, unit: int) -> _Bucket | None:
    return None if per_minute is None else _Bucket(per_minute, unit)


def _now() -> float:
    return asyncio.get_running_loop().time()
