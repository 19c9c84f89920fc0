"""How long does it take to recall 5 of N notes of one scope, on both databases, with and without numpy and pgvector?

python benchmarks/recall_notes.py [--notes 100000] [--dimensions 384]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from sqlalchemy import insert, text

from agentkit.memories.similarity import packed
from agentkit.ports import Scope
from ops_core.stores import SqlStore, migrations
from ops_core.stores.tables import note
from ops_core.testing import open_test_store
from ops_core.testing.servers.postgresql import PostgresServer

SCOPE = Scope(agent="clerk", key="kim")
ROUNDS = 7


def rows(count: int, dimensions: int) -> Iterator[list[dict[str, Any]]]:
    """Notes as hashes order them, a thousand at a time; every tenth is of somebody else."""
    chance = np.random.default_rng(1)
    for _ in range(0, count, 1000):
        vectors = chance.normal(size=(1000, dimensions)).astype("<f4")
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        of_others = {"tenant": "default", "agent": "clerk", "source": "run 1", "at": 0.0, "embedder": "e"}
        yield [
            {
                **of_others,
                "key": key,
                "id": chance.bytes(16).hex(),
                "text": "x" * 100,
                "vector": one.tobytes(),
            }
            for number, one in enumerate(vectors)
            for key in (("kim", "jo") if number % 10 == 0 else ("kim",))
        ]


def fill(store: SqlStore, count: int, dimensions: int) -> None:
    with store.migration_engine.begin() as connection:
        for some in rows(count, dimensions):
            connection.execute(insert(note), some)
        connection.execute(text("ANALYZE"))  # as autovacuum does by itself


async def measured(store: SqlStore, query: bytes) -> float:
    took: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        assert len(await store.find_notes(SCOPE, query, "e", 5)) == 5
        took.append(time.perf_counter() - began)
    return median(took)


def tell(what: str, seconds: float, **fields: Any) -> None:
    print(json.dumps({"what": what, "seconds": round(seconds, 3), **fields}), flush=True)


async def compared(store: SqlStore, name: str, query: bytes, **fields: Any) -> None:
    tell(name, await measured(store, query), **fields)
    kept, sys.modules["numpy"] = sys.modules["numpy"], None  # type: ignore[assignment]
    try:
        tell(f"{name}, no numpy", await measured(store, query), **fields)
    finally:
        sys.modules["numpy"] = kept


@asynccontextmanager
async def filled(url: str, count: int, dimensions: int) -> AsyncIterator[SqlStore]:
    async with open_test_store(url) as store:
        fill(store, count, dimensions)
        yield store


async def main(count: int, dimensions: int) -> None:
    chance = random.Random(2)
    query = packed([chance.gauss(0, 1) for _ in range(dimensions)])
    fields = {"notes": count, "dimensions": dimensions}
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER")) as folder:
        async with filled(f"sqlite:///{Path(folder) / 'x.db'}", count, dimensions) as store:
            await compared(store, "SQLite", query, **fields)
    with PostgresServer() as server, server.database() as name:
        async with filled(server.url(name), count, dimensions) as store:
            await compared(store, "PostgreSQL", query, **fields)
            server.execute("CREATE EXTENSION vector", name)
            began = time.perf_counter()
            assert migrations.adopt_extensions(store)
            tell("PostgreSQL: `opspawn migrate` after CREATE EXTENSION vector", time.perf_counter() - began)
            server.execute("VACUUM ANALYZE note", name)
            tell("PostgreSQL, pgvector", await measured(store, query), **fields)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--notes", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=384)
    given = parser.parse_args()
    asyncio.run(main(given.notes, given.dimensions))
