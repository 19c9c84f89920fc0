"""What agents remember on the platform: in its own database, for each in a scope of his own."""

import asyncio
import random
from array import array
from pathlib import Path

import pytest
from sqlalchemy import text

from agentkit.agent import Agent
from agentkit.memories import AgentMemory, HashEmbeddings, LocalMemory, Note, Scope
from agentkit.memories.similarity import packed
from agentkit.messages import ToolCall
from agentkit.testing import MemoryContract, ScriptedModel
from agentkit.transcript.steps import Recalled
from ops_core.cli.commands.serve import migrate_store
from ops_core.config.loader import read_catalog
from ops_core.errors import ConfigError, InvalidRequest
from ops_core.memory import DatabaseMemory
from ops_core.ports import NoteFilter
from ops_core.schemas import TaskRequest
from ops_core.service import LocalClient
from ops_core.stores import REVISION, SqlStore, migrations, open_store
from ops_core.task import DEFAULT_TENANT, NewTask, TaskStatus
from ops_core.testing import open_test_ops, open_test_store
from ops_core.testing.servers.postgresql import PostgresServer

SOON = 5.0
KIM = Scope(tenant=DEFAULT_TENANT, agent="clerk", key="kim")


class TestDatabaseMemory(MemoryContract):
    @pytest.fixture(params=["memory", "sqlite", "postgresql"])
    def database(self, request: pytest.FixtureRequest) -> str:
        return request.param

    @pytest.fixture
    def memory(self, store: SqlStore) -> DatabaseMemory:
        return DatabaseMemory(store, HashEmbeddings())

    async def test_notes_of_other_embeddings_are_kept_and_not_compared(self, store: SqlStore, memory):
        await memory.remember(KIM, Note(id="1", text="Kim likes tea."))
        other = DatabaseMemory(store, HashEmbeddings(64))
        assert list(await other.recall(KIM, "Kim likes tea.", 5)) == []
        assert len(await store.list_notes(DEFAULT_TENANT, NoteFilter())) == 1
        assert await other.forget(DEFAULT_TENANT) == 1

    async def test_notes_are_listed_the_newest_first(self, store: SqlStore, memory):
        for number, scope in enumerate(
            (KIM, KIM, Scope(agent="other"), Scope(agent="clerk", tenant="other"))
        ):
            await memory.remember(scope, Note(id=f"{number}", text=f"Note {number}.", at=float(number)))
        listed = await store.list_notes(DEFAULT_TENANT, NoteFilter())
        assert [kept.note.id for kept in listed] == ["2", "1", "0"]
        listed = await store.list_notes(DEFAULT_TENANT, NoteFilter(agent="clerk", key="kim", limit=1))
        assert [(kept.scope, kept.note.text) for kept in listed] == [(KIM, "Note 1.")]
        assert list(await store.list_notes("nobody", NoteFilter())) == []


async def test_more_notes_than_are_read_at_a_time_are_all_compared(file_url: str, monkeypatch):
    monkeypatch.setattr("ops_core.stores.bulk_statements.TOGETHER", 7)
    async with open_test_store(file_url) as store:
        memory = DatabaseMemory(store, HashEmbeddings())
        await asyncio.gather(
            *(memory.remember(KIM, Note(id=f"{n}", text=f"The number is {n}.")) for n in range(50))
        )
        for wanted in (0, 6, 7, 49):
            (found,) = await memory.recall(KIM, f"The number is {wanted}.", 1)
            assert found.id == f"{wanted}"


