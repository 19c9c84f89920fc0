"""Which driver carries the hot statements of the store quickest? The same SQL by hand, without SQLAlchemy.

    .venv/bin/pip install asyncpg
    .venv/bin/python benchmarks/drivers_postgresql.py

Durable (fsync on), over a Unix socket, one connection. `single`: each statement is a transaction; `together`: so many
as a combined transaction of the writer holds. psycopg works on a thread, as in the store, asyncpg on the event loop.
"""

import asyncio
import time
import uuid

import asyncpg
import psycopg
from harness import Numbers, Report

from ops_core.stores import migrations, open_store
from ops_core.testing.servers.postgresql import PostgresServer

TASKS = 400
TOGETHER = 100
BODY = '{"kind":"model_replied","text":"' + "x" * 400 + '"}'
NOW = "CAST(extract(epoch FROM statement_timestamp()) AS double precision)"
SQL = {
    "insert": f"""INSERT INTO task (id, tenant, agent, status, input, labels, priority, max_attempts, created_at,
        updated_at, run_after) VALUES ($1, 'default', 'agent', 'pending', '1', '{{}}', 0, 3, {NOW}, {NOW}, {NOW})
        RETURNING created_at""",
    "claim": f"""WITH due AS (SELECT id FROM task WHERE status IN ('pending', 'waiting') AND run_after <= {NOW}
        AND id >= $1 ORDER BY priority DESC, run_after, id LIMIT 1 FOR UPDATE SKIP LOCKED)
        UPDATE task SET status = 'running', epoch = epoch + 1, lease_owner = 'me', lease_until = {NOW} + 30
        WHERE id IN (SELECT id FROM due) RETURNING task.*""",
    "append": f"""UPDATE task SET steps = steps + 1, updated_at = {NOW} WHERE id = $1 AND status = 'running'
        RETURNING tenant, steps, updated_at""",
    "step": """INSERT INTO step (tenant, task_id, seq, epoch, at, kind, body)
        VALUES ('default', $1, $2, 1, $3, 'model_replied', $4)""",
    "finish": f"""UPDATE task SET steps = steps + 1, updated_at = {NOW}, status = 'completed', output = '1',
        lease_owner = NULL, finished_at = {NOW} WHERE id = $1 AND status = 'running'
        RETURNING tenant, steps, updated_at""",
}
VERBS = ("insert", "claim", "append", "finish")


def verbs(ids: list[str], together: int) -> list[tuple[str, list[str]]]:
    """Each verb for all tasks, in groups that share a transaction."""
    return [(verb, ids[at : at + together]) for verb in VERBS for at in range(0, len(ids), together)]


def new_ids() -> list[str]:
    return sorted(str(uuid.uuid4()) for _ in range(TASKS))


def with_psycopg(url: str, together: int, *, pipelined: bool = False) -> Numbers:
    spent = dict.fromkeys(VERBS, 0.0)
    with psycopg.connect(url, cursor_factory=psycopg.RawCursor) as connection:
        connection.execute("TRUNCATE task, step, task_label")
        connection.commit()
        for verb, ids in verbs(new_ids(), together):
            begun = time.perf_counter()
            with connection.transaction():
                if pipelined:
                    _pipelined(connection, verb, ids)
                else:
                    for one in ids:
                        row = connection.execute(SQL[verb], [one if verb != "claim" else "0"]).fetchone()
                        if verb in ("append", "finish"):
                            connection.execute(SQL["step"], [one, row[1] - 1, row[2], BODY])
            spent[verb] += time.perf_counter() - begun
    return _rates(spent)


def _pipelined(connection: psycopg.Connection, verb: str, ids: list[str]) -> None:
    """All first statements without waiting for an answer in between, then all second ones."""
    with connection.pipeline():
        cursors = [connection.execute(SQL[verb], [one if verb != "claim" else "0"]) for one in ids]
        rows = [cursor.fetchone() for cursor in cursors]
        if verb in ("append", "finish"):
            for one, row in zip(ids, rows, strict=True):
                connection.execute(SQL["step"], [one, row[1] - 1, row[2], BODY])


async def with_asyncpg(url: str, together: int) -> Numbers:
    spent = dict.fromkeys(VERBS, 0.0)
    connection = await asyncpg.connect(url)
    await connection.execute("TRUNCATE task, step, task_label")
    statements = {name: await connection.prepare(statement) for name, statement in SQL.items()}
    for verb, ids in verbs(new_ids(), together):
        begun = time.perf_counter()
        async with connection.transaction():
            for one in ids:
                row = await statements[verb].fetchrow(one if verb != "claim" else "0")
                if verb in ("append", "finish"):
                    await statements["step"].fetchrow(one, row[1] - 1, row[2], BODY)
        spent[verb] += time.perf_counter() - begun
    await connection.close()
    return _rates(spent)


def _rates(spent: dict[str, float]) -> Numbers:
    return {f"{verb}/s": TASKS / seconds for verb, seconds in spent.items()}


def main() -> None:
    report = Report("drivers_postgresql", max_seconds=300)
    with PostgresServer(durable=True) as server, server.database() as name:
        url = server.url(name)
        migrations.upgrade(open_store(url))
        for question, together in (("single", 1), ("together", TOGETHER)):

            def psycopg_(count: int = together) -> Numbers:
                return asyncio.run(asyncio.to_thread(with_psycopg, url, count))

            def pipelined(count: int = together) -> Numbers:
                return asyncio.run(asyncio.to_thread(with_psycopg, url, count, pipelined=True))

            def asyncpg_(count: int = together) -> Numbers:
                return asyncio.run(with_asyncpg(url, count))

            measures = {"psycopg": psycopg_, "asyncpg": asyncpg_, "psycopg, pipelined": pipelined}
            report.compare(question, measures, rounds=5)


if __name__ == "__main__":
    main()
