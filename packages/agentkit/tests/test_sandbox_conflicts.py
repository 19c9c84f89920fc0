"""Grants that would undo each other, or the rules themselves: refused when the configuration is read."""

import sys
from pathlib import Path

import pytest

from agentkit.errors import UsageError
from agentkit.sandbox import Grants, Trusted, check_grants

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="paths are granted on POSIX only")


def names(error):
    return str(error.value)


@pytest.mark.parametrize("kind", ["read", "write"])
@pytest.mark.parametrize("below", ["work/in", "work/in/deep", "link", "link/deep", "work/link"])
def test_a_grant_below_what_another_tool_may_write_is_refused(tmp_path, kind, below):
    (tmp_path / "work" / "in" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("work/in")
    (tmp_path / "work" / "link").symlink_to(tmp_path / "elsewhere")
    grants = {"writer": Grants(write=(tmp_path / "work",)), "other": Grants(**{kind: (tmp_path / below,)})}
    with pytest.raises(UsageError) as error:
        check_grants(grants)
    assert "writer" in names(error)
    assert "other" in names(error)
    assert str(tmp_path / below) in names(error)


def test_a_link_in_what_a_tool_may_write_is_not_its_own_grant(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "work" / "in").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match="writer may write"):
        check_grants({"writer": Grants(read=(tmp_path / "work" / "in",), write=(tmp_path / "work",))})


def test_one_tool_may_read_what_another_one_writes(tmp_path):
    for name in ("a/in", "b", "c"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "current").symlink_to("b")
    check_grants(
        {
            "writer": Grants(write=(tmp_path / "b", tmp_path / "c")),
            "reader": Grants(read=(tmp_path / "b", tmp_path / "a")),
            "by a link": Grants(read=(tmp_path / "current",)),
            "both": Grants(read=(tmp_path / "a" / "in",), write=(tmp_path / "b",)),
            "not there": Grants(read=(tmp_path / "none",), write=(tmp_path / "nothing",)),
        },
        [Trusted("the store", tmp_path / "opspawn.db")],
    )


@pytest.mark.parametrize("file", ["opspawn.toml", "not/there/yet.db", "link/opspawn.toml"])
def test_what_is_trusted_is_not_written(tmp_path, file):
    (tmp_path / "opspawn.toml").touch()
    (tmp_path / "link").symlink_to(".")
    for granted in (tmp_path, tmp_path.parent):
        with pytest.raises(UsageError, match=r"tool: .* for writing: the rules .*lies there"):
            check_grants({"tool": Grants(write=(granted,))}, [Trusted("the rules", tmp_path / file)])


def test_a_file_that_is_trusted_is_not_written(tmp_path):
    (tmp_path / "opspawn.toml").touch()
    (tmp_path / "x.toml").symlink_to("opspawn.toml")
    with pytest.raises(UsageError, match="the rules"):
        check_grants(
            {"tool": Grants(write=(tmp_path / "x.toml",))}, [Trusted("the rules", tmp_path / "opspawn.toml")]
        )


@pytest.mark.parametrize("granted", ["", "package", "package/data", "module.py", "json", "logging", "loaded"])
def test_code_is_not_written(tmp_path, monkeypatch, granted):
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    for name in ("package/data", "json", "logging", "loaded/inner"):
        (tmp_path / "path" / name).mkdir(parents=True)
    for name in ("package/__init__.py", "module.py", "loaded/inner/by_name_xyz.py"):
        (tmp_path / "path" / name).touch()
    for name in ("loaded", "loaded.inner", "loaded.inner.by_name_xyz"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    __import__("loaded.inner.by_name_xyz")
    with pytest.raises(UsageError, match="cannot be granted for writing"):
        check_grants({"tool": Grants(write=(tmp_path / "path" / granted,))})


def test_folders_of_data_beside_code_are_written(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("out", "reports/monthly", "my-data"):
        (tmp_path / name).mkdir(parents=True)
        check_grants({"tool": Grants(write=(tmp_path / name,))})


def test_where_packages_are_installed_nothing_is_written():
    here = Path(pytest.__file__).parent
    for folder in (here, here.parent, Path(sys.prefix)):
        with pytest.raises(UsageError, match="cannot be granted"):
            check_grants({"tool": Grants(write=(folder,))})
