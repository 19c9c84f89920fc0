"""Fold over a sequence that grows: what it came to before is not computed again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")


class Fold(Generic[Item, Value]):
    """A fold over the messages of a run, which are asked for again with each turn, a few more each time.

    Args:
        begin: what nothing comes to.
        add: what a value and one more item come to; equal items make equal values. The value is not changed.
    """

    def __init__(self, begin: Value, add: Callable[[Value, Item], Value]) -> None:
        self._begin = begin
        self._add = add
        self._seen: tuple[Item, ...] = ()
        self._value = begin

    def over(self, items: tuple[Item, ...]) -> Value:
        """What all the items come to. Where they do not begin as the last ones did, it is computed anew."""
        seen, value = self._seen, self._value
        if items[: len(seen)] != seen:  # almost all are the same objects, which is seen at once
            seen, value = (), self._begin
        add: Any = self._add
        for item in items[len(seen) :]:
            value = add(value, item)
        self._seen, self._value = items, value
        return value
