"""Sandboxes for tests."""

import os
import resource
import sys
from pathlib import Path

import pytest

from agentkit.sandbox import open_sandbox
from agentkit.sandbox.backends.jail import find_bubblewrap

HERE = Path(__file__).parent
NAME = f"sbx-{os.getpid()}"
"""What hostile code calls its processes: by it they are found from outside."""
JAILED = pytest.mark.skipif(
    find_bubblewrap() is None and "CI" not in os.environ, reason="no bubblewrap: apt-get install bubblewrap"
)
BACKENDS = ["pool", pytest.param("jail", marks=JAILED)]


def opened(backend, **options):
    """A sandbox that finds the functions beside this file."""
    return open_sandbox(backend, path=[str(HERE), *sys.path], **options)


def left_behind(name=NAME):
    """Processes that an attack has made and that are still there."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if (folder / "comm").read_text().strip() == name and "State:\tZ" not in (
                    folder / "status"
                ).read_text():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def memory_of_this_process():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
