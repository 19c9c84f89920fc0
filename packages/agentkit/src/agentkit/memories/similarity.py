"""The most similar vectors, exactly: every one is looked at.

Vectors are stored as 32-bit floats of length 1, so that their product is the cosine of the angle between them.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from heapq import nlargest
from itertools import islice
from math import isfinite, sqrt
from operator import mul
from typing import Any, TypeVar

Id = TypeVar("Id")

TOGETHER = 256
"""So many vectors are compared at a time: few enough for the cache of a processor, which halves the time."""


def packed(vector: Sequence[float]) -> bytes:
    """A vector as it is stored: of length 1, little endian. One of zeros stays one.

    Raises:
        ValueError: it holds something that is no number.
    """
    length = sqrt(sum(value * value for value in vector))
    if not isfinite(length):
        message = "a vector holds something that is no number"
        raise ValueError(message)
    values = array("f", [value / length for value in vector] if length else vector)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def nearest(query: bytes, rows: Iterable[tuple[Id, bytes]], limit: int) -> list[tuple[Id, float]]:
    """The ids of the most similar rows with their scores, the most similar one first.

    Args:
        query: packed.
        rows: ids and packed vectors; those of another length are left out.
        limit: so many at most.
    """
    if limit < 1:
        return []
    fitting = ((id_, vector) for id_, vector in rows if len(vector) == len(query))
    try:
        import numpy as np  # an extra
    except ModuleNotFoundError:
        scored = _alone(query, fitting)
    else:
        scored = _with_numpy(np, query, fitting, limit)
    return nlargest(limit, scored, key=lambda found: found[1])


def unpacked(vector: bytes) -> array[float]:
    """A vector that was packed."""
    values = array("f")
    values.frombytes(vector)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _alone(query: bytes, rows: Iterable[tuple[Id, bytes]]) -> Iterator[tuple[Id, float]]:
    wanted = unpacked(query)
    return ((id_, float(sum(map(mul, wanted, unpacked(vector))))) for id_, vector in rows)


def _with_numpy(
    np: Any, query: bytes, rows: Iterable[tuple[Id, bytes]], limit: int
) -> Iterator[tuple[Id, float]]:
    wanted: Any = np.frombuffer(query, dtype="<f4")
    rows = iter(rows)
    while some := list(islice(rows, TOGETHER)):
        joined: Any = np.frombuffer(b"".join(vector for _id, vector in some), dtype="<f4")
        scores = joined.reshape(len(some), -1) @ wanted
        best = np.argpartition(-scores, limit)[:limit] if len(some) > limit else range(len(some))
        for place in best:
            yield some[int(place)][0], float(scores[place])
