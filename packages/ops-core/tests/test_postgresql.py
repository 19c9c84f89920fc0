"""What only a real server can show: several writers, lost connections, restarts, locks."""

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from agentkit import Agent, tool
from agentkit.messages import ToolCall
from agentkit.testing import ScriptedModel
from ops_core.dispatchers import LocalDispatcher
from ops_core.engine import Engine
from ops_core.errors import ConfigError, SchemaMismatch, StoreUnavailable
from ops_core.halt import HaltKind, NewHalt
from ops_core.ports import Hint, TaskFilter
from ops_core.stores import SqlStore, migrations, open_store
from ops_core.stores.dialects import parse_url
from ops_core.stores.transaction import Transaction
from ops_core.task import Claimed, Task, TaskStatus
from ops_core.testing import open_test_ops, open_test_store
from ops_core.testing.servers.postgresql import PostgresServer
from ops_core.testing.servers.tcp_proxy import TcpProxy
from ops_core.testing.store_contract.examples import (
    AGENT,
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

SECRET = "hunter2"


@pytest.fixture
def database() -> str:
    return "postgresql"


@pytest.mark.parametrize("own", ["-c search_path=public", "-c lock_timeout=3s -c application_name=mine"])
def test_options_of_the_url_are_added_to_ours(url: str, own: str):
    asked = make_url(url).update_query_dict({"options": own})
    store = open_store(asked.render_as_string(hide_password=False))
    with store.migration_engine.connect() as connection:

        def shown(name: str) -> str:
            return connection.execute(text(f"SHOW {name}")).scalar_one()

        assert (shown("statement_timeout"), shown("enable_seqscan")) == ("30s", "off")
        assert shown("lock_timeout") == ("3s" if "lock_timeout" in own else "10s")
    store.migration_engine.dispose()


@pytest.mark.parametrize(
    "url, host, port, query",
    [
        ("postgres://me@h/db", "h", None, {}),
        ("postgresql://me:pw@h1:5432,h2:5433/db", None, None, {"host": "h1,h2", "port": "5432,5433"}),
        ("postgresql://h1,h2/db", None, None, {"host": "h1,h2", "port": "5432,5432"}),
        ("postgres://[::1]:1,h2/db?target_session_attrs=read-write", None, None, {
            "host": "::1,h2", "port": "1,5432", "target_session_attrs": "read-write",
        }),
    ],
)  # fmt: skip
def test_urls_are_read_as_libpq_reads_them(url: str, host, port, query):
    parsed = parse_url(url)
    assert (parsed.host, parsed.port, dict(parsed.query), parsed.database) == (host, port, query, "db")


async def test_of_several_hosts_one_that_answers_is_taken(postgres: PostgresServer, postgres_database: str):
    own = make_url(postgres.url(postgres_database))
    asked = own.update_query_dict({"host": f"/nowhere,{own.query['host']}"})
    async with open_test_store(asked.render_as_string(hide_password=False)) as store:
        assert (await submitted(store)).agent == AGENT


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_text_is_refused(postgres: PostgresServer, encoding: str):
    name = f"in_{encoding.lower()}"
    postgres.execute(
        f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    try:
        with pytest.raises(ConfigError, match=f"encoding {encoding}.*UTF8"):
            migrations.upgrade(open_store(postgres.url(name)))
    finally:
        postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_database_of_another_program_is_told_from_a_newer_one(url: str):
    store = open_store(url)
    with store.migration_engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num varchar(32))"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('ae1027a6acf')"))
    with pytest.raises(SchemaMismatch, match=r"another program.*search_path"):
        migrations.upgrade(store)
    store.migration_engine.dispose()


