"""Embeddings without a model, a key or a network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from math import sqrt

from agentkit.ports import UNCOUNTED, Meter

_WORD = re.compile(r"\w+")


class HashEmbeddings:
    """Counts words and pieces of words: two texts are similar as far as they use the same ones.

    Always the same, on every machine. It knows nothing of meaning: "car" and "automobile" have nothing in common for
    it, and neither has a text with its translation. It is made for tests, demonstrations and first steps.

    Args:
        dimensions: length of the vectors; words share a place the more often, the fewer there are.
    """

    def __init__(self, dimensions: int = 512) -> None:
        self._dimensions = dimensions

    @property
    def name(self) -> str:
        """``offline:hash-N``."""
        return f"offline:hash-{self._dimensions}"

    async def embed(self, texts: Sequence[str], meter: Meter = UNCOUNTED) -> Sequence[Sequence[float]]:
        """A vector of length 1 for each text; of zeros for one without a word. Costs nothing."""
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> Sequence[float]:
        vector = [0.0] * self._dimensions
        for feature, weight in _features(text.casefold()):
            number = int.from_bytes(blake2b(feature.encode(errors="replace"), digest_size=8).digest(), "big")
            vector[(number >> 1) % self._dimensions] += weight if number & 1 else -weight
        length = sqrt(sum(value * value for value in vector))
        return [value / length for value in vector] if length else vector


def _features(text: str) -> Iterator[tuple[str, float]]:
    for word in _WORD.findall(text):
        yield word, 1.0
        framed = f"^{word}$"
        for start in range(len(framed) - 2):
            yield "#" + framed[start : start + 3], 0.3
