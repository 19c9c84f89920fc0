"""Notes in a Chroma database in a folder. Needs the extra ``opspawn-agentkit[chroma]``: some 90 packages, 350 MB."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import blake2b
from types import TracebackType
from typing import Any, Self, TypeVar

from agentkit.errors import MemoryUnavailable, UsageError
from agentkit.ports import UNCOUNTED, Embeddings, Meter, Scope
from agentkit.transcript.steps import Note

Result = TypeVar("Result")

PREFIX = "agentkit-notes-"
"""What the names of our collections begin with; there is one for each name of embeddings."""


class ChromaMemory:
    """A :class:`~agentkit.ports.Memory` in a Chroma database; use it as an async context manager.

    Vectors are always ours: Chroma's own embeddings, which would fetch a model, are never used; its telemetry is off.
    Its index is approximate, so that in very large scopes a similar note may be missed. One process may use a folder at
    a time. What is forgotten is no longer found; Chroma decides when its files are rewritten.

    Args:
        path: the folder; made where there is none.
        embeddings: how similar texts are found.

    Raises:
        UsageError: chromadb is not installed.
    """

    def __init__(self, path: str, embeddings: Embeddings) -> None:
        try:
            import chromadb  # an extra
        except ModuleNotFoundError as error:
            if error.name != "chromadb":
                raise
            raise UsageError("this memory needs chromadb: pip install 'opspawn-agentkit[chroma]'") from None
        self._chromadb: Any = chromadb
        self._path = path
        self._embeddings = embeddings
        self._client: Any = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        settings = self._chromadb.Settings(anonymized_telemetry=False)
        self._client = await _answered(
            lambda: self._chromadb.PersistentClient(path=self._path, settings=settings)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client = None

    async def remember(self, scope: Scope, note: Note, meter: Meter = UNCOUNTED) -> None:
        """Keep a note."""
        (vector,) = await self._embeddings.embed([note.text], meter)
        about = {**_fields(scope), "note": note.id, "source": note.source, "at": note.at}

        def put(collection: Any) -> None:
            collection.upsert(
                ids=[_id(scope, note.id)],
                embeddings=[list(vector)],
                documents=[note.text],
                metadatas=[about],
            )

        await self._in_collection(put)

    async def recall(self, scope: Scope, query: str, limit: int, meter: Meter = UNCOUNTED) -> Sequence[Note]:
        """The notes that are most similar."""
        if limit < 1:
            return ()
        (vector,) = await self._embeddings.embed([query], meter)

        def find(collection: Any) -> Mapping[str, Any]:
            found: Mapping[str, Any] = collection.query(
                query_embeddings=[list(vector)],
                n_results=limit,
                where=_where(_fields(scope)),
                include=["documents", "metadatas", "distances"],
            )
            return found

        found = await self._in_collection(find)
        rows = zip(found["documents"][0], found["metadatas"][0], found["distances"][0], strict=True)
        notes = [
            Note(id=about["note"], text=text, source=about["source"], at=about["at"], score=1.0 - distance)
            for text, about, distance in rows
        ]
        return sorted(notes, key=lambda note: -note.score)

    async def forget(
        self,
        tenant: str,
        *,
        agent: str | None = None,
        key: str | None = None,
        ids: Collection[str] | None = None,
    ) -> int:
        """Delete what fits all that is given, whatever embeddings it was kept with."""
        given = {"tenant": tenant, "agent": agent, "key": key}
        wanted = {name: value for name, value in given.items() if value is not None}

        def delete() -> int:
            forgotten = 0
            for collection in self._client.list_collections():
                if not collection.name.startswith(PREFIX):
                    continue
                found = collection.get(where=_where(wanted), include=["metadatas"])
                rows = zip(found["ids"], found["metadatas"], strict=True)
                doomed = [id_ for id_, about in rows if ids is None or about["note"] in ids]
                if doomed:
                    collection.delete(ids=doomed)
                forgotten += len(doomed)
            return forgotten

        return await self._done(delete)

    async def _in_collection(self, work: Callable[[Any], Result]) -> Result:
        name = PREFIX + blake2b(self._embeddings.name.encode(), digest_size=8).hexdigest()

        def act() -> Result:
            collection = self._client.get_or_create_collection(
                name, embedding_function=None, metadata={"hnsw:space": "cosine"}
            )
            return work(collection)

        return await self._done(act)

    async def _done(self, work: Callable[[], Result]) -> Result:
        if self._client is None:
            raise UsageError("the memory is not open: use `async with ChromaMemory(…) as memory`")
        async with self._lock:  # its client is made for one caller at a time
            return await _answered(work)


async def _answered(work: Callable[[], Result]) -> Result:
    try:
        return await asyncio.to_thread(work)
    except Exception as error:  # noqa: BLE001  (its errors have no common root)
        raise MemoryUnavailable(f"Chroma failed ({type(error).__name__})") from None


def _fields(scope: Scope) -> dict[str, str]:
    return {"tenant": scope.tenant, "agent": scope.agent, "key": scope.key}


def _where(fields: Mapping[str, str]) -> dict[str, Any]:
    conditions = [{name: {"$eq": value}} for name, value in fields.items()]
    return conditions[0] if len(conditions) == 1 else {"$and": conditions}


def _id(scope: Scope, note_id: str) -> str:
    whole = json.dumps([scope.tenant, scope.agent, scope.key, note_id])
    return blake2b(whole.encode(), digest_size=20).hexdigest()
