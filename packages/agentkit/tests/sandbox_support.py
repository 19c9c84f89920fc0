"""Sandboxes for tests."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from agentkit.sandbox import open_sandbox
from agentkit.sandbox.jail import find_bubblewrap

HERE = Path(__file__).parent
BACKENDS = [
    "pool",
    pytest.param(
        "jail",
        marks=pytest.mark.skipif(
            find_bubblewrap() is None and "CI" not in os.environ,
            reason="no bubblewrap: see Set-up in CONTRIBUTING.md",
        ),
    ),
]


def opened(backend, **options):
    """A sandbox that finds the functions beside this file."""
    return open_sandbox(backend, path=[str(HERE), *sys.path], **options)


def has(program):
    return shutil.which(program) is not None
