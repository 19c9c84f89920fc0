"""A store that is a file becomes smaller when tasks are deleted, and says before what would be."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from ops_core.cli.commands.serve import purge_store
from ops_core.dispatchers import LocalDispatcher
from ops_core.engine import Engine
from ops_core.task import TaskStatus
from ops_core.testing import FakeClock, open_test_store
from ops_core.testing.store_contract.examples import brought_to

LARGE = "x" * 100_000


async def test_a_file_shrinks_with_what_is_deleted(tmp_path: Path):
    file = tmp_path / "ops.db"
    clock = FakeClock()
    async with open_test_store(f"sqlite:///{file}", clock) as store:
        engine = Engine(store, LocalDispatcher())
        for _ in range(120):
            await brought_to_with_input(store)
        before = file.stat().st_size
        assert before > 120 * len(LARGE)
        clock.advance(100)
        kept = await brought_to(store, TaskStatus.WAITING)
        assert (await engine.purgeable(50)).tasks == 120
        assert await engine.purge(50) == 120
        assert file.stat().st_size < before / 5
        assert (tmp_path / "ops.db-wal").stat().st_size == 0
        assert (await store.get(kept.task.tenant, kept.task.id)).status is TaskStatus.WAITING
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def brought_to_with_input(store) -> None:
    from ops_core.testing.store_contract.examples import COMPLETED, claimed

    one = await claimed(store, input=LARGE)
    await store.append(one.lease, COMPLETED)


async def test_the_command_says_what_would_be_deleted(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPSPAWN_APP", raising=False)
    async with open_test_store(f"sqlite:///{tmp_path}/opspawn.db") as store:
        await brought_to_with_input(store)
    await purge_store("1h", dry_run=True)
    assert capsys.readouterr().out == "would delete 0 tasks\n"
    await purge_store("0s", dry_run=True, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["tasks"] == 1
    assert found["oldest_at"] == found["newest_at"]
    await purge_store("0s", dry_run=True)
    assert (
        capsys.readouterr().out
        == f"would delete 1 task, ended from {found['oldest_at']} to {found['newest_at']}\n"
    )
    await purge_store("0s", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"deleted": 1}
