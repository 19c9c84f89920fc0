"""Embeddings by name, ``provider:name``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from agentkit.errors import UsageError
from agentkit.memories.hashing import HashEmbeddings
from agentkit.ports import Embeddings

OFFLINE = "offline:hash"


def open_embeddings(name: str) -> Embeddings:
    """The embeddings called ``provider:name``. Nothing is sent yet.

    Args:
        name: ``offline:hash`` or ``offline:hash-N`` (N dimensions).

    Raises:
        UsageError: there are none of this name.
    """
    provider, _colon, model = name.partition(":")
    if provider == "offline" and model == "hash":
        return HashEmbeddings()
    if (
        provider == "offline"
        and model.startswith("hash-")
        and model[5:].isdecimal()
        and 0 < int(model[5:]) <= 65_536
    ):
        return HashEmbeddings(int(model[5:]))
    raise UsageError(f"unknown embeddings {name!r}; embeddings are {OFFLINE} or {OFFLINE}-N")


@asynccontextmanager
async def opened_embeddings(embeddings: str | Embeddings) -> AsyncGenerator[Embeddings]:
    """``embeddings``, ready for use. What is opened here, from a name, is closed again.

    Raises:
        UsageError, ModelAuthError: as :func:`open_embeddings`.
    """
    if not isinstance(embeddings, str):
        yield embeddings
        return
    own = open_embeddings(embeddings)
    if isinstance(own, AbstractAsyncContextManager):
        async with own:
            yield own
    else:
        yield own
