"""The only way in which the schema comes to be."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from ops_core.assembly import open_ops
from ops_core.config.catalog import Catalog
from ops_core.errors import SchemaMismatch, StoreUnavailable
from ops_core.settings import Settings
from ops_core.stores import REVISION, migrate_if_needed, migrations, open_store
from ops_core.stores.tables import metadata
from ops_core.testing.servers.postgresql import PostgresServer
from ops_core.testing.store_contract.examples import current, submitted

Result = TypeVar("Result")
PACKAGE = Path(__file__).parents[1]

# an index of expressions is compared by its statement
pytestmark = [
    pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index"),
    pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index"),
]


def look(url: str, work: Callable[[Connection], Result]) -> Result:
    """What ``work`` finds in the database, past the store."""
    store = open_store(url)
    try:
        with store.migration_engine.begin() as connection:
            return work(connection)
    finally:
        store.disconnect()


def tables(url: str) -> set[str]:
    """The names of tables and indexes."""

    def names(connection: Connection) -> set[str]:
        found = inspect(connection)
        held = found.get_table_names()
        return {*held, *(str(index["name"]) for table in held for index in found.get_indexes(table))}

    return look(url, names)


def execute(url: str, statement: str) -> None:
    look(url, lambda connection: connection.execute(text(statement)))


def test_there_is_one_head_and_this_release_works_with_it():
    assert ScriptDirectory.from_config(migrations.config()).get_heads() == [REVISION]


def test_up_down_and_up_again(url: str):
    store = open_store(url)
    assert store.revision() is None
    migrations.upgrade(store)
    assert store.revision() == REVISION
    full = tables(url)
    assert {"task", "step", "task_label"} < full
    migrations.downgrade(store, "base")
    assert store.revision() is None
    assert tables(url) == {"alembic_version"}
    migrations.upgrade(store)
    migrations.upgrade(store)
    assert (store.revision(), tables(url)) == (REVISION, full)


async def test_a_migration_keeps_the_tasks(url: str):
    store = open_store(url)
    migrations.upgrade(store)
    async with store:
        task = await submitted(store)
    migrate_if_needed(store)
    migrations.upgrade(store)
    async with store:
        assert await current(store, task) == task


def test_the_tables_and_the_migrations_say_the_same(url: str):
    migrations.upgrade(open_store(url))

    def compare(connection: Connection) -> list[Any]:
        options = {"compare_type": True, "compare_server_default": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    # no reflection tells that an index is descending, or its collation; the next tests compare these
    apart = {
        "ix_task_due",
        "ix_task_counted",
        "ix_task_listed",
        "ix_task_listed_by_status",
        "ix_task_listed_by_agent",
    }
    assert [change for change in look(url, compare) if change[1].name not in apart] == []


def assert_made_alike(migrated: str, made: str, wanted: str) -> None:
    """Also what the comparison above cannot see: expressions and conditions of indexes, the order of columns."""

    def statements(url: str) -> set[str]:
        rows = look(url, lambda connection: connection.execute(text(wanted)).scalars().all())
        return {" ".join(row.split()) for row in rows if "alembic" not in row}

    migrations.upgrade(open_store(migrated))
    look(made, metadata.create_all)
    assert statements(migrated) == statements(made)
    assert len(statements(made)) > 10


def test_the_tables_and_the_migrations_make_the_same_statements_on_sqlite(file_url: str, tmp_path: Path):
    wanted = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"
    assert_made_alike(file_url, f"sqlite:///{tmp_path}/made.db", wanted)


def test_the_tables_and_the_migrations_make_the_same_statements_on_postgresql(postgres: PostgresServer):
    wanted = """
        SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION SELECT conrelid::regclass || pg_get_constraintdef(oid) FROM pg_constraint
        UNION SELECT concat_ws(' ', table_name, ordinal_position, column_name, data_type,
            character_maximum_length, is_nullable, column_default)
            FROM information_schema.columns WHERE table_schema = 'public'
    """
    with postgres.database() as migrated, postgres.database() as made:
        assert_made_alike(postgres.url(migrated), postgres.url(made), wanted)


# --- another schema ----------------------------------------------------------------------------------------------


async def test_a_database_without_a_schema_is_to_be_migrated(url: str):
    async with open_store(url) as store:
        with pytest.raises(SchemaMismatch, match=r"no schema.*opspawn migrate"):
            await store.check()


async def test_an_older_schema_is_to_be_migrated(url: str):
    store = open_store(url)
    migrations.upgrade(store)
    execute(url, "UPDATE alembic_version SET version_num = '0000'")
    async with store:
        with pytest.raises(SchemaMismatch, match=f"0000.*{REVISION}"):
            await store.check()


async def test_a_newer_schema_is_left_alone(url: str):
    store = open_store(url)
    migrations.upgrade(store)
    execute(url, "UPDATE alembic_version SET version_num = '9999'")
    for act in (migrations.upgrade, migrate_if_needed):
        with pytest.raises(SchemaMismatch, match=r"9999.*upgrade Opspawn"):
            act(store)
    with pytest.raises(SchemaMismatch, match="9999"):
        migrations.downgrade(store, "base")
    async with store:
        with pytest.raises(SchemaMismatch, match="9999"):
            await store.check()
    with pytest.raises(SchemaMismatch, match="9999"):
        async with open_ops(Settings(store_url=url), Catalog()):
            pass
    assert "task" in tables(url)


@pytest.mark.parametrize("table", ["task", "customers"])
def test_a_database_of_something_else_is_left_alone(url: str, table: str):
    execute(url, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT)")
    with pytest.raises(SchemaMismatch, match=table):
        migrations.upgrade(open_store(url))
    assert tables(url) == {table}


async def test_without_leave_to_migrate_the_operator_is_told(url: str):
    with pytest.raises(SchemaMismatch, match="opspawn migrate"):
        async with open_ops(Settings(store_url=url, auto_migrate=False), Catalog()):
            pass


@pytest.mark.parametrize("database", ["postgresql"])
async def test_a_schema_that_processes_share_is_migrated_on_purpose_only(url: str):
    with pytest.raises(SchemaMismatch, match="opspawn migrate"):
        async with open_ops(Settings(store_url=url), Catalog()):
            pass


# --- the database refuses ----------------------------------------------------------------------------------------


def test_a_file_that_is_no_database(file_url: str, tmp_path: Path):
    (tmp_path / "ops.db").write_bytes(b"This is a letter to my mother.\n" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        migrations.upgrade(open_store(file_url))


def test_a_folder_that_does_not_exist(tmp_path: Path):
    with pytest.raises(StoreUnavailable, match="unable to open"):
        migrations.upgrade(open_store(f"sqlite:///{tmp_path}/nowhere/ops.db"))


def test_a_database_that_may_only_be_read(file_url: str, tmp_path: Path):
    migrations.upgrade(open_store(file_url))
    migrations.downgrade(open_store(file_url), "base")
    with pytest.raises(StoreUnavailable, match="readonly"):
        migrations.upgrade(open_store(f"sqlite:///file:{tmp_path}/ops.db?mode=ro&uri=true"))
    execute(file_url, "SELECT 1")


# --- many at once, and from a wheel ------------------------------------------------------------------------------


MIGRATE = """
import sys
from ops_core.stores import migrations, open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
migrations.upgrade(store)
print(store.revision())
"""


def test_processes_that_migrate_one_database_at_once(url: str):
    command = [sys.executable, "-c", MIGRATE, url]
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        workers = [
            stack.enter_context(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
            for _ in range(3)
        ]
        for worker in workers:
            stack.callback(worker.kill)  # before it is waited for, where an assertion does not hold
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        for worker in workers:
            said, complaint = worker.communicate(timeout=60)
            assert (said, complaint, worker.returncode) == (f"{REVISION}\n", "", 0)


def test_the_wheel_holds_the_migrations(tmp_path: Path):
    subprocess.run(
        [sys.executable, "-c", "import sys, uv_build; print(uv_build.build_wheel(sys.argv[1]))", tmp_path],
        cwd=PACKAGE,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    wanted = {
        path.relative_to(PACKAGE / "src").as_posix()
        for path in (PACKAGE / "src/ops_core").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted <= held
    assert "ops_core/stores/migrations/versions/0001_tasks_and_steps.py" in held
