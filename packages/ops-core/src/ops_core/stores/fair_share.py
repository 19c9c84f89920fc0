"""Fair share of a worker's free slots among tenants. Pure, but for the memory of who was served.

Tenants take turns, whatever the others have waiting and however urgent they call it. Within a tenant the highest
priority goes first, and at one priority agents take turns. Within a line it is first come, first served.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

MAX_REMEMBERED = 10_000
"""Number of agents of tenants that were served last and are remembered."""


class Line(NamedTuple):
    """Tasks that wait for the same: of one tenant, for one agent, of one priority."""

    tenant: str
    agent: str
    priority: int


class FairShare:
    """Remembers who was served last.

    Attributes:
        last_tenant: the tenants behind this one, by name, are next; then those before it.
    """

    def __init__(self) -> None:
        self.last_tenant = ""
        self._served = dict[
            tuple[str, str], int
        ]()  # when, for the agents of tenants; the last one served is last
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
        shared: dict[Line, int] = {}
        for tenant, count in zip(self.in_turn(urgent), _parts(slots, len(urgent)), strict=False):
            waiting = sorted(urgent[tenant], key=lambda line: (self._served.get(line[:2], 0), line))
            shared.update(zip(waiting, _parts(count, len(waiting)), strict=False))
        return shared

    def in_turn(self, tenants: Collection[str]) -> Sequence[str]:
        """These tenants in the order in which they are served."""
        return sorted(tenants, key=lambda tenant: (tenant <= self.last_tenant, tenant))

    def served(self, line: Line) -> None:
        """A task of this line was taken: other agents of its tenant are next."""
        self._moment += 1
        self._served.pop(line[:2], None)
        self._served[line[:2]] = self._moment
        if len(self._served) > MAX_REMEMBERED:
            del self._served[next(iter(self._served))]


def _parts(slots: int, among: int) -> Sequence[int]:
    """Equal parts, the first ones larger by one where it does not come out even; nobody gets nothing."""
    each, left = divmod(slots, max(among, 1))
    return [each + (number < left) for number in range(min(among, slots))]
