"""What the SQL store does when its database refuses, and when it is closed."""

import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, text

from agentkit.transcript.steps import Recorded
from ops_core.errors import ConfigError, StoreUnavailable
from ops_core.ports import TaskFilter
from ops_core.stores import SqlStore, migrations, open_store
from ops_core.stores.transaction import Transaction
from ops_core.task import NewTask, TaskStatus
from ops_core.testing import open_test_store
from ops_core.testing.store_contract.examples import (
    COMPLETED,
    REPLIED,
    STARTED,
    TENANT,
    claim,
    claimed,
    current,
    steps_of,
    submitted,
)


def impatient(store: SqlStore) -> SqlStore:
    """One that does not wait for a lock."""

    @event.listens_for(store.migration_engine, "connect")
    def _prepare(connection, _record):
        connection.execute("PRAGMA busy_timeout = 20")

    return store


every_database = pytest.mark.parametrize("database", ["memory", "sqlite", "postgresql"])


async def execute(store: SqlStore, statement: str, **values: object) -> None:
    """Do to the database what no verb does."""

    def work(writing: Transaction) -> None:
        writing.execute(text(statement), values)

    await store._write(work)


async def occupy(store: SqlStore, task_id: str, seq: int) -> None:
    """Take the place of a step, so that it cannot be written."""
    values = "('default', :task, :seq, 0, 0.0, 'x', '{}')"
    await execute(store, f"INSERT INTO step VALUES {values}", task=task_id, seq=seq)


@every_database
async def test_a_last_step_that_cannot_be_written_leaves_the_status(store: SqlStore):
    one = await claimed(store)
    await occupy(store, one.task.id, 1)
    before = await current(store, one.task)
    with pytest.raises(StoreUnavailable, match=r"(?i)unique"):
        await store.append(one.lease, COMPLETED)
    assert await current(store, one.task) == before
    assert before.status is TaskStatus.RUNNING


@every_database
async def test_a_step_that_cannot_be_written_is_not_counted_and_harms_no_other(store: SqlStore):
    one, other = await claimed(store, STARTED), await claimed(store, STARTED)
    await occupy(store, one.task.id, 1)
    bad, good = await asyncio.gather(
        store.append(one.lease, REPLIED), store.append(other.lease, REPLIED), return_exceptions=True
    )
    assert isinstance(bad, StoreUnavailable)
    assert (await current(store, one.task)).steps == 1
    assert await steps_of(store, other.task) == [STARTED, REPLIED]
    assert isinstance(good, Recorded)
    assert good.seq == 1


async def test_writes_to_a_locked_database_wait_for_it_once_and_not_each_in_turn(tmp_path: Path):
    file, begun = tmp_path / "ops.db", list[Connection]()
    async with open_test_store(f"sqlite:///{file}"):
        pass
    waiting = impatient(open_store(f"sqlite:///{file}"))
    event.listen(waiting.migration_engine, "begin", begun.append, insert=True)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with waiting:
        found = await asyncio.gather(*(submitted(waiting) for _ in range(20)), return_exceptions=True)
    other.close()
    assert all(isinstance(error, StoreUnavailable) for error in found)
    assert len(begun) < 5


@every_database
async def test_an_error_text_does_not_quote_what_was_to_be_written(store: SqlStore):
    one = await claimed(store, input="confidential")
    await occupy(store, one.task.id, 1)
    with pytest.raises(StoreUnavailable) as refused:
        await store.append(one.lease, STARTED)
    assert "Count to three" not in str(refused.value)
    assert "INSERT" not in str(refused.value)


@every_database
async def test_a_row_that_cannot_be_read_does_not_keep_the_others_from_being_read(store: SqlStore):
    broken, good = await submitted(store, input="x"), await submitted(store)
    await execute(store, "UPDATE task SET input = '{' WHERE id = :id", id=broken.id)
    results = await asyncio.gather(
        store.get(TENANT, broken.id), store.get(TENANT, good.id), return_exceptions=True
    )
    assert not isinstance(results[0], BaseException)
    assert results[0].error is not None
    assert results[0].error.code == "task_unreadable"
    assert results[1] == good