async def test_the_tables_may_live_in_a_schema_of_their_own(url: str):
    own = make_url(url).update_query_dict({"options": "-c search_path=opspawn"})
    async with open_test_store(own.render_as_string(hide_password=False)) as store:
        assert (await submitted(store)).agent == AGENT
        await store.check()
    other = open_store(url)
    with other.migration_engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'opspawn'"))
        assert not connection.scalar(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"))
        connection.execute(text("DROP SCHEMA opspawn CASCADE"))
    other.migration_engine.dispose()


async def test_tasks_that_many_claim_at_once_are_each_claimed_once(url: str):
    taken: list[str] = []

    async def work(store: SqlStore, slots: int) -> None:
        while some := await claim(store, slots=slots):
            taken.extend(one.task.id for one in some)

    async with open_test_store(url) as one, open_store(url) as other:
        ids = {task.id for task in await asyncio.gather(*(submitted(one) for _ in range(500)))}
        await asyncio.gather(*(work(store, slots) for store in (one, other) for slots in (1, 3, 7, 20)))
        assert len(taken) == 500
        assert set(taken) == ids


async def test_one_task_for_a_key_that_many_submit_at_once(url: str):
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(open_test_store(url)) for _ in range(4)]
        for number in range(20):
            key = {"idempotency_key": f"key-{number}", "fingerprint": "same"}
            tasks = await asyncio.gather(*(submitted(store, **key) for store in stores for _ in range(3)))
            assert len({task.id for task in tasks}) == 1
        assert len(await stores[0].list(TENANT, TaskFilter(limit=100))) == 20


async def test_a_deadlock_is_answered_by_trying_again(url: str):
    both_hold = threading.Barrier(2)
    tries: list[str] = []

    async with open_test_store(url) as one, open_store(url) as other:
        tasks = [await submitted(one) for _ in range(2)]

        def crosswise(writing: Transaction, first: Task, second: Task) -> None:
            tries.append(first.id)
            for task in (first, second):
                writing.execute(text("UPDATE task SET steps = 7 WHERE id = :id"), {"id": task.id})
                if task is first and len(tries) <= 2:
                    both_hold.wait(5)

        await asyncio.gather(
            one._write(lambda writing: crosswise(writing, *tasks)),
            other._write(lambda writing: crosswise(writing, *tasks[::-1])),
        )
        assert len(tries) >= 3
        assert [(await current(one, task)).steps for task in tasks] == [7, 7]


async def test_a_cancellation_is_not_lost_to_a_claim_or_an_end_at_the_same_moment(url: str):
    async with open_test_store(url) as one, open_store(url) as other:
        for _ in range(25):
            task = await submitted(one)
            leases, _cancelled = await asyncio.gather(claim(one), other.cancel(TENANT, task.id))
            now = await current(one, task)
            assert now.cancel_requested if leases else now.status.terminal
            for held in leases:
                await asyncio.gather(one.append(held.lease, COMPLETED), other.cancel(TENANT, task.id))
                ended = await current(one, task)
                assert (await steps_of(one, task), ended.finished_at) == (
                    [STARTED, COMPLETED],
                    ended.updated_at,
                )


# --- lost connections --------------------------------------------------------------------------------------------


def cut(postgres: PostgresServer, url: str) -> None:
    """End the connections of all stores on this database."""
    name = url.partition("?")[0].rpartition("/")[2]
    postgres.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = '{name}' AND application_name = 'opspawn'"
    )


async def test_a_connection_that_was_lost_while_it_was_idle_is_not_noticed(
    postgres: PostgresServer, url: str
):
    async with open_test_store(url) as store:
        task = await submitted(store)
        for _ in range(3):
            cut(postgres, url)
            assert await current(store, task) == task
            cut(postgres, url)
            await submitted(store)


async def test_connections_that_are_cut_during_writes_lose_and_double_nothing(
    postgres: PostgresServer, url: str
):
    refused = 0
    done = asyncio.Event()

    async def work(store: SqlStore, held: Claimed) -> None:
        nonlocal refused
        acknowledged = {0}  # by the claim
        while not done.is_set():
            try:
                acknowledged.add((await store.append(held.lease, REPLIED)).seq)
            except StoreUnavailable:
                refused += 1
        found = await steps_of(store, held.task)  # numbered without gaps, and as many as the task counts
        assert acknowledged <= set(range(len(found)))
        unknown.append(len(found) - len(acknowledged))

    async def cut_often() -> None:
        for _ in range(30):
            await asyncio.to_thread(cut, postgres, url)
            await asyncio.sleep(0.01)
        done.set()

    unknown: list[int] = []
    async with open_test_store(url) as store:
        held = [await claimed(store) for _ in range(10)]
        await asyncio.gather(*(work(store, one) for one in held), cut_often())
        assert sum(unknown) <= refused
        await submitted(store)