class TestDatabaseMemoryWithPgvector(MemoryContract):
    """The extension compares; all else is the same."""

    @pytest.fixture
    def database(self) -> str:
        return "postgresql"

    @pytest.fixture
    def memory(self, store: SqlStore, comparing: None) -> DatabaseMemory:
        return DatabaseMemory(store, HashEmbeddings())

    @pytest.fixture
    def comparing(self, store: SqlStore, postgres: PostgresServer, postgres_database: str) -> None:
        postgres.execute("CREATE EXTENSION vector", postgres_database)
        assert migrations.adopt_extensions(store)
        assert not migrations.adopt_extensions(store), "once is enough"

    async def test_it_finds_what_is_found_without_it(
        self, store: SqlStore, memory, postgres, postgres_database
    ):
        """The column is made of whatever was stored, to the last bit: tiny, negative, zeros, of any length."""
        chance = random.Random(1)
        kept = [[chance.gauss(0, 10.0 ** chance.randint(-30, 5)) for _ in range(8)] for _ in range(200)]
        kept += [[0.0] * 8, [1e-42, 0, 0, 0, 0, 0, 0, 1.0], [-1.0] * 8]
        for number, vector in enumerate([*kept, [1.0] * 9]):
            await store.put_note(KIM, Note(id=f"{number}", text="x"), packed(vector), "e")
        with postgres.connected(postgres_database) as connection:
            rows = connection.execute(text("SELECT vector, CAST(embedding AS real[]) FROM note")).all()
        assert [array("f", bytes(stored)) for stored, _made in rows] == [
            array("f", made) for _stored, made in rows
        ]
        query = packed([chance.gauss(0, 1) for _ in range(8)])
        with_it = await store.find_notes(KIM, query, "e", 500)
        postgres.execute("DROP EXTENSION vector CASCADE", postgres_database)
        without = await store.find_notes(KIM, query, "e", 500)
        scores = {note.id: note.score for note in without}
        assert {note.id: note.score for note in with_it} == pytest.approx(scores, abs=1e-6)
        assert len(scores) == len(kept), "the one of another length is not compared"

    async def test_vectors_that_are_too_long_for_it_are_read(self, store: SqlStore, memory):
        long = packed([1.0] * 16_001)
        await store.put_note(KIM, Note(id="1", text="long"), long, "e")
        assert [note.text for note in await store.find_notes(KIM, long, "e", 5)] == ["long"]


async def test_pgvector_may_be_anywhere_and_is_never_created_by_us(
    postgres: PostgresServer, postgres_database: str, monkeypatch, capsys
):
    url = postgres.url(postgres_database)
    store = open_store(url)
    migrations.upgrade(store)
    assert not migrations.adopt_extensions(store), "nobody has created the extension"
    postgres.execute('CREATE SCHEMA "its own"', postgres_database)
    postgres.execute('CREATE EXTENSION vector SCHEMA "its own"', postgres_database)
    async with open_store(url) as opened:
        memory = DatabaseMemory(opened, HashEmbeddings())
        await memory.remember(KIM, Note(id="1", text="Kim likes green tea."))
        monkeypatch.setenv("OPSPAWN_STORE_URL", url)
        for check, said in ((True, ""), (False, "from now on pgvector compares the notes\n"), (False, "")):
            assert migrate_store(check=check) == 0  # while others work, with notes that are there
            assert capsys.readouterr().out == f"{said}the store has schema {REVISION}: up to date\n"
        await memory.remember(KIM, Note(id="2", text="Kim likes black tea."))
        assert {note.id for note in await memory.recall(KIM, "tea", 5)} == {"1", "2"}
    migrations.downgrade(store, "base")
    migrations.upgrade(store)
    postgres.execute('DROP SCHEMA "its own" CASCADE', postgres_database)


async def test_of_what_is_forgotten_nothing_is_left_in_the_files(file_url: str, tmp_path: Path):
    """Neither in rows, nor in pages that are free now, nor in the log of writes."""
    secret, kept = "zanzibar-and-xylophone", "quetzalcoatl"
    async with open_test_store(file_url) as store:
        memory = DatabaseMemory(store, HashEmbeddings())
        for number in range(60):
            await memory.remember(KIM, Note(id=f"{number}", text=f"{secret} {number} " * 50, source=secret))
        await memory.remember(Scope(agent="clerk", key="jo"), Note(id="1", text=kept))
        assert secret.encode() in _bytes(tmp_path)
        assert await memory.forget(DEFAULT_TENANT, agent="clerk", key="kim") == 60
        assert secret.encode() not in _bytes(tmp_path)
        assert kept.encode() in _bytes(tmp_path)
        with store.migration_engine.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM note")).scalar() == 1


def _bytes(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.glob("ops.db*")))


# --- in tasks -----------------------------------------------------------------------------------------------------


def clerk(model: ScriptedModel, **fields) -> Agent:
    return Agent(model, name="clerk", memory=AgentMemory(memory="database", **fields))


