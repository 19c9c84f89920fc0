"""Memory of agents on this platform: notes in its own database, and their owners."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from agentkit.errors import MemoryUnavailable, UsageError
from agentkit.memories import AgentMemory
from agentkit.memories.embeddings import opened_embeddings
from agentkit.memories.similarity import packed
from agentkit.models import NO_ENDPOINTS, NamedEndpoint
from agentkit.ports import UNCOUNTED, Embeddings, Memory, Meter, Scope
from agentkit.transcript.steps import Note
from ops_core.errors import OpsError
from ops_core.ports import NoteFilter, NoteStore
from ops_core.task import Task

Result = TypeVar("Result")

DATABASE = "database"
"""The name of the memory in the platform's own database."""


class DatabaseMemory:
    """A :class:`~agentkit.ports.Memory` in the platform's own database.

    Every note of a scope is compared, exactly: made for up to some 100,000 notes in one scope, for which numpy
    (extra ``opspawn-agentkit[memory]``), or PostgreSQL's extension pgvector, is needed to be quick.

    Args:
        store: where the notes are.
        embeddings: how similar texts are found. Notes that were kept with others are not found with these.
    """

    def __init__(self, store: NoteStore, embeddings: Embeddings) -> None:
        self._store = store
        self._embeddings = embeddings

    async def remember(self, scope: Scope, note: Note, meter: Meter = UNCOUNTED) -> None:
        """Keep a note."""
        vector = await self._packed(note.text, meter)
        await _translate_errors(self._store.put_note(scope, note, vector, self._embeddings.name))

    async def recall(self, scope: Scope, query: str, limit: int, meter: Meter = UNCOUNTED) -> Sequence[Note]:
        """The notes that are most similar."""
        if limit < 1:
            return ()
        vector = await self._packed(query, meter)
        return await _translate_errors(self._store.find_notes(scope, vector, self._embeddings.name, limit))

    async def forget(
        self,
        tenant: str,
        *,
        agent: str | None = None,
        key: str | None = None,
        ids: Collection[str] | None = None,
    ) -> int:
        """Delete what fits all that is given."""
        return await _translate_errors(
            self._store.forget_notes(tenant, NoteFilter(agent=agent, key=key, ids=ids))
        )

    async def _packed(self, text: str, meter: Meter) -> bytes:
        (vector,) = await self._embeddings.embed([text], meter)
        return packed(vector)


async def _translate_errors(work: Awaitable[Result]) -> Result:
    try:
        return await work
    except OpsError as error:
        raise MemoryUnavailable(str(error)) from None


@asynccontextmanager
async def opened_memory(
    declared: AgentMemory, store: NoteStore, endpoints: Mapping[str, NamedEndpoint] = NO_ENDPOINTS
) -> AsyncGenerator[Memory]:
    """The memory that an agent declares, ready for use; a given object is left as it is.

    Raises:
        UsageError: there is no memory of this name, or no embeddings.
        ModelAuthError: the embeddings need a key, and there is none.
    """
    if not isinstance(declared.memory, str):
        yield declared.memory
        return
    _check_name(declared.memory)
    async with opened_embeddings(declared.embeddings, endpoints) as embeddings:
        yield DatabaseMemory(store, embeddings)


async def check_memory(declared: AgentMemory, endpoints: Mapping[str, NamedEndpoint] = NO_ENDPOINTS) -> None:
    """Whether the memory that an agent declares can be opened in this process.

    Raises:
        UsageError, ModelAuthError: as :func:`opened_memory`.
    """
    if isinstance(declared.memory, str):
        _check_name(declared.memory)
        async with opened_embeddings(declared.embeddings, endpoints):
            pass


def _check_name(name: str) -> None:
    if name != DATABASE:
        message = f"unknown memory {name!r}; a memory is {DATABASE}, or an object"
        raise UsageError(message)


def scope_of(declared: AgentMemory | None, task: Task) -> Scope:
    """Whose memory a task has.

    Raises:
        UsageError: the agent remembers for each value of a label, and the task has none.
    """
    key = ""
    if declared is not None and declared.per is not None:
        missing = missing_label(declared, task.labels)
        if missing is not None:
            raise UsageError(missing)
        key = task.labels[declared.per]
    return Scope(tenant=task.tenant, agent=task.agent, key=key)


def missing_label(declared: AgentMemory | None, labels: Mapping[str, str]) -> str | None:
    """What is wrong with a task of these labels; ``None`` for nothing. Without it, it would read a memory of all."""
    if declared is None or declared.per is None or labels.get(declared.per):
        return None
    return f"the label {declared.per} is needed: the agent remembers for each value of it"
