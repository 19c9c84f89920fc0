"""Statements that run all the time find their rows through an index made for them, however many old tasks there are."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, Executable, bindparam, select, text, update

from ops_core.ports import TaskFilter
from ops_core.stores import migrations, open_store
from ops_core.stores.dialects import now
from ops_core.stores.sql import leases, maintenance, queries, stats, steps, workers
from ops_core.stores.tables import task as t
from ops_core.task import TaskStatus

FILL_OPEN = """INSERT INTO task (id, tenant, agent, status, input, labels, priority, run_after, max_attempts,
    created_at, updated_at) SELECT 'new-' || n, 'tenant-' || (n % {tenants}), 'agent', 'pending', '1', '{{}}', n % 3, n,
    5, 1.0, 1.0 FROM {numbers}"""
FILL = """INSERT INTO task (id, tenant, agent, status, input, labels, priority, run_after, max_attempts, created_at,
    updated_at, finished_at) SELECT 'old-' || n, 'tenant', 'agent', 'completed', '1', '{{}}', 0, 1.0, 5, 1.0, 1.0,
    1.0 + n FROM {numbers}"""
NUMBERS = {
    "sqlite": """(WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n < {last})
        SELECT n FROM numbers) AS numbers""",
    "postgresql": "generate_series({first}, {last}) AS numbers(n)",
}


def fill(connection: Connection, first: int, last: int) -> None:
    numbers = NUMBERS[connection.dialect.name].format(first=first, last=last)
    connection.execute(text(FILL.format(numbers=numbers)))


def analyse(connection: Connection) -> None:
    connection.execute(text("ANALYZE"))


def new(_connection: Connection) -> None:
    """Nothing was ever stored, and nobody has counted."""


def unanalysed(connection: Connection) -> None:
    fill(connection, 1, 5000)


def small(connection: Connection) -> None:
    fill(connection, 1, 3)
    analyse(connection)


def stale(connection: Connection) -> None:
    """Counted after a quiet night, in a burst."""
    small(connection)
    fill(connection, 4, 5000)


def analysed(connection: Connection) -> None:
    fill(connection, 1, 5000)
    analyse(connection)


def burst(connection: Connection) -> None:
    """Many tasks wait in few lines, and nobody has counted them."""
    small(connection)
    numbers = NUMBERS[connection.dialect.name].format(first=1, last=5000)
    connection.execute(text(FILL_OPEN.format(numbers=numbers, tenants=1)))


def burst_of_many(connection: Connection) -> None:
    """Many tasks wait in many lines, and nobody has counted them."""
    numbers = NUMBERS[connection.dialect.name].format(first=1, last=5000)
    connection.execute(text(FILL_OPEN.format(numbers=numbers, tenants=2500)))


@contextmanager
def filled(url: str, with_: Callable[[Connection], None]) -> Iterator[Connection]:
    store = open_store(url)
    migrations.upgrade(store)
    engine = store.migration_engine
    with engine.begin() as connection:
        with_(connection)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    with filled(url, analysed) as connection:
        yield connection


@pytest.fixture(params=[new, unanalysed, small, stale, burst, burst_of_many, analysed])
def whatever_was_counted(request, url: str) -> Iterator[Connection]:
    with filled(url, request.param) as connection:
        yield connection


BY_ID: dict[str, Executable] = {
    "a step": steps._append._statement,
    "an end": steps._finish._statement,
    "a task": queries._one_task,
    "a task and whether it asks": queries._one_task_asked,
    "a task that is let go": update(t).where(*steps.fence).values(lease_owner=None),
}


def test_a_task_is_found_by_its_key_whatever_was_counted(whatever_was_counted: Connection):
    key = "sqlite_autoindex_task_1 (id=?)" if whatever_was_counted.dialect.name == "sqlite" else "pk_task"
    for which, statement in BY_ID.items():
        found = plan(whatever_was_counted, statement, **KEY)
        assert key in found, which
        assert "ix_task" not in found, which
        assert "Seq Scan" not in found, which
        assert "SCAN task" not in found, which


TOGETHER = {"steps": steps._append, "ends": steps._finish, "renewals": leases.RENEW}


@pytest.mark.parametrize("database", ["postgresql"])
def test_tasks_are_found_together_by_their_keys_whatever_was_counted(whatever_was_counted: Connection):
    for which, many in TOGETHER.items():
        assert many._together is not None
        found = plan(whatever_was_counted, many._together.statement)
        assert {*re.findall(r"Scan (?:using|on) (\w+)", found)} <= {"pk_task", "task", "given"}, (
            which,
            found,
        )
        assert re.search(r"Index Cond: .*\(id\)::text = ANY", found), (which, found)
        assert "Seq Scan" not in found, which


KEY = {"of_task": "old-1", "of_tenant": "tenant", "of_epoch": 1}


def test_steps_are_found_by_the_key_of_their_task_whatever_was_counted(whatever_was_counted: Connection):
    found = plan(whatever_was_counted, queries._steps_after, of_task="old-1", of_tenant="tenant", after=3)
    key = "sqlite_autoindex_step_1" if whatever_was_counted.dialect.name == "sqlite" else "pk_step"
    assert key in found
    assert "Seq Scan" not in found


@pytest.mark.parametrize(
    "wanted, index",
    [
        (TaskFilter(), "ix_task_listed"),
        (TaskFilter(status=(TaskStatus.FAILED,)), "ix_task_listed_by_status"),
        (TaskFilter(agent="another"), "ix_task_listed_by_agent"),
    ],
)
def test_a_list_begins_at_its_place(connection: Connection, wanted, index):
    conditions = queries.conditions_of("tenant", replace(wanted, before="old-2"))
    found = plan_for_values(connection, queries._page_of_tasks(conditions, wanted))
    assert re.search(rf"(using|INDEX) {index}\b", found)
    if connection.dialect.name == "postgresql":
        assert re.search(r"Index Cond: .*id.*<", found)


def plan(connection: Connection, statement: Executable, **given: object) -> str:
    """How the database goes about it, as it would with a prepared statement that knows none of its values."""
    if connection.dialect.name == "sqlite":
        return plan_for_values(connection, statement, **given)
    compiled: Any = statement.compile(connection.engine, compile_kwargs={"render_postcompile": True})  # type: ignore[attr-defined]
    connection.execute(text("SET LOCAL enable_sort = off"))  # the tables of a test are too small to mind
    names = list(compiled.params)
    numbered = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", str(compiled))
    rows = connection.exec_driver_sql("EXPLAIN (GENERIC_PLAN) " + numbered)
    return "\n".join(str(row[0]) for row in rows)


def plan_for_values(connection: Connection, statement: Executable, **given: object) -> str:
    """How the database goes about it, as it would with a statement that is not prepared."""
    compiled: Any = statement.compile(connection.engine, compile_kwargs={"render_postcompile": True})  # type: ignore[attr-defined]
    values = {
        **compiled.params,
        **{name: 1 for name, value in compiled.params.items() if value is None},
        **given,
    }
    if connection.dialect.name == "sqlite":
        bound = tuple(values[name] for name in compiled.positiontup)
        rows = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + str(compiled), bound)
        return "\n".join(str(row[-1]) for row in rows)
    connection.execute(text("SET LOCAL enable_sort = off"))  # as above
    rows = connection.exec_driver_sql("EXPLAIN " + str(compiled), values)
    return "\n".join(str(row[0]) for row in rows)


LINE = {"of_tenant": "tenant", "of_agent": "agent", "of_priority": 0}


def test_a_claim_looks_at_what_is_due_in_its_lines_only(whatever_was_counted: Connection):
    postgresql = whatever_was_counted.dialect.name == "postgresql"
    for claim in (leases.CLAIM_OF_LINE, leases.CLAIM_OF_LINES) if postgresql else (leases.CLAIM_OF_LINE,):
        found = plan(whatever_was_counted, claim, **LINE, slots=5, by="me", seconds=1.0)
        assert "ix_task_due" in found
        assert "ix_task_listed" not in found
        assert "SCAN task" not in found
        assert "Seq Scan on task" not in found
        assert "Bitmap" not in found
        assert not re.search(r"Hash |Merge ", found), found
        assert not postgresql or re.search(r"Index Cond: \(\(id\)::text = .*(due.id|InitPlan)", found), found


LOOKS: dict[str, tuple[Executable, dict[str, object]]] = {
    "the next lines": (leases.lines_of(("agent", "other")), {"after_tenant": "", "slots": 5}),
    "a lower priority": (leases.LOWER_LINE, LINE),
    "any line": (leases.ANY_LINE, {"after_tenant": "", "slots": 1}),
    "agents with something due": (leases.DUE_AGENTS, {"after_tenant": "", "slots": 1}),
}


def test_lines_are_found_without_a_look_at_their_tasks(whatever_was_counted: Connection):
    for which, (statement, given) in LOOKS.items():
        found = plan(whatever_was_counted, statement, **given)
        assert "ix_task_due" in found, which
        assert "ix_task_listed" not in found, which
        assert "Hash " not in found, which  # a join; the lines that were found may be made distinct by one
        assert "Seq Scan on task" not in found, which
        assert "SCAN task" not in found, which


@pytest.mark.parametrize("database", ["postgresql"])
def test_lower_lines_are_found_together(whatever_was_counted: Connection):
    found = plan(whatever_was_counted, leases.LOWER_LINES)
    assert "ix_task_due" in found
    assert not re.search(r"ix_task_(?!due)|Seq Scan on task|Bitmap", found), found


def test_what_waits_is_counted_through_an_index_of_its_own(whatever_was_counted: Connection):
    found = plan(whatever_was_counted, stats.UNHELD)
    assert "ix_task_counted" in found
    assert not re.search(r"ix_task_(?!counted)|Seq Scan|Bitmap|SCAN task", found), found


def test_the_sweeper_looks_at_what_is_running_or_late_only(connection: Connection):
    assert "ix_task_lease" in plan(connection, maintenance.LEASES_RUN_OUT)
    late = plan(connection, maintenance.OUT_OF_TIME)
    assert (
        "ix_task_deadline" in late or "ix_task_due" in late
    )  # both hold open tasks only; there are none here


def test_old_tasks_are_found_by_the_moment_of_their_end(connection: Connection):
    old = (
        select(t.c.id).where(t.c.finished_at < now() - bindparam("older")).order_by(t.c.finished_at).limit(5)
    )
    assert "ix_task_finished" in plan(connection, old, older=10.0)


OF_WORKERS = [
    (workers.OLDEST_WAITING, "ix_task_waiting"),
    (workers.OLDEST_RUNNING, "ix_task_lease"),
    (workers.COUNT_WORKERS, "ix_task_lease"),
    (workers._owners, "ix_task_lease"),
]


def test_workers_and_the_oldest_tasks_are_found_without_a_look_at_the_others(
    request, whatever_was_counted: Connection
):
    sqlite = whatever_was_counted.dialect.name == "sqlite"
    for statement, wanted in OF_WORKERS:
        index = wanted
        if small.__name__ in request.node.name and whatever_was_counted.dialect.name == "postgresql":
            index = "ix_task"  # of three rows any index will do; it plans anew when the table has grown
        if sqlite and any(state.__name__ in request.node.name for state in (small, stale, burst)):
            continue  # nothing of ours analyses a file
        found = plan(whatever_was_counted, statement)
        assert index in found
        assert index == "ix_task" or "ix_task_listed" not in found
        assert "Seq Scan on task" not in found
        assert "SCAN task" not in re.sub(f"SCAN task USING INDEX {index}", "", found)
