"""Statements that run all the time find their rows through an index made for them, however many old tasks there are."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Executable, bindparam, select, text

from ops_core.stores import migrations, open_store
from ops_core.stores.dialects import now
from ops_core.stores.sql import leases, upkeep
from ops_core.stores.tables import task as t

FILL = """INSERT INTO task (id, tenant, agent, status, input, labels, priority, run_after, max_attempts, created_at,
    updated_at, finished_at) SELECT 'old-' || n, 'tenant', 'agent', 'completed', '1', '{{}}', 0, 1.0, 5, 1.0, 1.0,
    1.0 + n FROM {numbers}"""
NUMBERS = {
    "sqlite": """(WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 5000)
        SELECT n FROM numbers) AS numbers""",
    "postgresql": "generate_series(1, 5000) AS numbers(n)",
}


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    store = open_store(url)
    migrations.upgrade(store)
    engine = store.migration_engine
    with engine.begin() as connection:
        connection.execute(text(FILL.format(numbers=NUMBERS[connection.dialect.name])))
        connection.execute(text("ANALYZE"))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def plan(connection: Connection, statement: Executable, **given: object) -> str:
    """How the database goes about it, as it would with a prepared statement that knows none of its values."""
    compiled = statement.compile(connection.engine)  # type: ignore[attr-defined]
    if connection.dialect.name == "sqlite":
        values = {**compiled.params, **given}
        bound = tuple(values[name] for name in compiled.positiontup)
        rows = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + str(compiled), bound)
        return "\n".join(str(row[-1]) for row in rows)
    connection.execute(text("SET LOCAL plan_cache_mode = force_generic_plan"))
    connection.execute(text("SET LOCAL enable_sort = off"))  # the tables of a test are too small to mind
    rows = connection.exec_driver_sql("EXPLAIN " + str(compiled), {**compiled.params, **given})
    return "\n".join(str(row[0]) for row in rows)


def test_a_claim_looks_at_what_is_due_in_its_line_only(connection: Connection):
    of = {
        "of_tenant": "tenant",
        "of_agent": "agent",
        "of_priority": 0,
        "slots": 5,
        "by": "me",
        "seconds": 1.0,
    }
    found = plan(connection, leases.CLAIM_OF_LINE, **of)
    assert "ix_task_due" in found
    assert "ix_task_listed" not in found
    assert "SCAN task" not in found
    assert "Seq Scan on task" not in found


def test_the_lines_are_found_without_a_look_at_their_tasks(connection: Connection):
    found = plan(connection, leases.LINES_AFTER, after_tenant="", after_agent="", after_priority=0)
    assert found.count("ix_task_due") == 3
    assert "ix_task_listed" not in found
    assert "Seq Scan on task" not in found


def test_the_sweeper_looks_at_what_is_running_or_late_only(connection: Connection):
    assert "ix_task_lease" in plan(connection, upkeep.LEASES_RUN_OUT)
    late = plan(connection, upkeep.OUT_OF_TIME)
    assert (
        "ix_task_deadline" in late or "ix_task_due" in late
    )  # both hold open tasks only; there are none here


def test_old_tasks_are_found_by_the_moment_of_their_end(connection: Connection):
    old = (
        select(t.c.id).where(t.c.finished_at < now() - bindparam("older")).order_by(t.c.finished_at).limit(5)
    )
    assert "ix_task_finished" in plan(connection, old, older=10.0)
