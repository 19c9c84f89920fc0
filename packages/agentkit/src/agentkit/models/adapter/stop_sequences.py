"""Stop texts, for wires that have none: the reply is cut where the model should have stopped."""

from __future__ import annotations

from collections.abc import Sequence


class Cutter:
    """Lets a text through until one of ``stops`` begins; what may be the beginning of one is held back.

    Attributes:
        done: a stop text was there; nothing gets through any more.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.done = False
        self._stops = [stop for stop in stops if stop]
        self._held = ""

    def feed(self, piece: str) -> str:
        """What of the text may be shown now."""
        if not self._stops or self.done:
            return "" if self.done else piece
        text = self._held + piece
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.done, self._held = True, ""
            return text[: min(found)]
        held = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def close(self) -> str:
        """What was held back, where the text ends here."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How much of the end of ``text`` is the beginning of ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