@every_database
async def test_a_task_that_cannot_be_read_is_left_alone_and_has_not_begun(store: SqlStore):
    broken, good = await submitted(store, input="x"), await submitted(store)
    await execute(store, "UPDATE task SET input = '{' WHERE id = :id", id=broken.id)
    assert [one.task.id for one in await claim(store)] == [good.id]
    await execute(store, "UPDATE task SET input = '1', run_after = 0 WHERE id = :id", id=broken.id)
    (mended,) = await claim(store)
    assert mended.begun is not None
    assert mended.task.attempt == 1


# --- open and closed ---------------------------------------------------------------------------------------------


async def test_a_store_that_is_not_open_says_so():
    store = open_store("sqlite://")
    with pytest.raises(StoreUnavailable, match="not open"):
        await submitted(store)
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.check()


async def test_a_closed_store_says_so(url: str):
    async with open_test_store(url) as store:
        await submitted(store)
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.list(TENANT, TaskFilter())


async def test_a_closed_store_can_be_opened_again(url: str):
    async with open_test_store(url) as store:
        task = await submitted(store)
    async with store:
        assert await current(store, task) == task


async def test_what_was_handed_in_before_the_close_is_written(url: str):
    async with open_test_store(url) as store:
        writes = [asyncio.ensure_future(submitted(store)) for _ in range(30)]
        await asyncio.sleep(0)
    await asyncio.gather(*writes)
    async with store:
        assert len(await store.list(TENANT, TaskFilter())) == 30


async def test_what_is_handed_in_during_the_close_is_refused(url: str):
    results: list[BaseException] = []

    async def go_on(store: SqlStore) -> None:
        while True:
            try:
                await submitted(store)
                await store.list(TENANT, TaskFilter(limit=1))
            except Exception as error:
                results.append(error)
                return

    async with asyncio.timeout(10):
        async with open_test_store(url) as store:
            users = [asyncio.create_task(go_on(store)) for _ in range(20)]
            await asyncio.sleep(0.05)
        await asyncio.gather(*users)
    assert {type(error) for error in results} == {StoreUnavailable}


# --- the database refuses ----------------------------------------------------------------------------------------


async def test_a_folder_that_does_not_exist(tmp_path: Path):
    store = open_store(f"sqlite:///{tmp_path}/nowhere/ops.db")
    with pytest.raises(StoreUnavailable, match="unable to open"):
        store.revision()
    async with store:
        for attempt in (store.check(), submitted(store), store.list(TENANT, TaskFilter())):
            with pytest.raises(StoreUnavailable, match="unable to open"):
                await attempt


async def test_a_file_that_is_no_database(tmp_path: Path, file_url: str):
    (tmp_path / "ops.db").write_bytes(b"This is a letter to my mother.\n" * 100)
    store = open_store(file_url)
    with pytest.raises(StoreUnavailable, match="not a database"):
        store.revision()
    async with store:
        with pytest.raises(StoreUnavailable, match="not a database"):
            await submitted(store)


async def test_a_file_that_breaks_while_it_is_open(tmp_path: Path, file_url: str):
    async with open_test_store(file_url) as store:
        for _ in range(200):
            await submitted(store, input="x" * 500)
    path = tmp_path / "ops.db"
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    async with store:
        with pytest.raises(StoreUnavailable):
            await store.list(TENANT, TaskFilter())
        with pytest.raises(StoreUnavailable):
            await submitted(store)
    path.write_bytes(content)
    async with store:
        await submitted(store)


async def test_a_database_that_may_only_be_read(file_url: str, tmp_path: Path):
    async with open_test_store(file_url) as store:
        task = await submitted(store)
    async with open_store(f"sqlite:///file:{tmp_path}/ops.db?mode=ro&uri=true") as store:
        await store.check()
        assert await current(store, task) == task
        with pytest.raises(StoreUnavailable, match="readonly"):
            await submitted(store)
        with pytest.raises(StoreUnavailable, match="readonly"):
            await claim(store)