async def test_a_commit_whose_answer_is_lost_is_told_and_not_repeated(postgres: PostgresServer, url: str):
    async with open_test_store(url) as store:
        one, other = await claimed(store), await claimed(store)

        def die_at_the_commit(writing: Transaction) -> None:
            writing.execute(text("CREATE SEQUENCE commits"))  # counts on, whatever is rolled back
            writing.execute(
                text("""
                CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN
                    PERFORM nextval('commits');
                    PERFORM pg_terminate_backend(pg_backend_pid());
                    RETURN NULL;
                END $$""")
            )
            writing.execute(
                text("""
                CREATE CONSTRAINT TRIGGER die AFTER INSERT ON step DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION die()""")
            )

        await store._write(die_at_the_commit)
        writes = [store.append(held.lease, STARTED) for held in (one, other)]
        results = await asyncio.gather(*writes, return_exceptions=True)
        for result in results:
            assert isinstance(result, StoreUnavailable)
            assert "not known whether" in str(result)
        attempts = await store._write(
            lambda db: db.execute(text("SELECT last_value FROM commits")).scalar_one()
        )
        assert attempts <= 2, "a write whose commit may have succeeded was repeated"


async def test_a_server_that_is_killed_and_started_again(postgres: PostgresServer, url: str):
    async with open_test_store(url) as store:
        one = await claimed(store, STARTED)
        postgres.end(signal.SIGQUIT)
        try:
            for attempt in (submitted(store), store.append(one.lease, REPLIED), current(store, one.task)):
                with pytest.raises(StoreUnavailable, match="OperationalError: connection"):
                    await attempt
            many = await asyncio.gather(*(submitted(store) for _ in range(100)), return_exceptions=True)
            assert all(isinstance(result, StoreUnavailable) for result in many)
        finally:
            postgres.start()
        await store.append(one.lease, REPLIED)
        assert await steps_of(store, one.task) == [STARTED, REPLIED]
        await store.append(one.lease, COMPLETED)


@asynccontextmanager
async def pooler(socket: Path) -> AsyncGenerator[int]:
    """Tells its clients keys of sessions that are its own, as poolers do, and passes all else on; gives its port."""

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        while data := await reader.read(1 << 16):
            if answers and (at := data.find(b"K\x00\x00\x00\x0c")) >= 0:
                data = data[: at + 5] + b"\x00\x00\x30\x39" + data[at + 9 :]
            writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_unix_connection(socket)
        with suppress(ConnectionError):
            await asyncio.gather(
                passed_on(reader, to_server, answers=False), passed_on(server, writer, answers=True)
            )

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]


async def test_behind_a_pooler_no_statement_is_prepared(postgres: PostgresServer, url: str):
    prepared = "SELECT count(*) FROM pg_prepared_statements"

    def look(at: str) -> int:
        store = open_store(at)
        with store.migration_engine.begin() as connection:
            for _ in range(20):
                connection.exec_driver_sql("SELECT 1")
            found = connection.exec_driver_sql(prepared).scalar_one()
        store.migration_engine.dispose()
        return found

    socket = Path(postgres.url().partition("host=")[2]) / ".s.PGSQL.5432"
    async with pooler(socket) as port:
        at = make_url(url).set(host="127.0.0.1", port=port, query={}).render_as_string()
        assert await asyncio.to_thread(look, at) == 0
    assert await asyncio.to_thread(look, url) > 0


async def test_a_server_that_is_silent_is_given_up_and_found_again(postgres: PostgresServer, url: str):
    socket = Path(postgres.url().partition("host=")[2]) / ".s.PGSQL.5432"
    async with TcpProxy(socket) as wire:
        at = make_url(url).set(host="127.0.0.1", port=wire.port, query={"connect_timeout": "1"})
        await asyncio.to_thread(migrations.upgrade, open_store(url))
        async with open_store(at.render_as_string(), patience_seconds=0.5) as store:
            one = await claimed(store, STARTED)
            wire.stop()
            attempts = (submitted(store), store.append(one.lease, REPLIED), current(store, one.task))
            for result in await asyncio.wait_for(asyncio.gather(*attempts, return_exceptions=True), 30):
                assert isinstance(result, StoreUnavailable), result
            wire.go_on()
            await until_answered(store, one.task)
            await store.append(one.lease, COMPLETED)


