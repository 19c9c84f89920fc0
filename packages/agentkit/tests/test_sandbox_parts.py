"""Parts of the sandbox that can be looked at by themselves."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import UsageError
from agentkit.net.hosts import is_public
from agentkit.sandbox import HostRule
from agentkit.sandbox.child.fork_server import is_supported, libraries
from agentkit.sandbox.confined.modules import Modules, files_of
from agentkit.sandbox.confined.mounts import outermost
from agentkit.sandbox.confined.syscalls import NUMBERS
from agentkit.sandbox.manager import open_sandbox


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)
def test_an_address_of_the_internet_is_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *("100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "2001:db8::1"),
        *(
            "fec0::1",
            "192.88.99.1",
            "::ffff:192.88.99.1",
            "3fff::1",
            "3ffe::1",
            "5f00::1",
            "100::1",
            "2001:2::1",
        ),
        *(
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::1",
            "64:ff9b:1::1",
        ),
        *("", "localhost", "2130706433", "127.1", "0x7f000001"),
    ],
)
def test_every_other_address_is_not(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "rule, host, port, covered",
    [
        ("example.com", "example.com", 443, True),
        ("example.com", "EXAMPLE.com.", 443, True),
        ("example.com", "example.com", 80, False),
        ("example.com:80", "example.com", 80, True),
        ("example.com", "api.example.com", 443, False),
        ("*.example.com", "api.example.com", 443, True),
        ("*.example.com", "example.com", 443, False),
        ("*.example.com", "badexample.com", 443, False),
        ("[::1]:8080", "::1", 8080, True),
    ],
)
def test_a_rule_covers_a_host_and_a_port(rule, host, port, covered):
    assert HostRule.of(rule).covers(host, port) is covered


@pytest.mark.parametrize(
    "machine, header",
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_the_numbers_of_system_calls_are_those_of_the_headers(machine, header):
    if not Path(header).exists():
        pytest.skip(f"no {header}: linux-libc-dev is not installed")
    found = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text()))
    compared = {name: number for name, number in NUMBERS[machine].items() if name in found}
    assert len(compared) > 80
    assert compared == {name: int(found[name]) for name in compared}


MODULES = {
    "module.py",
    "native.cpython-311-x86_64-linux-gnu.so",
    "__pycache__/module.cpython-311.pyc",
    "app.dist-info/METADATA",
    "package/__init__.py",
    "package/py.typed",
    "package/sub/deep/inner.py",
    "package/sub/mod.py",
    "package/templates/page.html",
    "package/data/deep/table.csv",
    "linked/mod.py",
}
OTHERS = {
    ".env",
    "notes.db",
    "opspawn.toml",
    "id_rsa",
    "data/private.csv",
    "package/.env",
    "package/.secret.py",
    "package/.git/hook.py",
    "package/credentials.json",
    "package/sub/key.pem",
    "package/templates/.hidden.html",
    "package/templates/private.txt",
    "__pycache__/.env",
    "app.dist-info/.env",
    "not-a-name/mod.py",
}


def laid_out(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


@pytest.fixture
def project(tmp_path):
    """A folder of a project, with a package that declares its data, and other things beside and in it."""
    folder = tmp_path / "project" / "src"
    laid_out(folder, MODULES - {"linked/mod.py"} | OTHERS)
    laid_out(tmp_path, {"elsewhere/mod.py", "elsewhere/.env"})
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "package" / "sub" / "again").symlink_to("..")
    declared = (
        '[tool.setuptools.package-data]\n"*" = ["*.html"]\npackage = ["templates/*.html", "data/**/*.csv"]\n'
    )
    (tmp_path / "project" / "pyproject.toml").write_text(declared + 'other = ["../*"]\n')
    return folder


def test_of_a_folder_only_modules_and_declared_data_are_shown(project):
    found = {name for name in files_of(str(project)) if "again" not in name}
    assert found == MODULES
    assert not any("/." in name or name.startswith(".") for name in files_of(str(project)))


def test_copies_of_modules_follow_the_folder(project, tmp_path):
    modules = Modules(str(tmp_path / "copies"), ("/usr",))
    (tmp_path / "copies").mkdir()
    modules.update([str(project), "/usr/share", "/does/not/exist"])
    assert list(modules.copies) == [str(project)]
    copy = Path(modules.copies[str(project)])
    assert (copy / "package" / "sub" / "mod.py").read_text() == "package/sub/mod.py"
    assert (copy / "module.py").stat().st_mtime_ns == (project / "module.py").stat().st_mtime_ns
    assert not (copy / "package" / ".env").exists()
    (project / "later.py").write_text("later")
    (project / "package" / "sub" / "mod.py").unlink()
    (project / "package" / "late.env").write_text("secret")
    modules.update([str(project)])
    assert (copy / "later.py").read_text() == "later"
    assert not (copy / "package" / "sub" / "mod.py").exists()
    assert not (copy / "package" / "late.env").exists()


def test_an_environment_in_the_folder_of_a_project_does_not_show_the_project(tmp_path, monkeypatch):
    laid_out(tmp_path, {".env", "lib/python3.11/os.py", "bin/python", "pyvenv.cfg"})
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    own = {path for path in libraries() if path.startswith(str(tmp_path))}
    assert own == {str(tmp_path / name) for name in ("lib", "bin", "pyvenv.cfg")}


def test_what_lies_within_another_path_is_not_shown_twice(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "ab").mkdir()
    paths = [tmp_path / "ab", tmp_path / "a" / "b", tmp_path / "a", tmp_path / "none"]
    assert outermost(map(str, paths)) == [str(tmp_path / "a"), str(tmp_path / "ab")]


def test_a_sandbox_of_another_kind_is_refused():
    with pytest.raises(UsageError, match="inprocess, pool, jail"):
        open_sandbox("docker")


@pytest.mark.skipif(not is_supported(), reason="the pool needs Linux")
@pytest.mark.parametrize("after", [0, 0.001, 0.003, 0.01])
async def test_whoever_gives_up_opening_a_sandbox_leaves_no_process_behind(after, monkeypatch):
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *command: Any, **options: Any) -> None:
            super().__init__(*command, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)

    async def use() -> None:
        async with open_sandbox("pool"):
            await asyncio.Event().wait()

    using = asyncio.create_task(use())
    await asyncio.sleep(after)
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using
    assert [process.returncode for process in started if process.returncode is None] == []
