"""Programs that stay, in the jail: servers that are spoken to, and hostile ones."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from agentkit.errors import ToolTimeout, UsageError
from agentkit.sandbox import (
    CpuExceeded,
    Grants,
    MemoryExceeded,
    ProgramLimits,
    ProgramTerms,
    SandboxRefused,
    ToolCrashed,
    TooManyProcesses,
)
from agentkit.sandbox.terms import MIB

from .mcp_servers import node, peer  # type: ignore[import-not-found]
from .sandbox_support import (  # type: ignore[import-not-found]
    HERE,
    JAILED,
    NAME,
    left_behind,
    memory_of_this_process,
    opened,
)

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="jails are made on Linux only"),
    pytest.mark.asyncio(loop_scope="module"),
    JAILED,
]

SCRIPT = str(HERE / "sandboxed" / "staying.py")
CANARY = "canary-of-programs"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box():
    async with opened("jail", secrets={"TOKEN": "s3cret"}) as box:
        yield box
        assert not left_behind()


@asynccontextmanager
async def staying(box, does, *arguments, limits=None, grants=None, **environment):
    terms = ProgramTerms(
        limits=limits or ProgramLimits(),
        grants=grants or Grants(),
        environment={"SBX_NAME": NAME, **environment},
    )
    async with box.open_program([sys.executable, "-I", SCRIPT, does, *map(str, arguments)], terms) as program:
        yield program


async def said(program):
    line = await asyncio.wait_for(program.stdout.readline(), 30)
    assert line, (await program.stderr.read()).decode()
    return json.loads(line)


async def gone():
    """An attack's processes are; that is looked at from outside, without waiting."""
    assert left_behind() == []


# --- a server, as it should be ------------------------------------------------------------------------------------


async def test_a_program_is_spoken_to_line_by_line_and_ends_by_itself(box):
    async with staying(box, "echo") as program:
        assert await said(program) == "here"
        for text in ("one", "zwölf ✓", "x" * (3 * MIB)):
            program.stdin.write(text.encode() + b"\n")
            await program.stdin.drain()
            assert await said(program) == text
        assert (program.returncode, program.failure) == (None, None)
        program.stdin.close()
        assert await program.wait() == program.returncode == 7
        assert program.failure is None
        assert await program.stderr.read() == b""


async def test_it_has_what_was_named_and_nothing_else(box, tmp_path, monkeypatch):
    monkeypatch.setenv("SBX_CANARY", CANARY)
    ssh = Path.home() / ".ssh"
    secret = tmp_path / "secret"
    secret.write_text(CANARY)
    seen = tmp_path / "seen"
    seen.mkdir()
    (seen / "note").write_text("noted")
    parent = f"/proc/{os.getpid()}/environ"
    leaked = os.open(secret, os.O_RDONLY)
    os.set_inheritable(leaked, True)
    paths = [str(path) for path in (ssh, secret, seen / "note", parent, "/proc/1/environ", "/etc/shadow")]
    terms = ProgramTerms(
        grants=Grants(read=(seen,), secrets=("TOKEN",)), environment={"MODE": "test"}, folder=str(seen)
    )
    async with box.open_program([sys.executable, SCRIPT, "look", *paths], terms) as program:
        found = await said(program)
    os.close(leaked)
    assert CANARY not in str(found)
    assert found["files"].pop(str(seen / "note")) == "noted"
    assert all(type(each) is int or each == "" for each in found["files"].values())
    assert found["folder"] == str(seen)
    assert found["descriptors"] == []
    assert len(found["processes"]) <= 3
    assert {name: found["environment"].pop(name) for name in ("MODE", "TOKEN")} == {
        "MODE": "test",
        "TOKEN": "s3cret",
    }
    assert set(found["environment"]) <= {
        *("PATH", "LANG", "LC_CTYPE", "HOME", "TMPDIR", "PWD"),
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MALLOC_ARENA_MAX"),
    }


async def test_it_writes_where_it_may(box, tmp_path):
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    files = [tmp_path / "in" / "file", tmp_path / "out" / "file", tmp_path / "file", Path("/tmp/own")]
    grants = Grants(read=(tmp_path / "in",), write=(tmp_path / "out",))
    async with staying(box, "write", *files, grants=grants) as program:
        heard = [await said(program) == "written" for _ in files]
        assert heard == [False, True, True, True]  # what lies below /tmp is its own
    assert [path.exists() for path in files] == [False, True, False, False]


async def test_it_is_asked_to_end_before_it_is_killed(box):
    async with staying(box, "polite") as program:
        assert await said(program) == "here"
        program.terminate()
        assert await said(program) == "leaving"
        assert await program.wait() == 0


