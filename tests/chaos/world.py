"""The world outside of the platform: which effects took place, how often, and in which process."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LAST = ":f"
"""The end of the key of a clerk's last call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One beginning of an effect."""

    kind: str
    key: str
    pid: int
    at: float


class World:
    """Reads what the tools have noted, as it grows.

    Attributes:
        begun: the effects by idempotency key.
        total: so many have begun.
        finished: so many clerks have done all that they have to do.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read = 0
        self._rest = b""
        self.begun: dict[str, list[Effect]] = defaultdict(list)
        self.finished = 0
        self.total = 0

    def look(self) -> int:
        """Take in what is new; so many effects have begun by now."""
        if self._file.exists():
            with self._file.open("rb") as file:
                file.seek(self._read)
                new = file.read()
            self._read += len(new)
            *lines, self._rest = (self._rest + new).split(b"\n")
            for line in lines:
                self._take(line.decode())
        return self.total

    def _take(self, line: str) -> None:
        what, kind, key, pid, at = line.split()
        if what == "end":
            self.finished += key.endswith(LAST)
            return
        self.begun[key].append(Effect(kind=kind, key=key, pid=int(pid), at=float(at)))
        self.total += 1

    async def until_more(self, effects: int) -> None:
        """Until so many more effects have begun than there are now."""
        wanted = self.look() + effects
        while self.look() < wanted:
            await asyncio.sleep(0.02)  # between two looks at a file

    def of_task(self, task_id: str, calls: Mapping[str, str]) -> dict[str, list[Effect]]:
        """The effects of one task by call."""
        return {call_id: self.begun.get(f"{task_id}:{call_id}", []) for call_id in calls}
