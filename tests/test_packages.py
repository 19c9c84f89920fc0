"""The two distributions as they are installed elsewhere: names, contents, and a task in an environment of their own."""

import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from email.parser import HeaderParser
from importlib.metadata import requires
from pathlib import Path

import pytest

import agentkit
import ops_core
from ops_core.cli.agentkit_check import OURS

ROOT = Path(__file__).parents[1]
FOLDERS = {"opspawn-agentkit": ROOT / "packages" / "agentkit", "opspawn": ROOT / "packages" / "ops-core"}


def run(*command: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    bare = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(cwd), "LANG": "C.UTF-8"}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**bare, **env},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, Path]:
    """Both wheels, built from this checkout."""
    folder = tmp_path_factory.mktemp("wheels")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "wheel",
        "-q",
        "--no-deps",
        "--no-index",
    ]
    built = run(*pip, "--no-build-isolation", "-w", folder, *FOLDERS.values(), cwd=folder)
    assert built.returncode == 0, built.stderr
    return {name: next(folder.glob(f"{name.replace('-', '_')}-*.whl")) for name in FOLDERS}


@pytest.fixture(scope="module")
def installed(wheels, tmp_path_factory) -> Path:
    """An environment with the wheels alone; what they depend on is this environment's."""
    folder = tmp_path_factory.mktemp("environment")
    assert run(sys.executable, "-m", "venv", "--without-pip", "env", cwd=folder).returncode == 0
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder / "env/bin/python"]
    done = run(*pip, "install", "-q", "--no-deps", "--no-index", *wheels.values(), cwd=folder)
    assert done.returncode == 0, done.stderr
    packages = next((folder / "env").glob("lib/python*/site-packages"))
    # a file of this kind in there is not read: our own editable packages are not found
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env" / "bin"


def metadata_of(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        name = next(each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return HeaderParser().parsestr(archive.read(name).decode()), archive.namelist()


@pytest.mark.parametrize("name", FOLDERS)
def test_a_wheel_says_whose_it_is(wheels, name):
    metadata, files = metadata_of(wheels[name])
    assert (metadata["Name"], metadata["Version"]) == (name, ops_core.__version__)
    assert (metadata["License-Expression"], metadata["License-File"]) == ("Apache-2.0", "LICENSE")
    assert metadata["Author"] == "The Opspawn authors"
    assert metadata.get_payload().startswith(f"# {name}\n")
    assert any(each.endswith("/licenses/LICENSE") for each in files)
    assert any(each.endswith("/py.typed") for each in files)
    assert (FOLDERS[name] / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_both_are_of_one_release_and_ask_for_nothing_of_a_stranger(wheels):
    metadata, _files = metadata_of(wheels["opspawn"])
    needed = metadata.get_all("Requires-Dist") or []
    ours = [each for each in needed if "agentkit" in each]
    assert f"opspawn-agentkit=={ops_core.__version__}" in ours
    assert all(re.match(rf"opspawn-agentkit(\[\w+\])?=={ops_core.__version__}", each) for each in ours)
    assert agentkit.__version__ == ops_core.__version__
    assert agentkit.__distribution__ == OURS


def test_what_is_installed_from_wheels_runs_a_task(installed, tmp_path):
    where = run(
        installed / "python", "-c", "import agentkit, ops_core; print(agentkit.__file__)", cwd=tmp_path
    )
    assert where.stdout.startswith(str(installed.parent)), where
    assert run(installed / "opspawn", "--version", cwd=tmp_path).stdout == f"opspawn {ops_core.__version__}\n"
    done = run(installed / "opspawn", "run", "What is 6 * 7?", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "42" in done.stdout


@pytest.mark.parametrize("command", [["--version"], ["doctor"], ["run", "x"]], ids=" ".join)
def test_another_projects_agentkit_is_noticed_and_not_run(tmp_path, command):
    (tmp_path / "agentkit").mkdir()
    (tmp_path / "agentkit" / "__init__.py").write_text("raise SystemExit('a stranger ran')\n")
    refused = run(Path(sys.executable).parent / "opspawn", *command, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert str(tmp_path) in refused.stderr
    assert "another project's" in refused.stderr
    assert f"{OURS}=={ops_core.__version__}" in refused.stderr


@pytest.mark.parametrize(
    "files, problem",
    [
        ({}, "is missing"),
        ({"agentkit/other.py": ""}, "another project's"),  # a package without __init__.py
        (
            {"agentkit/__init__.py": '__version__ = "0.0.9"\n__distribution__ = "opspawn-agentkit"\n'},
            "is of release 0.0.9",
        ),
    ],
    ids=["none", "namespace", "older"],
)
def test_an_agentkit_that_does_not_fit_is_named(tmp_path, files, problem):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    script = (
        "import sys; import ops_core.cli.agentkit_check as companion\n"
        f"sys.path[:] = [{str(tmp_path)!r}]; sys.path_importer_cache.clear()\n"
        "print(companion.problem_with_agentkit())"
    )
    done = run(sys.executable, "-c", script, cwd=tmp_path)
    assert problem in done.stdout, done


NAMES = re.compile(r"(?<![\w/.-])(?:agentkit|ops-core|ops_core)\[[a-z]")


@pytest.mark.parametrize("folder", ["packages", "docs", "README.md", "Makefile", "Dockerfile", ".ci"])
def test_no_page_and_no_error_names_a_strangers_distribution(folder):
    place = ROOT / folder
    files = (
        [place]
        if place.is_file()
        else [each for each in place.rglob("*") if each.suffix in {".py", ".md", ".toml", ""}]
    )
    for file in files:
        if file.is_file() and not {"node_modules", "_build", "__pycache__"} & set(file.parts):
            assert not NAMES.search(file.read_text(encoding="utf-8", errors="replace")), file


def test_the_packages_are_declared_once():
    declared = {
        name: tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        for name, folder in FOLDERS.items()
    }
    assert {name: each["name"] for name, each in declared.items()} == {name: name for name in FOLDERS}
    assert requires("opspawn") is None or "opspawn-agentkit" in " ".join(requires("opspawn") or [])


def test_the_supported_versions_of_python_are_those_that_are_tested():
    page = (ROOT / "docs/reference/support.md").read_text()
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    declared = [
        tomllib.loads((folder / "pyproject.toml").read_text())["project"]["requires-python"]
        for folder in FOLDERS.values()
    ]
    lowest, highest = re.search(r"\| Python \| (\S+) to (\S+) \|", page).groups()

    assert f'python: ["{lowest}", "{highest}"]' in workflow
    assert declared == [f">={lowest}"] * 2
