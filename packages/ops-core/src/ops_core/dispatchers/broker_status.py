"""Broker status: whether a broker can be used, logged in one line when it changes."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator

SAYINGS = {
    "AMQPHeartbeatTimeout": "it is silent",
    "ConnectionBlockedTimeout": "it takes no messages: it is short of memory or disk",
    "IncompatibleProtocolError": "it does not speak AMQP 0-9-1",
    "ProbableAccessDeniedError": "the virtual host was refused",
    "ProbableAuthenticationError": "the credentials were refused",
    "StreamLostError": "the connection was lost",
}
"""What pika's errors mean that carry no answer."""

log = logging.getLogger("ops_core.dispatchers")


class Link:
    """What is known of a broker, by the threads that use it; one log line when it breaks and one when it heals.

    Args:
        place: what the lines call it; must not hold a secret.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._broken: set[str] = set()
        self._over = False

    def over(self) -> None:
        """Nobody uses it any more: what a thread still finds out while it ends is not told."""
        self._over = True

    def broken(self, part: str, error: BaseException) -> None:
        """``part`` cannot use it."""
        with self._lock:
            first = not self._broken
            self._broken.add(part)
        if first and not self._over:
            log.warning(
                "%s cannot be used (%s); workers look for work by themselves meanwhile",
                self._place,
                reason(error),
            )

    def healed(self, part: str) -> None:
        """``part`` can use it."""
        if part not in self._broken:
            return
        with self._lock:
            self._broken.discard(part)
            last = not self._broken
        if last and not self._over:
            log.warning("%s can be used again", self._place)


def reason(error: BaseException) -> str:
    """What went wrong: the answer of the broker or of the system, never anything of the URL."""
    for one in _inside(error):
        if type(one).__name__ in SAYINGS:
            return SAYINGS[type(one).__name__]
        said = getattr(one, "reply_text", None)
        if said:
            return str(said)
        if isinstance(one, OSError) and one.errno is not None:
            return os.strerror(one.errno)
    return type(error).__name__


def _inside(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it was made of."""
    yield error
    for part in (*error.args, getattr(error, "exception", None), error.__cause__):
        for one in part if isinstance(part, tuple | list) else (part,):  # pyright: ignore[reportUnknownVariableType]
            if isinstance(one, BaseException):
                yield from _inside(one)