async def test_a_locked_database_can_be_read_and_is_written_once_it_is_free(file_url: str, tmp_path: Path):
    async with open_test_store(file_url):
        pass
    other = sqlite3.connect(tmp_path / "ops.db", isolation_level=None)
    async with impatient(open_store(file_url)) as store:
        task = await submitted(store)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await submitted(store)
        assert await current(store, task) == task
        results = await asyncio.gather(*(submitted(store) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(result, StoreUnavailable) for result in results)
        other.execute("ROLLBACK")
        other.close()
        await submitted(store)
        assert len(await store.list(TENANT, TaskFilter())) == 2


async def test_a_write_waits_for_a_short_lock(file_url: str, tmp_path: Path):
    async with open_test_store(file_url) as store:
        other = sqlite3.connect(tmp_path / "ops.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        write = asyncio.create_task(submitted(store))
        await asyncio.sleep(0.1)
        assert not write.done()
        other.execute("ROLLBACK")
        other.close()
        await write


@pytest.mark.parametrize("database", ["sqlite"])
async def test_a_full_disk(store: SqlStore):
    task = await submitted(store)
    await execute(store, "PRAGMA max_page_count = 40")
    with pytest.raises(StoreUnavailable, match="full"):
        await submitted(store, input="x" * 1_000_000)
    assert await current(store, task) == task
    await submitted(store)


async def test_two_stores_on_one_database_see_each_other(url: str):
    async with open_test_store(url) as one, open_store(url) as other:
        ids = {(await submitted(store)).id for _ in range(10) for store in (one, other)}
        taken = await asyncio.gather(
            *(claim(store, owner=f"{n}", slots=3) for n, store in enumerate([one, other] * 6))
        )
        assert sorted(each.task.id for some in taken for each in some) == sorted(ids)


# --- URLs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        *("", "ops.db", "/var/ops.db", "mysql://me:secret@host/db"),
        *("postgresql+asyncpg://me:secret@host/db", "postgresql://me:pass@secret@host/db"),
        *(
            "sqlite+aiosqlite:///secret.db",
            "sqlite+nonsense:///secret.db",
            "sqlite:secret",
            "oracle://me:secret@x",
        ),
        *("://secret", "sqlite://secret@host/x", "sqlite://host:secret/x"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_quoted(url: str):
    with pytest.raises(ConfigError, match="store_url") as refused:
        open_store(url)
    assert "secret" not in str(refused.value)
    assert refused.value.field == "store_url"


@pytest.mark.parametrize("database", ["sqlite"])
async def test_a_write_that_does_not_fit_harms_no_neighbour(store: SqlStore):
    """They share a transaction; a disk that is too full for one of them has room for the other."""
    await execute(store, "PRAGMA max_page_count = 60")
    large = NewTask(agent="agent", input="x" * 1_000_000)
    results = await asyncio.gather(
        store.insert(large), submitted(store), store.insert(large), return_exceptions=True
    )
    assert [isinstance(result, StoreUnavailable) for result in results] == [True, False, True]
    assert len(await store.list(TENANT, TaskFilter())) == 1


@pytest.mark.parametrize("what", ["deleted", "replaced"])
async def test_a_file_that_is_deleted_or_replaced_while_it_is_open_is_refused(file_url: str, what: str):
    async with open_test_store(file_url) as store:
        task = await submitted(store)
        file = Path(str(store.url.database))
        file.unlink()
        if what == "replaced":
            file.write_bytes(b"")
        for ask in (submitted(store), current(store, task)):
            with pytest.raises(StoreUnavailable, match="deleted or replaced"):
                await ask


async def test_a_connection_that_may_only_read_is_opened_anew(file_url: str):
    async with open_test_store(file_url) as store:
        await store._write(lambda writing: writing.execute(text("PRAGMA query_only = ON")))
        await submitted(store)
        await store.check(writes=True)


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
async def test_only_its_owner_reads_a_store_whatever_the_umask(tmp_path, caplog):
    before = os.umask(0)
    try:
        file = tmp_path / "ops.db"
        for tightened in (False, True):
            if tightened:
                for each in tmp_path.iterdir():
                    each.chmod(0o666)
            caplog.clear()
            async with open_store(f"sqlite:///{file}") as store:
                await asyncio.to_thread(migrations.upgrade, store)
                modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
                assert {"ops.db", "ops.db-wal", "ops.db-shm"} <= modes.keys()
                assert set(modes.values()) == {0o600}, modes
            assert ("ops.db could be read by other users" in caplog.text) is tightened
    finally:
        os.umask(before)
