"""Whose turn it is: how a worker's free slots are shared out. Pure, but for the memory of who was served last.

Tenants take turns, whatever the others have waiting and however urgent they call it. Within a tenant the highest
priority goes first, and at one priority agents take turns. Within a line it is first come, first served.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple


class Line(NamedTuple):
    """Tasks that wait for the same: of one tenant, for one agent, of one priority."""

    tenant: str
    agent: str
    priority: int


class Turns:
    """Remembers who was served last."""

    def __init__(self) -> None:
        self._served: Counter[tuple[str, ...]] = Counter()  # when, for tenants and for their agents
        self._moment = 0

    def share(self, slots: int, lines: Collection[Line]) -> Mapping[Line, int]:
        """How many tasks of which lines are to be taken now.

        Lines that are not named get nothing yet: their tenant has more urgent ones, or there are more lines than slots.
        What a line does not use is for the others, in another call without that line.
        """
        urgent: dict[str, list[Line]] = {}
        for line in lines:
            best = urgent.setdefault(line.tenant, [line])
            if line.priority > best[0].priority:
                urgent[line.tenant] = [line]
            elif line.priority == best[0].priority and line is not best[0]:
                best.append(line)
        tenants = sorted(urgent, key=lambda tenant: (self._served[(tenant,)], tenant))
        shared: dict[Line, int] = {}
        for tenant, count in zip(tenants, _parts(slots, len(tenants)), strict=False):
            waiting = sorted(urgent[tenant], key=lambda line: (self._served[line[:2]], line))
            shared.update(zip(waiting, _parts(count, len(waiting)), strict=False))
        return shared

    def served(self, line: Line) -> None:
        """A task of this line was taken: others are next."""
        self._moment += 1
        for who in ((line.tenant,), line[:2]):
            self._served[who] = self._moment

    def forget_all_but(self, lines: Collection[Line]) -> None:
        """Who has nothing waiting needs no memory."""
        known = {who for line in lines for who in ((line.tenant,), line[:2])}
        for who in [who for who in self._served if who not in known]:
            del self._served[who]


def _parts(slots: int, among: int) -> Sequence[int]:
    """Equal parts, the first ones larger by one where it does not come out even; nobody gets nothing."""
    each, left = divmod(slots, max(among, 1))
    return [each + (number < left) for number in range(min(among, slots))]
