"""Notes in this process: for tests, and for agents that need to remember no longer than their process lives."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from agentkit.memories.hash_embeddings import HashEmbeddings
from agentkit.memories.similarity import nearest, packed
from agentkit.ports import UNCOUNTED, Embeddings, Meter, Scope
from agentkit.transcript.steps import Note


class LocalMemory:
    """A :class:`~agentkit.ports.Memory` that is gone with the process.

    Args:
        embeddings: how similar texts are found.
    """

    def __init__(self, embeddings: Embeddings | None = None) -> None:
        self._embeddings = embeddings or HashEmbeddings()
        self._notes: dict[Scope, dict[str, tuple[Note, bytes]]] = {}

    async def remember(self, scope: Scope, note: Note, meter: Meter = UNCOUNTED) -> None:
        """Keep a note."""
        (vector,) = await self._embeddings.embed([note.text], meter)
        self._notes.setdefault(scope, {})[note.id] = (note, packed(vector))

    async def recall(self, scope: Scope, query: str, limit: int, meter: Meter = UNCOUNTED) -> Sequence[Note]:
        """The notes that are most similar."""
        notes = self._notes.get(scope)
        if not notes:
            return ()
        (vector,) = await self._embeddings.embed([query], meter)
        rows = [(note, stored) for note, stored in notes.values()]
        return [replace(note, score=score) for note, score in nearest(packed(vector), rows, limit)]

    async def forget(
        self,
        tenant: str,
        *,
        agent: str | None = None,
        key: str | None = None,
        ids: Collection[str] | None = None,
    ) -> int:
        """Delete what fits all that is given."""
        forgotten = 0
        for scope in list(self._notes):
            if scope.tenant != tenant or agent not in (None, scope.agent) or key not in (None, scope.key):
                continue
            notes = self._notes[scope]
            for id_ in [id_ for id_ in notes if ids is None or id_ in ids]:
                del notes[id_]
                forgotten += 1
            if not notes:
                del self._notes[scope]
        return forgotten