async def until_answered(store: SqlStore, task: Task) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await current(store, task)
            except StoreUnavailable:
                continue
            return


async def test_a_row_that_somebody_holds_delays_its_own_write_only_so_long(
    postgres: PostgresServer, url: str
):
    quick = f"{url}&options=-c%20lock_timeout%3D200ms"
    name = url.partition("?")[0].rpartition("/")[2]
    async with open_test_store(quick) as store:
        held, free = await claimed(store), await claimed(store)
        with postgres.connected(name) as other:
            other.execute(text("BEGIN"))
            other.execute(text("SELECT 1 FROM task WHERE id = :id FOR UPDATE"), {"id": held.task.id})
            writes = [store.append(one.lease, STARTED) for one in (held, free)]
            refused, written = await asyncio.gather(*writes, return_exceptions=True)
            other.execute(text("ROLLBACK"))
        assert isinstance(refused, StoreUnavailable)
        assert "lock timeout" in str(refused)
        assert not isinstance(written, BaseException)
        await store.append(held.lease, STARTED)


# --- secrets and the driver --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    ["127.0.0.1:1/db", "/db?host=/nowhere", "127.0.0.1:1/db?sslmode=nonsense", "127.0.0.1:1/db?nonsense=1"],
)
async def test_a_password_is_in_no_error(place: str):
    store = open_store(f"postgresql://me:{SECRET}@{place}")
    with pytest.raises(StoreUnavailable) as refused:
        store.revision()
    async with store:
        with pytest.raises(StoreUnavailable) as refused_too:
            await submitted(store)
    for error in (refused, refused_too):
        assert SECRET not in str(error.value)
        assert "\n" not in str(error.value)


def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    loaded = [name for name in sys.modules if name.partition(".")[0] == "psycopg"]
    for name in {"psycopg", "psycopg.types", "psycopg.types.string", *loaded}:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"opspawn\[postgres\]") as refused:
        open_store(f"postgresql://me:{SECRET}@host/db")
    assert SECRET not in str(refused.value)


# --- what processes tell each other ------------------------------------------------------------------------------


async def heard_by(store: SqlStore, said: asyncio.Queue[Hint]) -> None:
    async for hint in store.hints():
        said.put_nowait(hint)


async def test_what_one_process_writes_another_one_hears(url: str):
    async with open_test_store(url) as one, open_store(url) as other, asyncio.timeout(30):
        said: asyncio.Queue[Hint] = asyncio.Queue()
        ear = asyncio.create_task(heard_by(other, said))
        assert await said.get() == Hint(due=True, halts=True)  # what came before it listened was missed
        later = await submitted(one, run_at=(await submitted(one)).created_at + 1000)
        assert await said.get() == Hint(due=True)
        (held,) = await claim(one)
        await one.cancel(TENANT, held.task.id)
        assert await said.get() == Hint(cancelled=(held.task.id,))
        await one.append(held.lease, COMPLETED)
        assert await said.get() == Hint(ended=(held.task.id,))
        await one.cancel(TENANT, later.id)
        assert await said.get() == Hint(ended=(later.id,))
        halt = await one.halt(TENANT, NewHalt(kind=HaltKind.ALL))
        assert await said.get() == Hint(halts=True)
        await one.lift(TENANT, halt.id)
        assert await said.get() == Hint(due=True, halts=True)
        await submitted(other)  # one's own words are not heard
        await submitted(one)
        assert await said.get() == Hint(due=True)
        assert said.empty()
        ear.cancel()
        await asyncio.wait({ear})


async def test_more_than_fits_into_one_message_is_heard_in_several(url: str):
    async with open_test_store(url) as one, open_store(url) as other, asyncio.timeout(30):
        said: asyncio.Queue[Hint] = asyncio.Queue()
        ear = asyncio.create_task(heard_by(other, said))
        await said.get()
        await asyncio.gather(*(submitted(one) for _ in range(400)))
        held = await claim(one, slots=400)
        await asyncio.gather(*(one.append(each.lease, COMPLETED) for each in held))
        ended: set[str] = set()
        while len(ended) < 400:
            ended.update((await said.get()).ended)
        assert ended == {each.task.id for each in held}
        ear.cancel()
        await asyncio.wait({ear})