async def test_the_next_task_of_the_same_person_knows_and_nobody_elses_does(url: str, store: SqlStore):
    call = ToolCall(id="call_1", name="remember", arguments={"text": "Kim likes green tea."})
    model = ScriptedModel([call, "noted", "green", "no idea", "no idea"])
    agents = (
        clerk(model, remember="tool", per="user"),
        Agent(model, name="other", memory=AgentMemory(memory="database")),
    )
    async with open_test_ops(*agents, store_url=url) as ops, ops.working():

        async def asked(question: str, agent: str = "clerk", **labels: str) -> str:
            new = NewTask(agent=agent, input=question, labels=labels)
            task = (await ops.engine.submit(new)).task
            async with asyncio.timeout(SOON):
                ended = await ops.engine.until_ended(DEFAULT_TENANT, task.id)
            assert ended.status is TaskStatus.COMPLETED, ended.error
            return task.id

        await asked("I like green tea.", user="kim")
        knows = await asked("Which tea do I like?", user="kim")
        await asked("Which tea do I like?", user="jo")
        await asked("Which tea does Kim like?", agent="other")
        steps = [recorded.step for recorded in await ops.engine.steps(DEFAULT_TENANT, knows)]
        (recalled,) = [step for step in steps if isinstance(step, Recalled)]
        assert [note.text for note in recalled.notes] == ["Kim likes green tea."]
        assert recalled.notes[0].source.startswith("run ")
        assert "green tea" in model.requests[2].messages[0].text
        assert [len(request.messages) for request in model.requests[3:]] == [1, 1]
        (kept,) = await ops.engine.store.list_notes(DEFAULT_TENANT, NoteFilter())
        assert kept.scope == KIM


async def test_the_outcome_of_a_task_is_remembered(url: str, store: SqlStore):
    async with (
        open_test_ops(clerk(ScriptedModel(["green"]), remember="outcome"), store_url=url) as ops,
        ops.working(),
    ):
        task = (await ops.engine.submit(NewTask(agent="clerk", input="Which tea?"))).task
        async with asyncio.timeout(SOON):
            await ops.engine.until_ended(DEFAULT_TENANT, task.id)
        (kept,) = await ops.engine.store.list_notes(DEFAULT_TENANT, NoteFilter())
        assert (kept.note.text, kept.note.source) == ("Asked: Which tea?\nAnswered: green", f"run {task.id}")
        assert kept.scope == Scope(agent="clerk")


async def test_where_each_has_a_memory_of_his_own_a_task_must_say_whose():
    agent = clerk(ScriptedModel(["done"]), per="user")
    async with open_test_ops(agent) as ops, ops.working():
        client = LocalClient(ops.engine, ops.catalog)
        for labels in ({}, {"user": ""}, {"users": "kim"}):
            with pytest.raises(InvalidRequest, match="label user is needed") as refused:
                await client.submit(TaskRequest(agent="clerk", input="x", labels=labels))
            assert refused.value.field == "labels"
        task = (await ops.engine.submit(NewTask(agent="clerk", input="past the border"))).task
        async with asyncio.timeout(SOON):
            ended = await ops.engine.until_ended(DEFAULT_TENANT, task.id)
        assert (ended.status, ended.error.code) == (TaskStatus.FAILED, "usage")


async def test_an_agent_whose_memory_cannot_be_opened_is_left_to_other_workers():
    agents = (
        Agent(ScriptedModel(["done"]), name="fine"),
        Agent(ScriptedModel([]), name="wrong", memory=AgentMemory(memory="database", embeddings="nobody:x")),
        Agent(ScriptedModel([]), name="unknown", memory=AgentMemory(memory="elsewhere")),
    )
    async with open_test_ops(*agents) as ops, ops.working() as runner:
        assert runner._catalog.names == ("fine",)


async def test_an_open_memory_is_used_as_it_is():
    notes = LocalMemory()
    agent = Agent(ScriptedModel(["done"]), name="clerk", memory=AgentMemory(memory=notes, remember="outcome"))
    async with open_test_ops(agent) as ops, ops.working():
        task = (await ops.engine.submit(NewTask(agent="clerk", input="x"))).task
        async with asyncio.timeout(SOON):
            await ops.engine.until_ended(DEFAULT_TENANT, task.id)
    assert len(await notes.recall(Scope(agent="clerk"), "x", 5)) == 1


# --- opspawn.toml -------------------------------------------------------------------------------------------------


def test_a_memory_is_declared_in_the_file(tmp_path: Path):
    file = tmp_path / "opspawn.toml"
    file.write_text('[agents.a.memory]\nremember = "tool"\nper = "user"\nrecall = 3\n[agents.b]\n')
    catalog = read_catalog(file)
    assert catalog.get("a").agent.memory == AgentMemory(
        memory="database", remember="tool", per="user", recall=3
    )
    assert catalog.get("b").agent.memory is None


@pytest.mark.parametrize(
    "wrong", ['remember = "all"', "recall = -1", "tokens = 0", "min_score = 2", "size = 1"]
)
def test_a_memory_that_makes_no_sense_is_refused_with_the_name_of_the_field(tmp_path: Path, wrong: str):
    file = tmp_path / "opspawn.toml"
    file.write_text(f"[agents.a.memory]\n{wrong}\n")
    with pytest.raises(ConfigError, match=f"agents.a.memory.{wrong.partition(' ')[0]}"):
        read_catalog(file)
