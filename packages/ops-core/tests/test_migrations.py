"""The only way in which the schema comes to be."""

import os
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from ops_core.assembly import migrate_if_needed, open_ops
from ops_core.catalog import Catalog
from ops_core.errors import SchemaMismatch, StoreUnavailable
from ops_core.settings import Settings
from ops_core.stores import REVISION, migrations, open_store
from ops_core.stores.tables import metadata
from ops_core.testing.examples import current, submitted

PACKAGE = Path(__file__).parents[1]


def tables(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    try:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'index')")
        return {name for (name,) in found if not name.startswith("sqlite_")}
    finally:
        connection.close()


def execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


@pytest.fixture
def path(tmp_path: Path, url: str) -> Path:
    return tmp_path / "ops.db"


def test_there_is_one_head_and_this_release_works_with_it():
    assert ScriptDirectory.from_config(migrations.config()).get_heads() == [REVISION]


def test_up_down_and_up_again(url: str, path: Path):
    store = open_store(url)
    assert store.revision() is None
    migrations.upgrade(store)
    assert store.revision() == REVISION
    full = tables(path)
    assert {"task", "step", "task_label"} < full
    migrations.downgrade(store, "base")
    assert store.revision() is None
    assert tables(path) == {"alembic_version"} | {name for name in tables(path) if "alembic" in name}
    migrations.upgrade(store)
    migrations.upgrade(store)
    assert (store.revision(), tables(path)) == (REVISION, full)


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
    store = open_store(url)
    migrations.upgrade(store)
    with store.migration_engine.begin() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        found = compare_metadata(context, metadata)
    # SQLite does not tell that an index is descending; the next test compares that one
    assert [change for change in found if change[1].name != "ix_task_due"] == []


def test_the_tables_and_the_migrations_make_the_same_statements(url: str, path: Path, tmp_path: Path):
    """Also what the comparison above cannot see: expressions and conditions of indexes, the order of columns."""
    migrations.upgrade(open_store(url))
    made = open_store(f"sqlite:///{tmp_path}/made.db")
    metadata.create_all(made.migration_engine)

    def statements(file: Path) -> dict[str, str]:
        connection = sqlite3.connect(file)
        try:
            rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        finally:
            connection.close()
        return {name: " ".join(sql.split()) for name, sql in rows if "alembic" not in name}

    assert statements(tmp_path / "made.db") == statements(path)


# --- another schema ----------------------------------------------------------------------------------------------


async def test_a_database_without_a_schema_is_to_be_migrated(url: str):
    async with open_store(url) as store:
        with pytest.raises(SchemaMismatch, match=r"no schema.*opspawn migrate"):
            await store.check()


async def test_an_older_schema_is_to_be_migrated(url: str, path: Path):
    store = open_store(url)
    migrations.upgrade(store)
    execute(path, "UPDATE alembic_version SET version_num = '0000'")
    async with store:
        with pytest.raises(SchemaMismatch, match=f"0000.*{REVISION}"):
            await store.check()


async def test_a_newer_schema_is_left_alone(url: str, path: Path):
    store = open_store(url)
    migrations.upgrade(store)
    execute(path, "UPDATE alembic_version SET version_num = '9999'")
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
    assert "task" in tables(path)


@pytest.mark.parametrize("table", ["task", "customers"])
def test_a_database_of_something_else_is_left_alone(url: str, path: Path, table: str):
    execute(path, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT)")
    with pytest.raises(SchemaMismatch, match=table):
        migrations.upgrade(open_store(url))
    assert tables(path) == {table}


async def test_without_leave_to_migrate_the_operator_is_told(url: str, path: Path):
    with pytest.raises(SchemaMismatch, match="opspawn migrate"):
        async with open_ops(Settings(store_url=url, auto_migrate=False), Catalog()):
            pass


# --- the database refuses ----------------------------------------------------------------------------------------


def test_a_file_that_is_no_database(url: str, path: Path):
    path.write_bytes(b"This is a letter to my mother.\n" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        migrations.upgrade(open_store(url))


def test_a_folder_that_does_not_exist(tmp_path: Path):
    with pytest.raises(StoreUnavailable, match="unable to open"):
        migrations.upgrade(open_store(f"sqlite:///{tmp_path}/nowhere/ops.db"))


def test_a_database_that_may_only_be_read(url: str, path: Path):
    migrations.upgrade(open_store(url))
    migrations.downgrade(open_store(url), "base")
    with pytest.raises(StoreUnavailable, match="readonly"):
        migrations.upgrade(open_store(f"sqlite:///file:{path}?mode=ro&uri=true"))
    execute(path, "SELECT 1")


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


def test_processes_that_migrate_one_file_at_once(url: str):
    command = [sys.executable, "-c", MIGRATE, url]
    pipe = subprocess.PIPE
    workers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(3)]
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