async def test_whoever_lost_the_connection_listens_again(url: str, postgres: PostgresServer):
    async with open_test_store(url) as one, open_store(url) as other, asyncio.timeout(30):
        said: asyncio.Queue[Hint] = asyncio.Queue()
        ear = asyncio.create_task(heard_by(other, said))
        await said.get()
        postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ '^(LISTEN|SHOW)'"
        )
        assert await said.get() == Hint(due=True, halts=True)
        await submitted(one)
        assert await said.get() == Hint(due=True)
        ear.cancel()
        await asyncio.wait({ear})


async def test_a_cancellation_elsewhere_reaches_what_is_under_way_here(url: str):
    began, stopped = asyncio.Event(), asyncio.Event()

    @tool
    async def work() -> str:
        """Never done."""
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            stopped.set()
        return "done"

    agent = Agent(ScriptedModel([ToolCall(id="call_1", name="work")]), name=AGENT, tools=[work])
    async with (
        open_test_store(url) as elsewhere,
        open_test_ops(agent, store_url=url, lease_seconds=60.0) as ops,
        ops.working(),
        asyncio.timeout(15),  # the heartbeat, which brings it in any case, comes after twenty seconds
    ):
        task = await submitted(elsewhere)
        await began.wait()
        await Engine(elsewhere, LocalDispatcher()).cancel(TENANT, task.id)
        await stopped.wait()
        ended = await ops.engine.until_ended(TENANT, task.id)
        assert ended.status is TaskStatus.CANCELLED


# --- sessions that live and are no good -----------------------------------------------------------------------------


async def test_after_a_fail_over_behind_one_address_it_writes_and_listens_again(
    url: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ops_core.stores.notifications.AGAIN_SECONDS", 0.05)
    name = str(make_url(url).database)
    async with open_test_store(url) as store, open_store(url) as other:
        await submitted(store)
        hints = store.hints()
        assert await anext(hints) == Hint(due=True, halts=True)
        postgres.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')  # demoted
        end_sessions(postgres, name)
        with pytest.raises(StoreUnavailable):
            await submitted(store)
        await store.check()
        with pytest.raises(StoreUnavailable, match="read-only"):
            await store.check(writes=True)
        postgres.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')  # the new primary
        await submitted(store)
        await store.check(writes=True)
        async with asyncio.timeout(20):
            await anext(hints)  # it listens again
            await submitted(other)
            while not (await anext(hints)).due:
                pass
        await hints.aclose()


async def test_a_session_that_may_no_longer_write_is_replaced_with_all_its_neighbours(
    url: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
):
    """The server was demoted, or its disk was full, and nobody has cut the connections."""
    monkeypatch.setattr("ops_core.stores.notifications.LOOK_SECONDS", 0.2)
    name = str(make_url(url).database)
    async with open_test_store(url) as store:
        task = await submitted(store)
        hints = store.hints()
        await anext(hints)
        listening = asyncio.create_task(anext(hints))
        before = sessions(postgres, name)
        await store._write(lambda writing: writing.execute(text("SET default_transaction_read_only = on")))
        await submitted(store)
        await current(store, task)
        async with asyncio.timeout(20):
            assert await listening == Hint(due=True, halts=True)
            while sessions(postgres, name) & before:
                await asyncio.sleep(0.05)
        await hints.aclose()


def sessions(postgres: PostgresServer, name: str) -> set[int]:
    of = "SELECT pid FROM pg_stat_activity WHERE application_name = 'opspawn' AND datname = :name"
    with postgres.connected() as connection:
        return set(connection.execute(text(of), {"name": name}).scalars())


def end_sessions(postgres: PostgresServer, name: str) -> None:
    postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")


async def test_a_server_that_is_not_there_is_not_reached():
    with pytest.raises(StoreUnavailable, match=r"^the database cannot be reached: .*refused"):
        async with open_store("postgresql://u@127.0.0.1:1/x") as store:
            await store.check()
