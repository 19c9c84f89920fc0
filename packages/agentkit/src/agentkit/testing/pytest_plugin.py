"""Pytest plugin: a recording for each test, kept beside it. In ``conftest.py``::

    pytest_plugins = ["agentkit.testing.pytest_plugin"]

and in a test::

    def test_it_answers(recorded):
        with recorded("openai:gpt-5.5") as model:
            assert "42" in Agent(model, tools=[add]).run_sync("What is 20 + 22?").unwrap()

``pytest --record=always`` records anew, ``pytest --record=never`` (for CI) calls no model whatever is missing.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import Any, Protocol

import pytest

from agentkit.ports import Model
from agentkit.testing.recordings import Replay, replay


class Recorded(Protocol):
    """What the fixture gives: :func:`~agentkit.testing.replay` without its path and its mode."""

    def __call__(self, model: str | Model | None = None, **options: Any) -> AbstractContextManager[Replay]:
        """The recording of this test; a second one in the same test wants a ``name``."""
        ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--record=once|never|always``."""
    parser.addoption(
        "--record",
        choices=("once", "never", "always"),
        default="once",
        help="when real models are called: where there is no recording yet, never, or always",
    )


@pytest.fixture
def recorded(request: pytest.FixtureRequest) -> Recorded:
    """Opens ``recordings/MODULE.TEST.jsonl`` beside the test."""
    test = f"{request.path.stem}.{re.sub(r'[^A-Za-z0-9_.-]+', '-', request.node.name).strip('-')}"
    mode = request.config.getoption("--record")

    def opened(
        model: str | Model | None = None, *, name: str = "", **options: Any
    ) -> AbstractContextManager[Replay]:
        file = f"{test}.{name}.jsonl" if name else f"{test}.jsonl"
        path = request.path.parent / "recordings" / file
        options.setdefault("record", mode)
        return replay(path, model=model, **options)

    return opened
