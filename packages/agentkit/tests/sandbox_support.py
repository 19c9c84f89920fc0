"""Sandboxes for tests."""

import os
import sys
from pathlib import Path

import pytest

from agentkit.sandbox import open_sandbox
from agentkit.sandbox.jail import find_bubblewrap

HERE = Path(__file__).parent
JAILED = pytest.mark.skipif(
    find_bubblewrap() is None and "CI" not in os.environ, reason="no bubblewrap: apt-get install bubblewrap"
)
BACKENDS = ["pool", pytest.param("jail", marks=JAILED)]


def opened(backend, **options):
    """A sandbox that finds the functions beside this file."""
    return open_sandbox(backend, path=[str(HERE), *sys.path], **options)