HELLO = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


@pytest.mark.parametrize("server", ["filesystem", "memory", "time", "git"])
async def test_servers_that_nobody_here_wrote_run_in_it(box, server, tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    program = {
        "filesystem": lambda: [node(), peer("server-filesystem"), str(tmp_path)],
        "memory": lambda: [node(), peer("server-memory")],
        "time": lambda: [sys.executable, "-m", "mcp_server_time"],
        "git": lambda: [sys.executable, "-m", "mcp_server_git", "-r", str(tmp_path)],
    }[server]()
    environment = {"MEMORY_FILE_PATH": str(tmp_path / "memory.json")} if server == "memory" else {}
    grants = Grants(read=(HERE / "mcp_peers",), write=(tmp_path,))
    terms = ProgramTerms(grants=grants, environment=environment)
    calls = {
        "filesystem": ("write_file", {"path": str(tmp_path / "new"), "content": "x"}),
        "memory": ("create_entities", {"entities": [{"name": "a", "entityType": "b", "observations": []}]}),
        "time": ("get_current_time", {"timezone": "Europe/Oslo"}),
        "git": ("git_status", {"repo_path": str(tmp_path)}),
    }
    name, arguments = calls[server]
    async with box.open_program(program, terms) as running:

        async def ask(number, method, parameters):
            message = {"jsonrpc": "2.0", "id": number, "method": method, "params": parameters}
            running.stdin.write(json.dumps(message).encode() + b"\n")
            while True:
                answer = await said(running)
                if answer.get("id") == number and "method" not in answer:
                    return answer["result"]

        assert "serverInfo" in await ask(1, "initialize", HELLO)
        running.stdin.write(b'{"jsonrpc": "2.0", "method": "notifications/initialized"}\n')
        assert not (await ask(2, "tools/call", {"name": name, "arguments": arguments})).get("isError")
    assert server != "filesystem" or (tmp_path / "new").read_text() == "x"
    assert server != "memory" or (tmp_path / "memory.json").exists()


# --- it does not start --------------------------------------------------------------------------------------------


async def test_what_cannot_be_executed_is_told(box, tmp_path):
    (tmp_path / "program").write_text("#!/bin/sh\n")
    (tmp_path / "program").chmod(0o755)
    for name in ("no-such-program", str(tmp_path / "program"), "/etc/services"):
        with pytest.raises(SandboxRefused, match="cannot be started"):
            async with box.open_program([name]):
                pass


@pytest.mark.parametrize(
    "program, terms",
    [
        ([], {}),
        ([""], {}),
        (["a\0b"], {}),
        (["true"], {"environment": {"A=B": "c"}}),
        (["true"], {"environment": {"A": "\0"}}),
        (["true"], {"folder": "/usr"}),
        (["true"], {"folder": "/tmp/../etc"}),
        (["true"], {"grants": Grants(read=("relative",))}),
        (["true"], {"grants": Grants(secrets=("OTHER",))}),
    ],
)
async def test_what_makes_no_sense_is_refused(box, program, terms):
    with pytest.raises(UsageError):
        async with box.open_program(program, ProgramTerms(**terms)):
            pass


async def test_limits_that_make_no_sense_are_refused():
    for wrong in ({"memory_bytes": 0}, {"processes": -1}, {"cpu_seconds": float("inf")}):
        with pytest.raises(UsageError):
            ProgramLimits(**wrong)


async def test_what_does_not_start_in_time_is_given_up(box):
    terms = ProgramTerms(deadline=time.monotonic() + 0.001, grants=Grants(read=(HERE,)))
    with pytest.raises(ToolTimeout, match="start"):
        async with box.open_program(["cat"], terms):
            pass


async def test_a_start_that_is_cancelled_leaves_nothing(box):
    for delay in (0, 0.005, 0.015, 0.02, 0.025, 0.03, 0.05):
        starting = asyncio.create_task(staying(box, "deaf", grants=Grants(read=(HERE,))).__aenter__())
        await asyncio.sleep(delay)
        began = time.monotonic()
        if starting.cancel():
            await asyncio.wait({starting})
            assert starting.cancelled()
        assert time.monotonic() - began < 3
    await gone()


# --- it is hostile ------------------------------------------------------------------------------------------------


async def test_nothing_that_it_has_started_stays_when_it_ends(box):
    async with staying(box, "daemons_and_go") as program:
        assert await said(program) == "left"
        assert await program.wait() == 0
        await gone()


@pytest.mark.parametrize("does", ["daemons_and_stay", "deaf", "stopped", "bomb"])
async def test_it_is_gone_with_all_that_it_has_started_when_its_context_is_left(box, does):
    async with staying(box, does, limits=ProgramLimits(processes=24)) as program:
        await said(program)
        program.terminate()
        began = time.monotonic()
    assert time.monotonic() - began < 2
    await gone()


async def test_a_cancelled_owner_takes_it_along(box):
    begun = asyncio.Event()

    async def own():
        async with staying(box, "deaf") as program:
            await said(program)
            begun.set()
            await program.wait()

    owner = asyncio.create_task(own())
    await begun.wait()
    owner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await owner
    await gone()


@pytest.mark.parametrize("does", ["eat", "eat_together"])
async def test_its_memory_is_limited_that_of_all_its_processes_together(box, does):
    async with staying(box, does, limits=ProgramLimits(memory_bytes=96 * MIB)) as program:
        await said(program)
        await asyncio.sleep(0.5)  # it is looked at seldom while it does nothing
        program.stdin.write(b"\n")
        code = await asyncio.wait_for(program.wait(), 30)
        if does == "eat_together" or code < 0:
            assert isinstance(program.failure, MemoryExceeded)
        else:
            assert b"MemoryError" in await program.stderr.read()
        await gone()


async def test_it_makes_no_more_processes_than_it_may(box):
    async with staying(box, "bomb", limits=ProgramLimits(processes=24)) as program:
        await said(program)
        if os.geteuid() == 0:  # the kernel counts them for others
            terms = (TooManyProcesses, MemoryExceeded)
            await asyncio.sleep(0.3)
            assert len(left_behind()) <= 24 or isinstance(program.failure, terms)
        assert len(left_behind()) <= 200
    await gone()


async def test_processor_time_is_limited_where_that_is_said(box):
    async with staying(box, "bomb", limits=ProgramLimits(cpu_seconds=0.3, processes=8)) as program:
        await asyncio.wait_for(program.wait(), 30)
        assert isinstance(program.failure, CpuExceeded | TooManyProcesses)


@pytest.mark.parametrize("descriptor", [1, 2])
async def test_what_nobody_reads_is_not_kept(box, descriptor):
    before = memory_of_this_process()
    async with staying(box, "flood", descriptor, limits=ProgramLimits(line_bytes=1 * MIB)) as program:
        if descriptor == 2:
            assert await said(program) == "flooding"
        await asyncio.sleep(0.3)
        assert memory_of_this_process() - before < 24 * MIB
        reader = program.stdout if descriptor == 1 else program.stderr
        for _ in range(100):
            assert await reader.read(65536)
    await gone()


async def test_a_line_that_is_too_long_is_an_error_of_reading(box):
    async with staying(box, "long_line", 5 * MIB, limits=ProgramLimits(line_bytes=1 * MIB)) as program:
        with pytest.raises(ValueError, match="limit"):
            await program.stdout.readline()
    async with staying(box, "long_line", 5 * MIB) as program:
        assert len(await program.stdout.readline()) == 5 * MIB + 1


async def test_a_crash_is_told(box):
    async with box.open_program(["sh", "-c", "kill -SEGV $$"]) as program:
        assert await program.wait() == -signal.SIGSEGV
        assert isinstance(program.failure, ToolCrashed)


async def test_it_ends_with_the_fork_server_and_another_one_is_started():
    async with opened("jail") as other:
        async with staying(other, "deaf") as program:
            await said(program)
            other._server._process.kill()
            assert await asyncio.wait_for(program.wait(), 30) == -signal.SIGKILL
            assert isinstance(program.failure, ToolCrashed)
            await gone()
        async with other.open_program(["true"]) as program:
            assert await program.wait() == 0


OWNER = """
import asyncio, sys
from agentkit.sandbox import ProgramTerms, open_sandbox

async def main(script, name, does):
    async with open_sandbox("jail", path=[*sys.path, {here!r}]) as box:
        terms = ProgramTerms(environment={{"SBX_NAME": name}})
        async with box.open_program([sys.executable, "-I", script, does], terms) as program:
            print((await program.stdout.readline()).decode(), flush=True)
            await asyncio.sleep(1000)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_it_ends_when_this_process_is_killed():
    name = f"own-{os.getpid()}"
    command = [sys.executable, "-c", OWNER.format(here=str(HERE)), SCRIPT, name, "daemons_and_stay"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
        line = owner.stdout.readline().strip()
        there = len(left_behind(name))
        owner.kill()
    assert (line, there) == (b'"left"', 4)
    async with asyncio.timeout(10):
        while left_behind(name):
            await asyncio.sleep(0.02)
