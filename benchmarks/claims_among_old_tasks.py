"""A claim among many tasks that have ended: what it costs, and how the database finds the rows.

python benchmarks/claims_among_old_tasks.py             with 1,000 and with 1,000,000 old tasks, on both databases
python benchmarks/claims_among_old_tasks.py 10000000    with another number
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

from harness import Numbers, Report, percentile
from sqlalchemy import Connection, text
from tasks_sqlite import fresh_file

from ops_core.stores import SqlStore, migrations, open_store
from ops_core.stores.dialects import is_file
from ops_core.stores.sql import leases
from ops_core.task import NewTask
from ops_core.testing.servers.postgresql import PostgresServer

CLAIMS = 200
AGENTS = ("a", "b", "c")

OLD = """INSERT INTO task (id, tenant, agent, status, input, output, labels, priority, run_after, max_attempts, epoch,
    attempt, steps, created_at, updated_at, started_at, finished_at)
    SELECT 'old-' || n, 'tenant-' || (n % 50), 'agent-' || (n % 7),
    CASE n % 10 WHEN 0 THEN 'failed' ELSE 'completed' END, '"go"', '"done"', '{{}}', 0, NULL, 5, 1, 1, 3,
    1e9 + n, 1e9 + n, 1e9 + n, 1e9 + n FROM {numbers}"""
NUMBERS = {
    "sqlite": """(WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})
        SELECT n FROM numbers) AS numbers""",
    "postgresql": "generate_series(1, {count}) AS numbers(n)",
}


def fill(store: SqlStore, count: int) -> None:
    with store.migration_engine.begin() as connection:
        numbers = NUMBERS[connection.dialect.name].format(count=count)
        connection.execute(text(OLD.format(numbers=numbers)))
    if not is_file(store.url):
        with store.migration_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE task"))


async def measured(store: SqlStore) -> Numbers:
    async with store:
        for number in range(CLAIMS):
            await store.insert(NewTask(agent=AGENTS[number % 3], tenant=f"tenant-{number % 5}", input="go"))
        claims = await _seconds(CLAIMS, lambda: store.claim("me", 1, 60.0, AGENTS))
        nothing = await _seconds(50, lambda: store.claim("me", 1, 60.0, AGENTS))
        sweeps = await _seconds(20, store.sweep)
    found = {"claim": claims, "claim of nothing": nothing, "sweep": sweeps}
    return {f"{name}, p50 ms": 1000 * percentile(seconds, 50) for name, seconds in found.items()}


async def _seconds(count: int, work: Callable[[], Awaitable[object]]) -> Sequence[float]:
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        await work()
        seconds.append(time.perf_counter() - began)
    return seconds


def plan(connection: Connection) -> list[str]:
    """How the database finds the tasks of one line."""
    given = {
        "of_tenant": "tenant-1",
        "of_agent": "a",
        "of_priority": 0,
        "slots": 10,
        "by": "me",
        "seconds": 60.0,
    }
    compiled = leases.CLAIM_OF_LINE.compile(connection.engine)
    explain = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
    values = {**compiled.params, **given}
    bound = tuple(values[name] for name in compiled.positiontup) if compiled.positional else values
    rows = connection.exec_driver_sql(explain + str(compiled), bound).all()
    return [str(row[-1]) for row in rows]


def on_sqlite(count: int) -> Numbers:
    with fresh_file() as path:
        return _on(f"sqlite:///{path}", count)


def on_postgresql(server: PostgresServer, count: int) -> Numbers:
    with server.database() as name:
        return _on(server.url(name), count)


def _on(url: str, count: int) -> Numbers:
    store = open_store(url)
    migrations.upgrade(store)
    fill(store, count)
    found = asyncio.run(measured(store))
    with open_store(url).migration_engine.connect() as connection:
        for line in plan(connection):
            print(f"    {line}", file=sys.stderr)
    return found


def main(many: int) -> None:
    report = Report("claims_among_old_tasks", max_seconds=1800)
    with PostgresServer() as server:
        for who, measure in (
            ("SQLite", on_sqlite),
            ("PostgreSQL, without fsync", lambda count: on_postgresql(server, count)),
        ):
            measures = {
                f"{who}, {count:,} old tasks": (lambda count=count, measure=measure: measure(count))
                for count in (1000, many)
            }
            report.compare("one task at a time", measures, rounds=3, seconds=1, warm_up=False)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
