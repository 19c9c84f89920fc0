"""Embeddings of Google, through its official SDK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentkit.errors import ModelBadResponse
from agentkit.memories.openai import EMPTY, is_vector
from agentkit.messages import Usage
from agentkit.models.adapter.json import as_count, as_list, as_object
from agentkit.models.google.client import GoogleClient
from agentkit.ports import UNCOUNTED, Meter

TOGETHER = 100
"""So many texts go into one request: more are refused."""


class GoogleEmbeddings(GoogleClient):
    """Embeddings of Google; use it as an async context manager, or call :meth:`aclose`.

    Nothing is asked for but the vectors: neither their length nor a task is set, so that notes and questions are
    compared as the same kind of text.
    """

    wire = "google-embeddings"

    async def embed(self, texts: Sequence[str], meter: Meter = UNCOUNTED) -> Sequence[Sequence[float]]:
        """A vector for each text.

        Raises:
            ModelError: the subclass that says who must act.
        """
        vectors: list[Sequence[float]] = []
        for first in range(0, len(texts), TOGETHER):
            some = [text if text.strip() else EMPTY for text in texts[first : first + TOGETHER]]
            async with meter.call(self.name, some) as call:
                found = await self._asked(some)
                vectors += self._vectors(found, len(some))
                call.usage = _used(found)
        if len({len(vector) for vector in vectors}) > 1:
            raise ModelBadResponse(f"{self.name} sent vectors of different lengths")
        return vectors

    async def _asked(self, texts: Sequence[str]) -> Mapping[str, Any]:
        contents = [{"parts": [{"text": text}]} for text in texts]  # bare texts would be parts of one content
        with self._our_errors():
            found = await self._client().aio.models.embed_content(
                model=self._dialect.model, contents=contents
            )
        return self._plain(found)

    def _vectors(self, found: Mapping[str, Any], count: int) -> list[Sequence[float]]:
        vectors: list[Any] = [as_object(item).get("values") for item in as_list(found.get("embeddings"))]
        if len(vectors) != count or not all(map(is_vector, vectors)):
            raise ModelBadResponse(f"{self.name} sent no vector of numbers for each text")
        return vectors


def _used(found: Mapping[str, Any]) -> Usage | None:
    """Some of its models tell what they have read, and some do not."""
    tokens = as_count(as_object(found.get("usage_metadata")).get("prompt_token_count"))
    return Usage(input_tokens=tokens) if tokens else None
