"""The pool where it has less to work with: a filter that refuses namespaces, a worker that is nobody."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentkit.sandbox.confined import landlock

from .sandbox_support import HERE  # type: ignore[import-not-found]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="children are confined on Linux only"),
    pytest.mark.skipif(landlock.abi() == 0, reason="without namespaces and Landlock there is no pool"),
]


def is_open_to_all(path):
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (path, *path.parents))


@pytest.mark.parametrize("given_up", ["namespaces", "root", "root,namespaces"])
def test_the_pool_holds_in_worse_places(given_up, tmp_path):
    if "root" in given_up and os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    if "root" in given_up and not all(map(is_open_to_all, (Path(sys.executable).resolve().parent, HERE))):
        pytest.skip("the interpreter is where only its owner gets to")
    secret = tmp_path / "secret"
    secret.write_text("canary")
    secret.chmod(0o666)
    before = secret.stat()
    done = subprocess.run(
        [sys.executable, str(HERE / "sandboxed" / "places.py"), given_up, str(HERE), str(secret)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    pool, jail = map(json.loads, done.stdout.splitlines())
    found = pool["found"]
    assert ("namespaces" in pool["means"]) == ("namespaces" not in given_up)
    assert found.pop("kill_others") in {"alive", "ToolCrashed"}
    assert found.pop("leave_a_daemon") == "FunctionRaised"
    assert found == {
        "loop_deaf": "ToolTimeout",
        "stop_itself": "ToolTimeout",
        "fill_memory": "MemoryExceeded",
        "fork_bomb": "FunctionRaised",
        "flood_output": "OutputTooLarge",
        "fill_disk": "DiskExceeded",
        "read_files": [],
        "change_files": [],
        "connect_unix": [],
        "own_files": ["first", "second"],
        "in_threads": 328350,
    }
    after = secret.stat()
    assert (after.st_mode, after.st_mtime_ns, secret.read_text()) == (
        before.st_mode,
        before.st_mtime_ns,
        "canary",
    )
    if "namespaces" in given_up:
        assert "bubblewrap" in jail or "no jail" in jail
