"""The journals keep the contract; the file one survives what files suffer."""

import asyncio
import json
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest

from agentkit import Agent, FileJournal, MemoryJournal, tool
from agentkit.errors import JournalError, TranscriptError
from agentkit.testing import JournalContract, ScriptedModel
from agentkit.transcript.steps import RunStarted, ToolStarted


class TestMemoryJournal(JournalContract):
    @pytest.fixture
    def journal_factory(self):
        journal = MemoryJournal()

        @asynccontextmanager
        async def opened():
            yield journal

        return opened


class TestFileJournal(JournalContract):
    @pytest.fixture
    def journal_factory(self, tmp_path):
        return lambda: FileJournal(tmp_path / "run.jsonl")


START = RunStarted(run_id="r", agent="agent", input="go")


async def test_a_half_written_line_is_dropped_and_the_file_goes_on(tmp_path):
    file = tmp_path / "run.jsonl"
    async with FileJournal(file) as journal:
        await journal.append(START)
    whole = file.read_bytes()
    for torn in (b"{", b'{"seq": 1, "at": 1', whole.rstrip(b"\n")):
        file.write_bytes(whole + torn)
        async with FileJournal(file) as journal:
            assert len(await journal.load()) == 1
            await journal.append(ToolStarted(call_id="c", tool="t"))
        assert [json.loads(line)["seq"] for line in file.read_text().splitlines()] == [0, 1]


@pytest.mark.parametrize(
    "damage", [b"nonsense\n", b"[]\n", b'{"seq": 7, "at": 1, "v": 1, "kind": "run_retried", "of": "x"}\n']
)
async def test_a_damaged_line_is_named(tmp_path, damage):
    file = tmp_path / "run.jsonl"
    async with FileJournal(file) as journal:
        await journal.append(START)
    with file.open("ab") as opened:
        opened.write(damage)
    with pytest.raises(TranscriptError, match="line 2"):
        async with FileJournal(file):
            pass


async def test_what_was_being_written_is_loaded(tmp_path):
    """A cancelled run looks at its journal again: a step that comes after that could be a second end."""
    async with FileJournal(tmp_path / "run.jsonl") as journal:
        for _ in range(30):
            pending = asyncio.ensure_future(journal.append(START))
            await asyncio.sleep(0)
            pending.cancel()
            await asyncio.wait({pending})
            loaded = await journal.load()
            assert (await journal.append(START)).seq == len(loaded)


def test_what_a_full_disk_refuses_is_not_in_the_file(tmp_path):
    code = (
        "import asyncio, resource, signal, sys\n"
        "from agentkit import FileJournal\n"
        "from agentkit.errors import JournalError\n"
        "from agentkit.transcript.steps import ToolReturned\n"
        "async def main():\n"
        "    async with FileJournal(sys.argv[1]) as journal:\n"
        "        await journal.append(ToolReturned(call_id='first', tool='t'))\n"
        "        before = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.path.stat().st_size + 20, before[1]))\n"
        "        for size in (100, 100_000):\n"
        "            try: await journal.append(ToolReturned(call_id='no', tool='t', output='x' * size))\n"
        "            except JournalError: pass\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, before)\n"
        "        await journal.append(ToolReturned(call_id='second', tool='t'))\n"
        "    async with FileJournal(sys.argv[1]) as journal:\n"
        "        print([recorded.step.call_id for recorded in await journal.load()])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "asyncio.run(main())\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "run.jsonl"], capture_output=True, text=True, check=True
    )
    assert found.stdout == "['first', 'second']\n"


async def test_it_must_be_open(tmp_path):
    with pytest.raises(JournalError, match="async with"):
        await FileJournal(tmp_path / "run.jsonl").load()


async def test_a_second_process_is_refused(tmp_path):
    file = tmp_path / "run.jsonl"
    code = (
        "import asyncio, sys\n"
        "from agentkit import FileJournal\n"
        "async def main():\n"
        "    async with FileJournal(sys.argv[1]): print('opened', flush=True)\n"
        "asyncio.run(main())\n"
    )
    async with FileJournal(file):
        other = subprocess.run(
            [sys.executable, "-c", code, file], capture_output=True, text=True, check=False
        )
    assert "open in another process" in other.stderr
    other = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)
    assert other.stdout == "opened\n"


async def test_a_killed_process_is_carried_on_by_another(tmp_path):
    """The library alone, without a platform: a file is enough."""
    file = tmp_path / "run.jsonl"
    code = (
        "import os, sys\n"
        "from agentkit import Agent, FileJournal, ToolCall, tool\n"
        "from agentkit.testing import ScriptedModel\n"
        "import asyncio\n"
        "@tool(effect='pure')\n"
        "def one() -> int:\n"
        "    'One.'\n"
        "    return 1\n"
        "@tool(effect='idempotent')\n"
        "def die() -> None:\n"
        "    'Kill the process.'\n"
        "    os.kill(os.getpid(), 9)\n"
        "async def main():\n"
        "    async with FileJournal(sys.argv[1]) as journal:\n"
        "        model = ScriptedModel([ToolCall(id='a', name='one'), ToolCall(id='b', name='die')])\n"
        "        await Agent(model, tools=[one, die]).run('go', journal=journal)\n"
        "asyncio.run(main())\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, file], check=False)
    assert killed.returncode == -9

    def die() -> str:
        """Survive."""
        return "alive"

    def one() -> int:
        """Never called again."""
        raise AssertionError

    tools = [tool(effect="idempotent")(die), tool(effect="pure")(one)]
    async with FileJournal(file) as journal:
        outcome = await Agent(ScriptedModel(["done"]), tools=tools).run("go", journal=journal)
    assert outcome.unwrap() == "done"
    assert outcome.usage.tool_calls == 2
