"""Granted paths: resolved once, held, and no way to anything else."""

import stat
import sys

import pytest
import pytest_asyncio

from agentkit.errors import ToolError, UsageError
from agentkit.sandbox import (
    FunctionRaised,
    Grants,
    Limits,
    ProgramTerms,
    ResultTooLarge,
    SandboxUnavailable,
)
from agentkit.sandbox.held_paths import HeldPath

from .sandbox_support import BACKENDS, JAILED, opened  # type: ignore[import-not-found]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="children are confined on Linux only"),
    pytest.mark.asyncio(loop_scope="module"),
]

WHERE = "sandboxed.granted"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=BACKENDS)
async def box(request):
    async with opened(request.param, limits=Limits(seconds=20)) as sandbox:
        yield sandbox


@pytest.fixture
def planted(tmp_path):
    """A folder that one tool may write, a folder in it that another one may read, and a secret elsewhere."""
    (tmp_path / "work" / "in").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("TOP-SECRET")
    return tmp_path


async def test_a_link_that_another_tool_has_planted_is_not_followed(box, planted):
    work, within = planted / "work", planted / "work" / "in"
    reads = Grants(read=(within,))
    given = {"path": str(within), "target": str(planted / "secret")}
    planted_by = await box.call(f"{WHERE}:plant", given, grants=Grants(write=(work,)))
    assert planted_by.value == str(planted / "secret")
    with pytest.raises(UsageError, match="was replaced after the configuration was read"):
        await box.call(f"{WHERE}:read", {"path": str(within / "key")}, grants=reads)


async def test_nor_where_it_is_planted_after_the_call_was_checked(box, planted, monkeypatch):
    within = planted / "work" / "in"
    for grants in (Grants(read=(within,)), Grants(write=(within,))):
        within.rmdir()
        within.symlink_to(planted / "secret")
        with monkeypatch.context() as patched:
            patched.setattr(HeldPath, "check", lambda _self: None)
            with pytest.raises(SandboxUnavailable, match=r"replaced after|No such file"):
                await box.call(f"{WHERE}:read", {"path": str(within / "key")}, grants=grants)
        within.unlink()
        within.mkdir()


async def test_another_folder_of_the_same_name_is_not_what_was_granted(box, planted):
    within = planted / "work" / "in"
    grants = Grants(read=(within,))
    within.rename(planted / "work" / "before")
    within.mkdir()
    with pytest.raises(UsageError, match="start again to grant what is there now"):
        await box.call(f"{WHERE}:readable", {"paths": []}, grants=grants)


async def test_what_did_not_exist_when_it_was_granted_is_not_looked_for_again(box, tmp_path):
    grants = Grants(read=(tmp_path / "later",))
    (tmp_path / "later").mkdir()
    with pytest.raises(UsageError, match="does not exist"):
        await box.call(f"{WHERE}:readable", {"paths": []}, grants=grants)


async def test_a_link_is_followed_when_it_is_granted(box, planted):
    (planted / "current").symlink_to("secret")
    grants = Grants(read=(planted / "current",))
    (planted / "current").unlink()
    found = await box.call(f"{WHERE}:read", {"path": str(planted / "secret" / "key")}, grants=grants)
    assert found.value == "TOP-SECRET"


async def test_single_files_and_folders_within_each_other_are_granted(box, planted):
    (planted / "work" / "note").write_text("noted")
    grants = Grants(read=(planted, planted / "work" / "note"), write=(planted / "work" / "in",))
    paths = [str(planted / "work" / "note"), str(planted / "secret" / "key")]
    assert (await box.call(f"{WHERE}:readable", {"paths": paths}, grants=grants)).value == paths
    written = {"path": str(planted / "work" / "in" / "new"), "text": "new"}
    assert (await box.call(f"{WHERE}:write", written, grants=grants)).value == ["new"]
    with pytest.raises(FunctionRaised):
        await box.call(f"{WHERE}:write", {**written, "path": paths[0]}, grants=grants)
    alone = Grants(read=(planted / "work" / "note",))
    assert (await box.call(f"{WHERE}:readable", {"paths": paths}, grants=alone)).value == paths[:1]


@JAILED
async def test_no_file_is_made_that_runs_with_the_rights_of_its_owner(box, tmp_path):
    """One in a granted folder would be the worker's user for whoever of the machine runs it."""
    failed = await box.call(f"{WHERE}:set_id", {"folder": str(tmp_path)}, grants=Grants(write=(tmp_path,)))
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert not any(mode & (stat.S_ISUID | stat.S_ISGID) for mode in modes.values()), modes
    assert {"open", "openat", "openat2"} <= set(failed.value)


async def test_a_program_does_not_start_behind_a_link_that_it_has_planted(planted):
    work, within = planted / "work", planted / "work" / "in"
    terms = ProgramTerms(grants=Grants(read=(within,), write=(work,)), folder=str(within))
    async with opened("jail") as jail:
        async with jail.open_program(["pwd", "-P"], terms) as program:
            assert (await program.stdout.read()).decode().strip() == str(within)
        within.rmdir()
        within.symlink_to(planted / "secret")
        with pytest.raises(ToolError, match="cannot be started"):
            async with jail.open_program(["cat", "key"], terms) as program:
                assert b"SECRET" not in await program.stdout.read()


@pytest.mark.parametrize("kind", ["lists", "fields"])
async def test_a_result_of_a_million_small_values_is_refused_before_it_is_read(box, kind):
    with pytest.raises(ResultTooLarge, match="more than 100000 values"):
        await box.call(f"{WHERE}:many_values", {"kind": kind})


async def test_what_stands_in_a_text_is_no_value(box):
    found = (await box.call(f"{WHERE}:many_values", {"kind": "text"})).value
    assert (len(found["text"]), len(found["escaped"])) == (1_500_000, 250_000)
