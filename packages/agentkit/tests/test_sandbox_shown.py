"""What a sandbox shows beside what is granted: programs, libraries, modules; and a grant opens nothing else."""

import os
import site
import sys
from pathlib import Path
from typing import Any

import pytest

from agentkit.sandbox import FunctionRaised, Grants, Limits, SandboxUnavailable, id_maps, open_sandbox

from .sandbox_support import BACKENDS, HERE  # type: ignore[import-not-found]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children are confined on Linux only")

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="the worker has to be root")
READABLE = "sandboxed.granted:readable"
PLACES = [*BACKENDS, "pool without landlock", "pool without namespaces"]


def opened(where, path=()):
    backend, _, without = where.partition(" without ")
    more: dict[str, Any] = {"without": [without]} if without else {}
    return open_sandbox(
        backend, path=[*map(str, path), str(HERE), *sys.path], limits=Limits(seconds=20), **more
    )


@pytest.mark.parametrize("where", PLACES)
async def test_of_a_package_modules_and_declared_data_are_read(where, tmp_path):
    package = tmp_path / "shown_app"
    (package / "sub").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "mod.py").write_text("def table():\n    return open(__file__[:-6] + 'sub/table.csv').read()\n")
    (package / "sub" / "table.csv").write_text("1,2")
    (tmp_path / "pyproject.toml").write_text('[tool.setuptools.package-data]\nshown_app = ["sub/*.csv"]')
    secrets = [package / ".env", package / "credentials.json", package / "sub" / ".env", tmp_path / ".env"]
    for secret in secrets[1:]:
        secret.write_text("KEY=private")
    granted = tmp_path / "granted"
    granted.mkdir()
    async with opened(where, [tmp_path]) as box:
        secrets[0].write_text("KEY=private")  # also what is made later
        for grants in (Grants(), Grants(read=(granted,)), Grants(write=(granted,))):
            assert (await box.call("shown_app.mod:table", grants=grants)).value == "1,2"
            paths = {"paths": [str(each) for each in secrets]}
            assert (await box.call(READABLE, paths, grants=grants)).value == []


@pytest.mark.parametrize("where", PLACES)
async def test_of_the_system_public_parts_are_shown(where):
    private = [
        "/usr/src",
        "/usr/local/etc",
        "/usr/local/src",
        "/etc/ssl/private",
        "/etc/pki/tls/private",
        "/etc/shadow",
    ]
    async with opened(where) as box:
        found = (
            await box.call("sandboxed.granted:listed", {"paths": [*private, "/etc/ssl/certs", "/usr/lib"]})
        ).value
    assert found == [path for path in ("/etc/ssl/certs", "/usr/lib") if Path(path).exists()]


# --- a worker that is root ------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A granted folder, and a folder of packages; in both is what only root may read."""
    tmp_path.chmod(0o700)
    for name in ("granted", "packages"):
        (tmp_path / name).mkdir(mode=0o700)
        (tmp_path / name / "key").write_text("private")
        (tmp_path / name / "key").chmod(0o600)
    (tmp_path / "packages").chmod(0o755)
    monkeypatch.setattr(site, "getusersitepackages", lambda: str(tmp_path / "packages"))
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    return tmp_path


@AS_ROOT
@pytest.mark.parametrize("where", BACKENDS)
async def test_a_grant_opens_its_own_paths_to_a_child_of_root_and_no_others(where, folders):
    granted, key = folders / "granted", folders / "packages" / "key"
    paths = {"paths": [str(granted / "key"), str(key)]}
    async with opened(where) as box:
        assert (await box.call(READABLE, paths)).value == []
        for grants in (Grants(read=(granted,)), Grants(write=(granted,)), Grants(read=(granted / "key",))):
            assert (await box.call(READABLE, paths, grants=grants)).value == [str(granted / "key")]
        new = {"path": str(granted / "new"), "text": "new"}
        await box.call("sandboxed.granted:write", new, grants=Grants(write=(granted,)))
        with pytest.raises(FunctionRaised):
            await box.call("sandboxed.granted:write", new, grants=Grants(read=(granted,)))
    assert (granted / "new").stat().st_uid == 0
    assert (granted / "new").read_text() == "new"


@AS_ROOT
@pytest.mark.parametrize("where", BACKENDS)
async def test_where_owners_cannot_be_mapped_a_grant_that_is_not_open_is_refused(where, folders, monkeypatch):
    def refused(_mounted, _namespace):
        raise OSError(22, "no such mounts here")

    monkeypatch.setattr(id_maps, "map_mount_ids", refused)
    public = folders / "public"
    public.mkdir()
    public.chmod(0o755)
    (public / "note").write_text("noted")
    (public / "note").chmod(0o644)
    paths = {"paths": [str(public / "note"), str(folders / "packages" / "key")]}
    async with opened(where) as box:
        assert (await box.call(READABLE, paths, grants=Grants(read=(public,)))).value == [
            str(public / "note")
        ]
        for grants in (Grants(read=(folders / "granted",)), Grants(write=(public,))):
            with pytest.raises(SandboxUnavailable, match="the worker is root"):
                await box.call(READABLE, paths, grants=grants)
